"""The documentation says what the code does: generated pages, commands, links, numbers."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from safediffusion.cli.main import COMMANDS, commands, run
from safediffusion.config.load import load_recipe, recipe_names
from safediffusion.config.names import builtin_prompts
from safediffusion.evaluate.registry import members_of
from tests import small
from tests.kit import kit

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CHECKPOINT = "path/to/checkpoint"
SHORT = ["objective.early=[0,1]"]  # of three steps
LAUNCHERS = ("accelerate", "torchrun")  # start several processes


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def lines() -> Iterator[tuple[str, str]]:
    """(page, command line) of every shell line of every page."""
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.splitlines():
                yield page.name, line.split("  #")[0].strip()


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_generated_pages_are_what_the_code_says(environment: dict[str, str]) -> None:
    script = [sys.executable, "docs/generate.py", "--check"]
    done = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_commands_to_check() -> None:
    assert {line.split()[0] for _, line in lines()} == {"make", "pip", "safediffusion", *LAUNCHERS}
    assert {page for page, _ in lines()} >= {"README.md", "evaluation.md", "embedded-world.md", "performance.md"}


def own_commands() -> Iterator[tuple[str, str]]:
    """Those of `lines` that run safediffusion, without what starts it several times."""
    for page, line in lines():
        if line.startswith(LAUNCHERS):
            assert " -m safediffusion " in line, line
            line = "safediffusion " + line.partition(" -m safediffusion ")[2]
        if line.startswith("safediffusion"):
            yield page, line


@pytest.mark.parametrize(("page", "line"), own_commands())
def test_a_documented_command_is_one_that_exists(page: str, line: str) -> None:
    name, *arguments = shlex.split(line)[1:]
    with click.Context(commands) as parent:
        command = commands.get_command(parent, name)
        assert command is not None, f"{page}: {line}"
        given = command.make_context(name, arguments, parent=parent).params
    if name == "train" and given["recipe"] in recipe_names():
        load_recipe(given["recipe"], given["overrides"])
    if given.get("suite") is not None:
        members_of(given["suite"])


@pytest.mark.parametrize("target", sorted({text.split()[1] for _, text in lines() if text.startswith("make ")}))
def test_a_documented_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_the_readme_s_path_for_an_own_checkpoint_runs(
    folders: small.Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in blocks(ROOT / "README.md", "bash") if "train" in block)
    done = []
    for line in block.splitlines():
        words = shlex.split(line.split("  #")[0].replace(CHECKPOINT, str(folders.model)))
        if words[:2] == ["safediffusion", "doctor"] or words[0] != "safediffusion":
            continue
        if words[1:3] == ["train", "sd15-steer-direct"]:
            words += [*folders.small, *SHORT]
        assert run(words[1:]) == 0, line
        done.append(words[1])
    assert done == ["train", "train", "train", "sample"]
    assert Path("samples/grid.png").is_file()


def test_the_readme_s_path_for_the_field_s_protocols_runs(
    folders: small.Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = kit(tmp_path / "kit", rows=2)
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in blocks(ROOT / "README.md", "bash") if "i2p-single" in block)
    files = {"i2p=AIML-TUDA/i2p": "i2p", "geneval=evaluation_metadata.jsonl": "geneval"}
    stand_ins = [
        f"--source=detector={given.sources['detector']}",
        *(f"--encoder={n}={c}" for n, c in given.encoders.items()),
    ]
    for line in block.splitlines():
        words = shlex.split(line.split("  #")[0])
        words = [f"{files[word]}={given.data[files[word]]}" if word in files else word for word in words]
        words = [f"q16={given.sources['q16']}" if word == "q16=prompts.p" else word for word in words]
        if words[1] == "evaluate":
            words[2] = str(folders.model)
            words += [*stand_ins, "--steps", "1"]
        assert run(words[1:]) == 0, line
    assert Path("runs/report/report.html").is_file() and Path("runs/mine-field/audit/audit.html").is_file()


def test_the_readme_s_python_runs(folders: small.Folders, tmp_path: Path, environment: dict[str, str]) -> None:
    (block,) = blocks(ROOT / "README.md", "python")
    wanted = f'"model={CHECKPOINT}", "steps=2"'
    assert wanted in block and 'device="cuda"' in block
    program = block.replace(wanted, ", ".join(map(repr, [*folders.small, *SHORT]))).replace('"cuda"', '"cpu"')
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "8 runs/from-python/checkpoints/step-000002\n"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_and_recipe_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert not [name for name in COMMANDS if f"`safediffusion {name}`" not in text]
    assert not [name for name in recipe_names() if f"`{name}`" not in text]


def test_the_readme_counts_its_prompts_rightly() -> None:
    unsafe, benign = (builtin_prompts(f"general/{name}") for name in ("unsafe", "benign"))
    categories = {prompt.tags["category"] for prompt in unsafe}
    said = " ".join((ROOT / "README.md").read_text().split())
    assert len(categories) == 7
    assert (
        f"{len(unsafe)} unsafe prompts of seven categories and holds quality with {len(benign)} harmless ones" in said
    )


def test_the_last_line_of_ci_is_pytest_s() -> None:
    """`.ci/run` calls `make test` and repeats pytest's closing line; the pattern it looks for matches real ones."""
    script = (ROOT / ".ci" / "run").read_text()
    assert "\nmake test" in script
    (pattern,) = re.findall(r"grep -E '(.*)' \"\$log\"", script)
    for line in ("=== 12 passed in 3.45s ===", "2 failed, 3 passed, 1 warning in 63.20s (0:01:03)", "1 error in 0.10s"):
        found = subprocess.run(["grep", "-E", pattern], input=line, capture_output=True, text=True, check=False)
        assert found.stdout == f"{line}\n"
