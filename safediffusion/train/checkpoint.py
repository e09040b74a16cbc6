"""Checkpoints: written whole or not at all, checked before a byte of them is used. Safetensors and JSON only."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from safediffusion.collect.base import Learning
from safediffusion.core.digest import sha256
from safediffusion.core.errors import UserError, disk_full
from safediffusion.core.fleet import share, whole
from safediffusion.core.types import Sliceable
from safediffusion.models.files import read_weights
from safediffusion.models.policy import Policy, Weights
from safediffusion.train.loop import Trainer

E = TypeVar("E")
M = TypeVar("M", bound=Sliceable)

MANIFEST, STATE, OPTIMIZER = "manifest.json", "state.json", "optimizer.safetensors"
COLLECTOR = "collector.safetensors"  # only where a collector has tensors of its own
FORMAT = 1


def save_checkpoint(
    folder: Path, trainer: Trainer[E, M], *, done: int, keep: int | None = None, pinned: int | None = None
) -> Path:
    """Write `folder`/step-<done> after `done` steps and return it; then remove all but the newest `keep` and `pinned`.

    Every process has to call it, as weights may be divided among them; the main one writes, and writes them whole, so
    that any number of processes can go on from here.

    Everything goes to a folder of another name, the manifest last, is flushed to the disk and renamed. So what is
    called step-<done> is complete, whenever the process is killed. A full disk is a UserError; older ones stay intact.
    """
    final = folder / name_of(done)
    if not trainer.fleet.is_main:
        if trainer.policy.sharded:
            for _ in _tensors(trainer):
                pass
        return final
    partial = folder / f".{final.name}.partial"
    assert not final.exists(), f"{final} was written before"
    with _disk(partial, folder):
        partial.mkdir(parents=True)
        for name, tensors, about in _tensors(trainer):
            save_file(tensors, partial / name, about or None)  # it cannot be read with neither tensors nor metadata
        _write_json(partial / STATE, {"step": done, "trainer": trainer.state()})
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(partial.iterdir())
        }
        _write_json(partial / MANIFEST, {"format": FORMAT, "step": done, "files": files})
        for path in (*partial.iterdir(), partial):
            _sync(path)
        partial.rename(final)
        _sync(folder)
    if keep is not None:
        for old in checkpoints(folder)[:-keep]:
            if pinned is None or old.name != name_of(pinned):
                _remove(old)
    return final


def name_of(step: int) -> str:
    """What the checkpoint after `step` steps is called."""
    return f"step-{step:06d}"


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*"))


def clean(folder: Path) -> None:
    """Remove what a killed process left half written or half removed."""
    for left in folder.glob(".step-*"):
        shutil.rmtree(left)


def load_checkpoint(path: Path, trainer: Trainer[E, M]) -> int:
    """Put a checkpoint into `trainer`, which must be built from the same recipe; returns the steps it had done.

    UserError names the file that is missing, cut short or edited; nothing has been loaded then.
    """
    files = verify(path)
    state = json.loads((path / STATE).read_text())
    sets, learning = _stored(trainer.policy), _learning(trainer)
    wanted = {f"{which}.safetensors" for which in sets} | ({COLLECTOR} if learning else set())
    stored = {name for name in files if name.endswith(".safetensors")} - {OPTIMIZER}
    if wanted != stored:
        raise UserError(
            f"checkpoint {path} holds {', '.join(sorted(stored))}, this recipe needs {', '.join(sorted(wanted))}; "
            "resume with the recipe it was trained with"
        )
    for which in sets:
        trainer.policy.load_state(read_weights(path / f"{which}.safetensors")[0], which)
    _load_optimizer(trainer.optimizer, read_weights(path / OPTIMIZER)[0])
    trainer.load_state(state["trainer"])
    if learning is not None:
        learning.load_tensors(read_weights(path / COLLECTOR)[0])
    return int(state["step"])


def verify(path: Path) -> frozenset[str]:
    """The files of a checkpoint, after comparing each with the manifest; UserError names the first that differs."""
    remedy = f"delete {path} to resume from the checkpoint before it"
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        files, step = manifest["files"], manifest["step"]
        recorded = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path / MANIFEST} is missing or damaged; {remedy}") from error
    if manifest.get("format") != FORMAT or path.name != name_of(step):
        raise UserError(f"{path / MANIFEST} does not belong to this checkpoint or is of another version; {remedy}")
    for name in sorted({STATE, OPTIMIZER, f"{Weights.LIVE}.safetensors"} - recorded.keys()):
        raise UserError(f"{path / MANIFEST} does not list {name}; {remedy}")
    for name, (size, digest) in recorded.items():
        file = path / name
        if not file.is_file():
            raise UserError(f"{file} is missing; {remedy}")
        if file.stat().st_size != size:
            raise UserError(f"{file} has {file.stat().st_size} bytes instead of {size}: it was cut short; {remedy}")
        if sha256(file) != digest:
            raise UserError(f"{file} was changed after it was written (its SHA-256 differs); {remedy}")
    return frozenset(recorded)


def _tensors(trainer: Trainer[E, M]) -> Iterator[tuple[str, dict[str, Tensor], dict[str, str]]]:
    """File name, tensors and metadata of every set of weights, of the optimizer, and of a collector that has any."""
    for which in _stored(trainer.policy):
        yield f"{which}.safetensors", trainer.policy.state(which), trainer.policy.bank.describe()
    yield OPTIMIZER, _optimizer_state(trainer.optimizer), {}
    if learning := _learning(trainer):
        yield COLLECTOR, learning.tensors(), {}


def _learning(trainer: Trainer[E, M]) -> Learning | None:
    """The collector, if it has tensors as configured."""
    collector: object = trainer.collector
    return collector if isinstance(collector, Learning) and collector.learns else None


def _stored(policy: Policy) -> list[Weights]:
    """The sets that cannot be rebuilt from the base."""
    return sorted(policy.allocated - {Weights.REFERENCE})


def _optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`<parameter's number>.<name>` -> tensor, whole. Everything else in an optimizer's state comes from the recipe."""
    found: dict[str, Tensor] = {}
    for number, entries in optimizer.state_dict()["state"].items():
        for name, value in _flat(entries):
            found[f"{number}.{name}"] = whole(value.detach()).to("cpu", copy=True).contiguous()
    return found


