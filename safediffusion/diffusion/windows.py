"""Which reverse steps are noisy, recorded and trained at each training step (MixGRPO, arXiv 2507.21802)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from safediffusion.core.errors import UserError
from safediffusion.core.noise import stream

from .denoise import Plan

Moves = Literal["fixed", "sliding", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """How a plan's window moves as training goes on; its width stays.

    "sliding": one reverse step towards the data every `every` training steps, and from the start again after the last
    place. "random": a place drawn for each training step. Places begin at the plan's own window and leave out the last
    reverse step, which ends in the data.
    """

    moves: Moves = "fixed"
    every: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"a sliding window moves every {self.every} steps; it must be 1 or more")

    def of(self, plan: Plan, step: int) -> Plan:
        """The plan of training step 0, 1, 2, ...: a pure function of (seed, step)."""
        if self.moves == "fixed":
            return plan
        if plan.window is None:
            raise UserError(f"a window that is {self.moves} needs a window to start from; set plan.window, e.g. [0, 4]")
        first, last = plan.window
        places = plan.steps - last
        if places < 2:
            raise UserError(f"window [{first}, {last}) of {plan.steps} steps has nowhere to move; let it end earlier")
        if self.moves == "sliding":
            shift = step // self.every % places
        else:
            shift = int(stream(self.seed, "window", step).integers(places))
        return replace(plan, window=(first + shift, last + shift))
