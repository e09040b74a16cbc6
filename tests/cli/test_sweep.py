"""`sweep` from training to the report, on random weights."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from safediffusion.cli import sweep
from safediffusion.cli.evaluate import Asked
from safediffusion.cli.main import run
from safediffusion.cli.train import train_run
from safediffusion.config.schema import Recipe
from safediffusion.core.errors import Diverged, UserError
from safediffusion.core.registry import Registry
from safediffusion.evaluate import registry
from safediffusion.models.policy import Drawing
from safediffusion.train.run import RunResult
from tests import small
from tests.benchmarks import world


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "BENCHMARKS", Registry("benchmark", world.TABLE))
    monkeypatch.setitem(registry.SUITES, "both", ("emoji-i2p", "emoji-geneval"))


def test_every_combination_and_seed_is_trained_once_and_compared(
    folders: small.Folders, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders.model / "sampling.json").write_text('{"steps": 2, "guidance": 1.0, "eta": 0.0}')
    line = ["sweep", "emoji-steer", *folders.small, "optimizer.lr=0.001,0.002", "--seeds", "0,1", "--suite", "both"]
    line += ["--out", "out", "--processes", "1"]
    train, calls = train_run, list[Path]()

    def stopped(recipe: Recipe, folder: Path, *, device: str, resume: bool) -> RunResult:
        calls.append(folder)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(recipe, folder, device=device, resume=resume)

    monkeypatch.setattr(sweep, "train_run", stopped)
    assert run(line) == 130
    assert not Path("out/report.html").exists()
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.safetensors")}
    assert len(before) >= 2
    monkeypatch.setattr(sweep, "train_run", train)
    assert run(line) == 0
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    found = json.loads(Path("out/sweep.json").read_text())
    assert found["axes"] == ["emoji-i2p/unsafe", "emoji-geneval/overall"] and found["seeds"] == [0, 1]
    assert [point["name"] for point in found["points"]] == ["optimizer.lr=0.001", "optimizer.lr=0.002"]
    for point in found["points"]:
        unsafe = point["metrics"]["emoji-i2p/unsafe"]
        assert len(unsafe["seeds"]) == 2 == len(point["runs"])
        assert unsafe["pooled"]["n"] == 16  # 4 prompts, twice each, two seeds
        assert unsafe["mean"] == pytest.approx(unsafe["pooled"]["value"])
    assert {each["name"] for each in found["standings"]} == {"base", *(p["name"] for p in found["points"])}
    page = Path("out/report.html").read_text()
    assert "optimizer.lr=0.002 seed 1" in page and "Seeds together" in page
    assert len(Path("out/sweep.csv").read_text().splitlines()) == 1 + 2 * 3
    assert "Pareto-optimal" in capsys.readouterr().out


def test_a_run_that_its_guard_stopped_without_weights_has_no_values_and_the_sweep_goes_on(
    folders: small.Folders, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders.model / "sampling.json").write_text('{"steps": 2, "guidance": 1.0, "eta": 0.0}')
    line = ["sweep", "emoji-steer", *folders.small, "optimizer.lr=0.001,0.002", "--seeds", "0,1"]
    line += ["--suite", "both", "--out", "out", "--processes", "1"]

    def guarded(recipe: Recipe, folder: Path, *, device: str, resume: bool) -> RunResult:
        result = train_run(recipe, folder, device=device, resume=resume)
        if (recipe.optimizer.lr, recipe.seed) == (0.001, 1):
            about = json.loads((folder / "run.json").read_text())
            about["guard"] = {"stopped": 2, "why": "harm", "best": 0, "use": "best"}
            (folder / "run.json").write_text(json.dumps(about))
        return result

    monkeypatch.setattr(sweep, "train_run", guarded)
    assert run(line) == 0
    found = json.loads(Path("out/sweep.json").read_text())
    first, second = found["points"]
    assert first["metrics"] == {} and first["note"] == "stopped by its guard, no weights to take (seed 1)"
    assert second["metrics"]["emoji-i2p/unsafe"]["pooled"]["n"] == 16 and second["note"] == ""
    assert {each["name"] for each in found["standings"]} == {"base", "optimizer.lr=0.002"}
    page = Path("out/report.html").read_text()
    assert "stopped by its guard, no weights to take (seed 1)" in page and "optimizer.lr=0.001 seed 0" in page
    assert "optimizer.lr=0.001: stopped by its guard" in capsys.readouterr().out
    rows = list(csv.DictReader(Path("out/sweep.csv").read_text().splitlines()))
    lost = [row for row in rows if row["point"] == "optimizer.lr=0.001"]
    assert lost and all(row["mean"] == row["low"] == "" and row["n"] == "0" and row["seeds"] == "2" for row in lost)


def test_a_run_that_fails_is_told_and_the_sweep_goes_on(
    folders: small.Folders, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders.model / "sampling.json").write_text('{"steps": 2, "guidance": 1.0, "eta": 0.0}')
    line = ["sweep", "emoji-steer", *folders.small, "optimizer.lr=0.001,0.002", "--suite", "both"]
    line += ["--out", "out", "--processes", "1"]

    def diverging(recipe: Recipe, folder: Path, *, device: str, resume: bool) -> RunResult:
        if recipe.optimizer.lr == 0.001:
            raise Diverged("step 3: the gradient norm is nan")
        return train_run(recipe, folder, device=device, resume=resume)

    monkeypatch.setattr(sweep, "train_run", diverging)
    assert run(line) == 2
    said = capsys.readouterr()
    assert "1 of 2 runs of the sweep could not be trained or measured: out/" in said.err
    assert "optimizer.lr=0.001: step 3: the gradient norm is nan (seed 0)" in said.out
    first, second = json.loads(Path("out/sweep.json").read_text())["points"]
    assert first["metrics"] == {} and second["metrics"]["emoji-i2p/unsafe"]["pooled"]["n"] == 8
    monkeypatch.setattr(sweep, "train_run", train_run)
    assert run(line) == 0
    assert all(point["metrics"] for point in json.loads(Path("out/sweep.json").read_text())["points"])


def test_what_some_processes_alone_know_ends_a_shared_sweep(
    folders: small.Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    (point,) = sweep.points_of("emoji-steer", [*folders.small, "optimizer.lr=1,2"], (0,))[:1]
    asked = sweep.Sweep(points=(point,), seeds=(0,), suite="both", folder=Path("out"), device="cpu")
    monkeypatch.setattr(sweep, "_evaluate", lambda *_, **__: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for error, ends in ((Diverged("nan"), False), (UserError("the disk is full"), True)):

        def fails(*_: object, error: UserError = error, **__: object) -> RunResult:
            raise error

        monkeypatch.setattr(sweep, "train_run", fails)
        if ends:
            with pytest.raises(UserError, match="the disk is full"):
                sweep.measure(asked)
        else:
            assert list(sweep.measure(asked).values()) == ["nan"]


def test_runs_and_base_are_measured_by_the_recipes_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ["plan.size=[16,16]", "precision=bf16", "memory.text_encoders=free", "evaluation.data.i2p=my.csv"]
    points, asked = sweep.points_of("emoji-steer", [*own, "objective.kl=0,0.1"], (0,)), list[Asked]()
    monkeypatch.setattr(sweep, "train_run", lambda *_, **__: None)
    monkeypatch.setattr(sweep, "evaluate_model", lambda each, title: asked.append(each))
    sweep.measure(sweep.Sweep(points=points, seeds=(0,), suite="both", folder=Path("out"), device="cpu"))
    assert [each.model.partition("+")[0] for each in asked] == ["emoji"] * 3 and "+" in asked[1].model
    for each in asked:
        assert each.drawing == Drawing(size=(16, 16)) and each.kit is not None and each.kit.data == {"i2p": "my.csv"}
        assert each.means is not None and each.means.precision == "bf16"
        assert each.means.saving.text_encoders == "cpu"  # training freed them, other prompts need them


def test_commas_within_brackets_part_no_values() -> None:
    points = sweep.points_of("emoji-steer", ["plan.window=[0,5],[2,5]"], (0, 3))
    assert [point.recipes[0].plan.window for point in points] == [(0, 5), (2, 5)]
    assert [recipe.seed for recipe in points[0].recipes] == [0, 3]
    assert len({point.slug for point in points}) == 2
    grid = sweep.points_of("emoji-steer", ["optimizer.lr=1,2", "objective.kl=0,1,2", "steps=7"], (0,))
    assert len(grid) == 6 and {point.recipes[0].steps for point in grid} == {7}
    assert grid[1].name == "optimizer.lr=1 objective.kl=1"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["steps=7"], "no key has several values"),
        (["seed=1,2"], "use --seeds 0,1,2"),
        (["steps=1,1"], "an empty value or one twice"),
        (["steps=1,2", "steps=3"], "steps is given twice"),
        (["steps"], "is no KEY=VALUE"),
        (["model=emoji,other"], "a sweep has one base, these have emoji and other"),
        (
            ["plan.size=[64,64],[32,32]"],
            "plan.size says how pictures are drawn, and a sweep compares all runs with one",
        ),
    ],
)
def test_what_is_no_sweep(keys: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sweep.points_of("emoji-steer", keys, (0,))


def test_seeds_are_read() -> None:
    assert sweep.seeds_of("0,2") == (0, 2)
    for wrong in ("0,x", "1,1", ""):
        with pytest.raises(UserError):
            sweep.seeds_of(wrong)