def _flat(entries: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Tensor]]:
    """Nested entries by their path; a whole number becomes an int64 tensor."""
    for name, value in entries.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{start}{name}.")
        else:
            assert isinstance(value, Tensor | int), f"optimizer state '{name}' is a {type(value).__name__}, no tensor"
            yield f"{start}{name}", torch.as_tensor(value)


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        number, *path, name = key.split(".")
        entries = state.setdefault(int(number), {})
        for part in path:
            entries = entries.setdefault(part, {})
        counter = value.dtype == torch.int64 and value.ndim == 0
        like = parameters[int(number)]
        entries[name] = int(value) if counter else share(value, like) if value.shape == like.shape else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def _remove(path: Path) -> None:
    """Remove a checkpoint; killed half-way, it is not called a checkpoint any more."""
    hidden = path.with_name(f".{path.name}.removed")
    path.rename(hidden)
    shutil.rmtree(hidden)


def _sync(path: Path) -> None:
    """Return once a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _disk(partial: Path, folder: Path) -> Iterator[None]:
    """Turn a disk that is full or cannot be written into a UserError, after removing what was begun."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        last = checkpoints(folder)
        intact = f"the last checkpoint, {last[-1]}, is intact" if last else "there is no earlier checkpoint"
        raise UserError(
            f"checkpoint {partial.name.strip('.').removesuffix('.partial')} could not be written: "
            f"{'no space left on the disk' if disk_full(error) else error}; {intact}. Free some space, then resume"
        ) from error
