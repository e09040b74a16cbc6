"""The run folder: what is in it, what is refused, what a hook and a tracker see."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from types import ModuleType
from typing import Any

import pytest
import torch

from safediffusion.core.errors import UserError
from safediffusion.models.policy import Policy
from safediffusion.train.metrics import read_metrics
from safediffusion.train.optim import LearningRate
from safediffusion.train.run import train
from tests import training


class Heard:
    """Collects what `train` says."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[int, int]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        assert metrics["step"] == done
        self.steps.append((done, total))


class Direction:
    def text(self) -> str:
        return "AUC 0.97"

    def json(self) -> dict[str, Any]:
        return {"auc": 0.97}


def test_a_run_folder(tmp_path: Path) -> None:
    folder, heard, asked = tmp_path / "run", Heard(), []

    def hook(policy: Policy, done: int, where: Path) -> dict[str, float]:
        asked.append((done, where))
        return {"eval/unsafe": 0.5}

    def check() -> Direction:
        return Direction()

    experiment = replace(
        training.experiment(3, checkpoint_every=2),
        hook=hook,
        hook_every=2,
        check=check,
        trackers=("tensorboard",),
        provenance={"model": "tiny"},
    )
    result = train(experiment, folder, progress=heard)
    assert heard.steps == [(1, 3), (2, 3), (3, 3)] and heard.notes == ["AUC 0.97"]
    assert asked == [(2, folder)]
    lines = read_metrics(folder)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert [line.get("eval/unsafe") for line in lines] == [None, 0.5, None]
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == ["step-000002", "step-000003"]
    about = json.loads((folder / "run.json").read_text())
    assert about["config"] == {"steps": 3, "model": "tiny"} and about["model"] == "tiny" and about["processes"] == 1
    assert about["direction"] == {"auc": 0.97} and about["versions"]["torch"] == torch.__version__
    assert any((folder / "tb").iterdir())
    assert result.images == 24 and result.steps == 3 and result.checkpoint.name == "step-000003"
    assert result.unet_forwards == lines[-1]["unet_forwards"] and result.wall_s == lines[-1]["time/total"] > 0


