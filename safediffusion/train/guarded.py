"""What a run asks of its guard, and what run.json says of one that stopped it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from safediffusion.models.policy import Policy


class Word(Protocol):
    """What a guard says after one look."""

    def metrics(self) -> dict[str, float]: ...
    def words(self) -> str: ...


class Guard(Protocol):
    """`guard.guard.PanelGuard` is the one there is. It says the same on every process."""

    @property
    def use(self) -> str:
        """`best` or `last`: the weights that a stopped run stands for."""
        ...

    @property
    def best(self) -> int:
        """The step of the best weights so far; 0 is the base."""
        ...

    @property
    def stopped(self) -> str:
        """Why training has to end, or nothing."""
        ...

    @property
    def forwards(self) -> int:
        """Network evaluations it has taken; they are not among training's."""
        ...

    def open(self, policy: Policy, folder: Path, done: int) -> None:
        """Before the first step, or before going on after `done` steps."""
        ...

    def after(self, policy: Policy, done: int) -> Word | None:
        """After `done` steps; None when no look is due."""
        ...


def said(guard: Guard, word: Word) -> Mapping[str, float]:
    """Metrics of one look with what the guard has cost so far."""
    return word.metrics() | {"guard/unet_forwards": float(guard.forwards)}


def note(folder: Path, guard: Guard | None, step: int) -> None:
    """Keep in run.json that the guard stopped the run after `step` steps, or that it did not."""
    file = folder / "run.json"
    about: dict[str, Any] = json.loads(file.read_text())
    found = None
    if guard is not None and guard.stopped:
        found = {"stopped": step, "why": guard.stopped, "best": guard.best, "use": guard.use}
    if about.get("guard") == found:
        return
    about.pop("guard", None)
    replace_json(file, about | ({} if found is None else {"guard": found}))


def replace_json(file: Path, about: Mapping[str, Any]) -> None:
    """Write run.json as a whole or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(about, indent=1) + "\n")
    partial.replace(file)


def verdict(guard: Guard, step: int) -> str:
    """For a reader: that the run was stopped, why, and what is left of it."""
    kept = f"the best weights are those of step {guard.best}" if guard.best else "no weights it saw passed its rule"
    return (
        f"the guard stopped training after step {step}. {guard.stopped[:1].upper()}{guard.stopped[1:]}; {kept}. "
        "To go on all the same: --resume guard.stop=false"
    )
