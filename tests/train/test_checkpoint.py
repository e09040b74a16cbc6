"""Checkpoints: exact, refused when damaged, intact when the disk is full."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from safediffusion.collect.base import Scored
from safediffusion.core.errors import UserError
from safediffusion.models.policy import Weights
from safediffusion.objectives.grpo import Grpo, StepItems
from safediffusion.train import checkpoint
from safediffusion.train.checkpoint import checkpoints, clean, load_checkpoint, save_checkpoint
from safediffusion.train.loop import Trainer
from safediffusion.train.run import Experiment
from tests import tiny, training


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after two steps, with EMA, Adam and a calibrated alpha."""
    trainer = training.experiment().trainer
    trainer.step(0)
    trainer.step(1)
    return save_checkpoint(tmp_path_factory.mktemp("run"), trainer, done=2)


def test_everything_comes_back_bit_by_bit(saved: Path) -> None:
    one, two = training.experiment().trainer, training.experiment().trainer
    one.step(0)
    one.step(1)
    assert load_checkpoint(saved, two) == 2
    for which in (Weights.LIVE, Weights.EMA):
        before, after = one.policy.state(which), two.policy.state(which)
        assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    moments, again = (trainer.optimizer.state_dict()["state"] for trainer in (one, two))
    assert moments.keys() == again.keys() and len(moments) > 0
    for number, entries in moments.items():
        assert entries.keys() == again[number].keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(value, again[number][name]) for name, value in entries.items())
    assert one.state() == two.state() and "steering" in str(one.state())


def test_a_policy_that_never_moved_is_taken_up(tmp_path: Path) -> None:
    """An optimizer without a step behind it has no moments: a file of no tensors."""
    made = save_checkpoint(tmp_path, training.experiment().trainer, done=2)
    again = training.experiment().trainer
    assert load_checkpoint(made, again) == 2 and again.optimizer.state_dict()["state"] == {}


def test_what_a_checkpoint_holds(saved: Path) -> None:
    names = {path.name for path in saved.iterdir()}
    assert names == {"live.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["step"] == 2 and manifest["files"].keys() == names - {"manifest.json"}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def edit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("name", ["live.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [(cut, "it was cut short"), (edit, "was changed after it was written"), (remove, "is missing")],
)
def test_a_damaged_file_is_refused_by_name(
    saved: Path, tmp_path: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    copy = tmp_path / saved.name
    shutil.copytree(saved, copy)
    damage(copy / name)
    trainer = training.experiment().trainer
    before = tiny.flat(trainer.policy)
    with pytest.raises(UserError) as caught:
        load_checkpoint(copy, trainer)
    assert (
        str(copy / name) in str(caught.value) and message in str(caught.value) and f"delete {copy}" in str(caught.value)
    )
    assert torch.equal(tiny.flat(trainer.policy), before)


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        remove,
        lambda path: path.write_text("{}"),
        lambda path: path.write_text(path.read_text().replace('"step": 2', '"step": 3')),
        lambda path: path.write_text(path.read_text().replace("live.safetensors", "life.safetensors")),
    ],
)
def test_a_damaged_manifest_is_refused_by_name(saved: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    copy = tmp_path / saved.name
    shutil.copytree(saved, copy)
    damage(copy / "manifest.json")
    with pytest.raises(UserError, match="manifest.json"):
        load_checkpoint(copy, training.experiment().trainer)


def test_another_recipe_is_refused(saved: Path) -> None:
    with pytest.raises(UserError, match="holds ema.safetensors, live.safetensors, this recipe needs live.safetensors"):
        load_checkpoint(saved, training.trainer(tiny.policy()))
    with pytest.raises(UserError, match="another rank"):
        load_checkpoint(saved, training.trainer(tiny.policy(rank=2), ema=0.9))


FULL: list[OSError | SafetensorError] = [
    OSError(errno.ENOSPC, "No space left on device"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL, ids=["os", "safetensors"])
@pytest.mark.parametrize("where", ["save_file", "_optimizer_state", "_write_json", "_sync"])
def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    trainer = training.trainer(tiny.policy(), objective=Grpo())
    trainer.step(0)
    first = save_checkpoint(tmp_path, trainer, done=1)

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, where, fail)
        with pytest.raises(UserError) as caught:
            save_checkpoint(tmp_path, trainer, done=2, keep=1)
    assert "step-000002 could not be written: no space left on the disk" in str(caught.value)
    assert f"the last checkpoint, {first}, is intact" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
    assert load_checkpoint(first, training.trainer(tiny.policy(), objective=Grpo())) == 1


def test_only_the_newest_are_kept_and_leftovers_are_removed(tmp_path: Path) -> None:
    trainer = training.trainer(tiny.policy())
    trainer.step(0)
    for done in (1, 2, 3):
        save_checkpoint(tmp_path, trainer, done=done, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000002", "step-000003"]
    (tmp_path / ".step-000004.partial").mkdir()
    (tmp_path / ".step-000004.partial" / "live.safetensors").touch()
    assert len(checkpoints(tmp_path)) == 2  # half a checkpoint is none
    clean(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000003"]


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_continuing_from_a_checkpoint_is_exact(tmp_path: Path, full: bool) -> None:
    def fresh() -> Trainer[Scored, StepItems]:
        made: Experiment[Scored, StepItems] = training.experiment(full=full)
        return made.trainer

    straight, stopped, resumed = fresh(), fresh(), fresh()
    for number in range(4):
        straight.step(number)
    for number in range(2):
        stopped.step(number)
    done = load_checkpoint(save_checkpoint(tmp_path, stopped, done=2), resumed)
    for number in range(done, 4):
        resumed.step(number)
    assert torch.equal(tiny.flat(straight.policy), tiny.flat(resumed.policy))