def test_a_folder_is_not_overwritten_and_a_finished_run_stays(tmp_path: Path) -> None:
    train(training.experiment(1), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(UserError, match="holds a run already; add --resume"):
        train(training.experiment(1), tmp_path)
    again = train(training.experiment(1), tmp_path, resume=True)
    assert again.images == 8 and (tmp_path / "metrics.jsonl").read_text() == before
    train(training.experiment(1), tmp_path / "new", resume=True)  # nothing to resume: starts


def test_resuming_needs_the_weights_it_was_started_from(tmp_path: Path) -> None:
    def experiment(digest: str) -> Any:
        return replace(
            training.experiment(1), provenance={"weights": {"model": "m", "files": {"unet.safetensors": digest}}}
        )

    train(experiment("aa"), tmp_path)
    train(experiment("aa"), tmp_path, resume=True)
    with pytest.raises(UserError, match=r"the base model's unet.safetensors is not the file that .* was started from"):
        train(experiment("bb"), tmp_path, resume=True)
    with pytest.raises(UserError, match="put the old file back, or start a new run"):
        train(replace(training.experiment(1), provenance={}), tmp_path, resume=True)


def test_resuming_needs_the_files_it_was_started_with(tmp_path: Path) -> None:
    def experiment(digest: str) -> Any:
        return replace(training.experiment(1), provenance={"data": {"prompts.mine.file": digest}})

    train(experiment("aa"), tmp_path)
    train(experiment("aa"), tmp_path, resume=True)
    with pytest.raises(UserError, match=r"what prompts.mine.file names is not what .* was started with; put it back"):
        train(experiment("bb"), tmp_path, resume=True)
    about = json.loads((tmp_path / "run.json").read_text())
    del about["data"]
    (tmp_path / "run.json").write_text(json.dumps(about))  # as an older version wrote it
    train(experiment("bb"), tmp_path, resume=True)


def test_a_session_on_another_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(training.experiment(1), tmp_path)
    elsewhere = {"source": {"commit": "abc"}, "versions": {}, "machine": {"cpus": 64}}
    monkeypatch.setattr("safediffusion.train.run.provenance", lambda device: elsewhere)
    for steps in (2, 3):  # the same place is told once
        train(training.experiment(steps), tmp_path, resume=True)
    about = json.loads((tmp_path / "run.json").read_text())
    assert about["sessions"] == [{"step": 1, "processes": 1, **elsewhere}] and about["machine"] != {"cpus": 64}


def test_going_further_says_that_a_decaying_rate_changes(tmp_path: Path) -> None:
    def experiment(steps: int) -> Any:
        made = training.experiment(steps)
        made.trainer.rate = LearningRate(peak=1e-3, decay="cosine", total=steps)
        return made

    heard = Heard()
    train(experiment(1), tmp_path)
    train(experiment(2), tmp_path, resume=True, progress=heard)
    assert heard.notes[0] == "the learning rate now falls over 2 steps, before it was 1"


def test_resuming_needs_the_same_recipe_but_may_go_further(tmp_path: Path) -> None:
    train(training.experiment(1), tmp_path)
    with pytest.raises(UserError, match='was trained with model="tiny", now it is "huge"'):
        train(replace(training.experiment(1), config={"steps": 1, "model": "huge"}), tmp_path, resume=True)
    heard = Heard()
    train(training.experiment(2), tmp_path, resume=True, progress=heard)
    assert heard.notes == ["resuming after step 1 of 2"] and heard.steps == [(2, 2)]
    with pytest.raises(UserError, match="is beyond the 1 steps asked for"):
        train(training.experiment(1), tmp_path, resume=True)


def test_what_a_resumed_run_is_given_anew_stays(tmp_path: Path) -> None:
    train(training.experiment(1), tmp_path)
    started = json.loads((tmp_path / "run.json").read_text())
    assert "changed" not in started
    for _ in range(2):  # the same again changes nothing
        train(training.experiment(2), tmp_path, resume=True)
        about = json.loads((tmp_path / "run.json").read_text())
        assert about["config"] == {"steps": 2, "model": "tiny"}
        assert about.pop("changed") == [{"step": 1, "before": {"steps": 1}, "now": {"steps": 2}}]
        assert about | {"config": started["config"]} == started
    train(training.experiment(3), tmp_path, resume=True)
    about = json.loads((tmp_path / "run.json").read_text())
    assert [each["step"] for each in about["changed"]] == [1, 2] and about["config"]["steps"] == 3
    with pytest.raises(UserError, match="is beyond the 2 steps asked for"):
        train(training.experiment(2), tmp_path, resume=True)
    assert json.loads((tmp_path / "run.json").read_text()) == about  # a refused one changes nothing


def test_metrics_beyond_the_checkpoint_are_written_again(tmp_path: Path) -> None:
    train(training.experiment(4, checkpoint_every=2), tmp_path)
    whole = read_metrics(tmp_path)
    for path in (tmp_path / "checkpoints" / "step-000004").iterdir():
        path.unlink()
    (tmp_path / "checkpoints" / "step-000004").rmdir()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # killed while writing
    train(training.experiment(4, checkpoint_every=2), tmp_path, resume=True)
    again = read_metrics(tmp_path)
    assert [untimed(line) for line in again] == [untimed(line) for line in whole]


def untimed(line: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in line.items() if not name.startswith("time/")}


def test_lost_metrics_are_not_passed_over(tmp_path: Path) -> None:
    train(training.experiment(2), tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text(lines[1])
    with pytest.raises(UserError, match="metrics.jsonl does not hold steps 1 to 2"):
        train(training.experiment(3), tmp_path, resume=True)
    (tmp_path / "metrics.jsonl").write_text("nonsense\n" + lines[1])
    with pytest.raises(UserError, match="metrics.jsonl, line 1 is not JSON"):
        train(training.experiment(3), tmp_path, resume=True)


def test_a_refused_check_leaves_no_run(tmp_path: Path) -> None:
    def refuse() -> Direction:
        raise UserError("AUC 0.5: below 0.8")

    with pytest.raises(UserError, match="below 0.8"):
        train(replace(training.experiment(1), check=refuse), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_services_get_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    fake = ModuleType("wandb")
    known: list[str] = []

    def init(**options: Any) -> None:
        known.append(options["id"])
        calls.append(("init", f"{options['name']}, {options['resume']}"))

    fake.init = init  # type: ignore[attr-defined]
    fake.log = lambda metrics, step: calls.append(("log", step))  # type: ignore[attr-defined]
    fake.finish = lambda: calls.append(("finish", None))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    train(replace(training.experiment(2), trackers=("wandb",)), tmp_path / "mine")
    assert calls == [("init", "mine, never"), ("log", 1), ("log", 2), ("finish", None)]
    train(replace(training.experiment(3), trackers=("wandb",)), tmp_path / "mine", resume=True)
    assert calls[4:] == [("init", "mine, allow"), ("log", 3), ("finish", None)]
    assert known[0] == known[1] != ""  # by which wandb finds the run again
    rmtree(tmp_path / "mine" / "checkpoints")  # as if it had been killed before its first one
    train(replace(training.experiment(3), trackers=("wandb",)), tmp_path / "mine", resume=True)
    assert calls[7] == ("init", "mine, never") and known[2] != known[0]


def test_a_missing_or_unknown_tracker_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UserError, match="pip install trackio"):
        train(replace(training.experiment(1), trackers=("trackio",)), tmp_path / "a")
    with pytest.raises(UserError, match="did you mean 'tensorboard'"):
        train(replace(training.experiment(1), trackers=("tensorbord",)), tmp_path / "b")


@pytest.mark.parametrize("options", [{"steps": 0}, {"checkpoint_every": 0}, {"checkpoints_kept": 0}])
def test_impossible_options(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(options))} is 0"):
        replace(training.experiment(1), **options)  # type: ignore[arg-type]
