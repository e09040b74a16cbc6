"""The commands that work, end to end on random weights: train, resume, evaluate, score, compare, sample, demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest
import torch
from PIL import Image

from safediffusion.cli.common import means_for, slug
from safediffusion.cli.companions import companions
from safediffusion.cli.main import run
from safediffusion.cli.progress import Training
from safediffusion.evaluate.registry import BENCHMARKS
from safediffusion.models.files import read_weights
from safediffusion.train import contrast
from tests import small

METRICS = {"colours/red", "colours/red/even", "colours/changed"}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in an empty directory, and know the benchmark `colours`."""
    monkeypatch.chdir(tmp_path)
    assert BENCHMARKS.names()
    monkeypatch.setitem(BENCHMARKS._targets, "colours", "tests.evaluation:registered")


def plan(folders: small.Folders) -> None:
    (folders.model / "sampling.json").write_text('{"steps": 2, "guidance": 1.0, "eta": 0.0}')


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C when this step is done."""

    def press(self: Training, done: int, total: int, metrics: Mapping[str, float]) -> None:
        if done == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Training, "step", press)


def same_weights(one: Path, two: Path) -> bool:
    a, b = (read_weights(run / "checkpoints" / "step-000004" / "live.safetensors")[0] for run in (one, two))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_stopped_by_ctrl_c_says_how_to_go_on_and_ends_where_it_would_have(
    folders: small.Folders, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train", "emoji-steer", *folders.small, "steps=4", "checkpoint_every=1"]
    assert run([*line, "--out", "whole"]) == 0
    assert "whole: 4 steps, 16 images" in capsys.readouterr().out
    with monkeypatch.context() as pressed:
        stop_after(2, pressed)
        assert run([*line, "--out", "parts"]) == 130
    said = capsys.readouterr().err
    assert said.endswith("safediffusion: stopped; go on with: safediffusion train parts --resume\n")
    assert "Traceback" not in said
    assert run([*line, "--out", "parts"]) == 2
    assert "parts holds a run already; add --resume to go on with it" in capsys.readouterr().err
    assert run(["train", "parts", "--resume"]) == 0
    assert "resuming after step 1 of 4" in capsys.readouterr().out
    assert same_weights(Path("parts"), Path("whole"))


def test_a_resumed_run_may_be_longer_but_not_another(
    folders: small.Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "emoji-steer", *folders.small, "steps=1", "optimizer.lr=0.002"]) == 0
    assert Path("runs/emoji-steer/run.json").is_file()
    assert run(["train", "runs/emoji-steer", "--resume", "optimizer.lr=1"]) == 2
    assert "was trained with optimizer.lr=0.002, now it is 1.0" in capsys.readouterr().err
    file = Path("runs/emoji-steer/run.json")
    started = json.loads(file.read_text())
    del started["config"]["constraint"]["finished"]  # as a version wrote it that did not know this key
    file.write_text(json.dumps(started))
    assert run(["train", "runs/emoji-steer", "--resume", "steps=2", "memory.embeddings=kept"]) == 0
    assert list(Path("kept").glob("*.safetensors"))
    assert set(json.loads(file.read_text())["changed"][-1]["now"]) == {"steps", "memory.embeddings"}
    assert run(["train", "sd15-steer", "--resume"]) == 2
    assert "there is no run in runs/sd15-steer to resume" in capsys.readouterr().err


def test_a_run_that_evaluates_itself_logs_what_it_measured(folders: small.Folders) -> None:
    plan(folders)
    keys = ["evaluation.every=2", "evaluation.suite=colours", "evaluation.limit=2", "ema=0.5"]
    keys += ["memory.text_encoders=free"]  # what is measured has been encoded too
    assert run(["train", "emoji-steer", *folders.small, *keys]) == 0
    assert means_for("runs/emoji-steer", precision=None).saving.text_encoders == "cpu"  # for any other text
    first, second = (json.loads(line) for line in Path("runs/emoji-steer/metrics.jsonl").read_text().splitlines())
    assert "eval/colours/red" not in first
    assert 0 <= second["eval/colours/red"] <= 1
    snapshot = Path("runs/emoji-steer/eval/colours-000002")
    assert len(list((snapshot / "images").iterdir())) == 2 * 3
    rmtree("runs/emoji-steer/checkpoints/step-000002")  # stopped after it was measured, before its weights were kept
    about = json.loads((snapshot / "eval.json").read_text())
    assert about["model"]["precision"] == "fp32"
    (snapshot / "eval.json").write_text(json.dumps(about | {"probe": [9.0] * len(about["probe"])}))
    assert run(["train", "runs/emoji-steer", "--resume"]) == 0
    third = json.loads(Path("runs/emoji-steer/metrics.jsonl").read_text().splitlines()[-1])
    assert third["eval/colours/red"] == second["eval/colours/red"]


def test_a_dry_run_prints_the_cost_and_writes_nothing(
    folders: small.Folders, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrast, "PROMPTS", 128)  # as it ships
    assert run(["train", "emoji-steer", *folders.small, "objective.kl=0.01", "--dry-run"]) == 0
    lines = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "8 (4 a step), 2 trainable steps each" in lines["images"]
    # a step: 4 images x (3 sampled + 2 trained + 2 of the reference); once: 256 prompts x (3 sampled + 2 recorded)
    assert "1,336 (28 a step, 1,280 at the start)" in lines["UNet forwards"]
    assert "16 (8 a step)" in lines["UNet backwards"]
    assert "a process: networks" in lines["peak memory"]
    assert not list(tmp_path.iterdir())


def test_measured_scored_and_compared(folders: small.Folders, capsys: pytest.CaptureFixture[str]) -> None:
    plan(folders)
    assert run(["train", "emoji-steer", *folders.small, "optimizer.lr=0.1"]) == 0
    base = ["evaluate", str(folders.model), "--suite", "colours", "--out", "base"]
    assert run(base) == 0
    assert run(["evaluate", "runs/emoji-steer", "--suite", "colours"]) == 0
    aligned = Path("runs/emoji-steer/eval/colours")
    assert len(list((aligned / "images").glob("*.png"))) == 21
    capsys.readouterr()
    assert run(["score", "base", "--scorer", "clip"]) == 2
    assert "belongs to no run, so its encoder is not known; add --encoder" in capsys.readouterr().err
    assert run(["score", "base", "--scorer", "imagereward", "--source", "none.pt"]) == 2  # needs no encoder
    assert "there is no weights file at none.pt" in capsys.readouterr().err
    assert run(["score", "base", "--scorer", "clip", "--encoder", str(folders.encoder)]) == 0
    assert run(["score", "runs/emoji-steer", "--scorer", "clip"]) == 0
    assert "scored 21, unscorable 0, kept 0" in capsys.readouterr().out
    rows = [json.loads(line) for line in (aligned / "rows-all.jsonl").read_text().splitlines()]
    assert all(-1 <= row["scores"]["clip"] <= 1 for row in rows)
    assert run(["score", "runs/emoji-steer", "--scorer", "steering"]) == 2
    assert "alpha is 'auto' and has not been measured" in capsys.readouterr().err
    settings = ["steering.alpha=1", "steering.gate=all"]
    assert run(["score", "runs/emoji-steer", *settings, "--scorer", "steering"]) == 0
    assert run(["compare", "base", "runs/emoji-steer", "--out", "report", "--name", "before", "--name", "after"]) == 0
    shown = capsys.readouterr().out
    assert "before" in shown and "after" in shown
    assert json.loads(Path("report/report.json").read_text())["models"][1]["name"] == "after"
    assert "<html" in Path("report/report.html").read_text()
    assert run(["compare", "base"]) == 2
    assert "compare needs a base and at least one other folder" in capsys.readouterr().err


def test_a_model_with_a_name_of_its_own_is_measured_in_a_folder_of_its_own(
    folders: small.Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    assert slug("emoji+runs/a+runs/b/") == "emoji-a-b" and slug("you/model") == "model"
    Path("runs/model").mkdir(parents=True)
    Path("runs/model/run.json").write_text("{}")
    assert run(["evaluate", str(folders.model), "--suite", "colours"]) == 2
    assert "runs/model, where" in capsys.readouterr().err


def test_harm_is_scored_as_the_run_s_constraint_fitted_it(
    folders: small.Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(folders)
    harm = ["constraint.pictures=emoji", "calibration.allow_weak_direction=true", "guard.every=0"]
    assert run(["train", "emoji-constrained", *folders.small, *harm, "steps=1", "--out", "run"]) == 0
    assert run(["evaluate", "run", "--suite", "colours"]) == 0
    assert run(["score", "run", "--scorer", "harm"]) == 0
    rows = [json.loads(line)["scores"] for line in Path("run/eval/colours/rows-all.jsonl").read_text().splitlines()]
    for row in rows:
        members = [value for name, value in row.items() if name.startswith("harm/")]
        assert len(members) > 1 and row["harm"] == pytest.approx(sum(members) / len(members), abs=1e-5)
    capsys.readouterr()
    assert run(["score", "run", "--scorer", "harm", "steering.alpha=1"]) == 2
    assert "fitted as the run's recipe says" in capsys.readouterr().err
    assert run(["evaluate", str(folders.model), "--suite", "colours", "--out", "base"]) == 0
    assert run(["score", "base", "--scorer", "harm"]) == 2
    assert "belongs to no run with harm in constraint.costs" in capsys.readouterr().err


def test_samples_are_the_same_for_the_same_seed_and_stand_side_by_side(
    folders: small.Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(folders)
    model = str(folders.model)
    line = ["sample", model, "a cat", "a dog", "--count", "2"]
    assert run([*line, "--against", model, "--out", "one"]) == 0
    assert run([*line, "--seed", "1", "--out", "two"]) == 0
    assert capsys.readouterr().out == "one/grid.png\ntwo/grid.png\n"
    one, two = (np.asarray(Image.open(f"{name}/grid.png")) for name in ("one", "two"))
    assert one.shape == (4 * 16, 2 * 16, 3) and two.shape == (4 * 16, 16, 3)
    assert (one[:, :16] == one[:, 16:]).all()
    assert (one[:, :16] != two).any()
    assert sorted(path.name for path in Path("two").iterdir()) == [
        *(f"0-model-{number:03d}.png" for number in range(4)),
        "grid.png",
    ]


def test_the_demo_goes_from_base_to_report_and_on_where_it_was_stopped(
    folders: small.Folders, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(folders)
    own = ["checkpoint_every=1", "log=[tensorboard]", "objective.early=[0,1]"]
    line = ["demo", "--processes=1", "--suite=colours", *folders.small, *own]
    with monkeypatch.context() as pressed:
        stop_after(2, pressed)
        assert run(line) == 130
    said = capsys.readouterr().err
    assert "stopped; go on with: safediffusion demo --suite colours model=" in said
    assert run(line) == 0
    shown = capsys.readouterr().out
    assert "[1/4]" in shown and "[4/4]" in shown and "report: runs/demo/report.html" in shown
    assert "resuming after step 1 of 2" in shown
    found = json.loads(Path("runs/demo/summary.json").read_text())
    assert set(found) == {"base", "aligned", "train", "wall_s"}
    assert set(found["base"]) == set(found["aligned"]) == METRICS
    assert found["aligned"]["colours/red"].keys() == {"value", "low", "high", "n", "missing"}
    assert found["aligned"]["colours/red"]["n"] == 21
    assert found["train"].keys() == {"wall_s", "images", "unet_forwards", "steps"}
    assert (found["train"]["images"], found["train"]["steps"]) == (8, 2)
    assert found["wall_s"] > found["train"]["wall_s"] > 0
    assert list(Path("runs/demo/aligned/tb").glob("events*"))
    assert "<html" in Path("runs/demo/report.html").read_text()


def test_the_demo_shares_its_work_among_processes(folders: small.Folders) -> None:
    """Started once, it runs as two: the same pictures, the same weights but for rounding, one report, nobody left."""
    plan(folders)
    own = [*folders.small, "objective.early=[0,1]"]
    line = [sys.executable, "-m", "safediffusion", "demo", "--suite", "emoji-refusal", *own]
    for number in ("1", "2"):
        done = subprocess.run(
            [*line, "--out", number, "--processes", number], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("[4/4]") == 1
    one, two = (json.loads((Path(number) / "summary.json").read_text()) for number in ("1", "2"))
    for part in ("base", "aligned"):
        assert one[part]["emoji-refusal/drawn"]["n"] == two[part]["emoji-refusal/drawn"]["n"] == 84
    assert [one["train"][key] for key in ("images", "steps")] == [two["train"][key] for key in ("images", "steps")]
    records = [json.loads((Path(number) / "aligned" / "run.json").read_text()) for number in ("1", "2")]
    assert [record["processes"] for record in records] == [1, 2]
    files = [next((Path(n) / "aligned" / "checkpoints").glob("step-*/live.safetensors")) for n in ("1", "2")]
    a, b = (read_weights(file)[0] for file in files)
    for name in a:  # AdamW's division shows rounding; tests/invariant compares without it, and strictly
        torch.testing.assert_close(a[name], b[name], atol=1e-3, rtol=0)


def test_a_companion_that_fails_ends_the_command() -> None:
    """It is gone before it joined: who waits for it would wait for ever."""
    waits = (
        "from safediffusion.cli.companions import companions\n"
        "from safediffusion.core.fleet import Fleet\n"
        "with companions(2, ['no-such-command']):\n"
        "    Fleet.current().barrier()\n"
    )
    done = subprocess.run([sys.executable, "-c", waits], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "unknown command 'no-such-command'" in done.stderr
    assert "safediffusion: process 1 ended with status 2, so all do" in done.stderr


def test_companions_leave_the_environment_as_it_was() -> None:
    before, threads = dict(os.environ), torch.get_num_threads()
    with companions(2, ["list", "models"]):
        assert (os.environ["WORLD_SIZE"], os.environ["RANK"]) == ("2", "0")
        with companions(2, ["no-such-command"]):  # whoever has company starts nothing
            pass
    assert dict(os.environ) == before and torch.get_num_threads() == threads
