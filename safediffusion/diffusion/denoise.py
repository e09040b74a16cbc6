"""Denoising, once: rollouts and evaluation call `denoise`; `unroll` differentiates through the same steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.core.noise import Generators, Noise
from safediffusion.core.types import Conditioning, Sliceable

from .dynamics import Ddim, Dynamics, Gaussian
from .schedule import Prediction, Schedule


class Denoiser(Protocol):
    """What denoising needs of a model; `models.policy.Policy` is the one there is."""

    @property
    def schedule(self) -> Schedule: ...

    def predict(
        self,
        x: Tensor,
        t: Tensor,
        cond: Conditioning,
        *,
        guidance: float | Tensor = 1.0,
        keep_unconditional_grad: bool = False,
        bare: Tensor | None = None,
    ) -> Prediction: ...

    def unconditional(self, x: Tensor, t: Tensor, *, keep_grad: bool = False) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How images are sampled. A rollout carries its plan, so that it is re-scored under exactly this."""

    steps: int = 16
    guidance: float | tuple[float, ...] = 1.0  # w of eps_uncond + w (eps_cond - eps_uncond), of all or of each image
    dynamics: Dynamics = field(default_factory=Ddim)
    window: tuple[int, int] | None = None  # steps [first, last) are stochastic and recorded, the others deterministic
    keep_unconditional_grad: bool = False  # let the gradient through the unconditional branch too

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"a plan of {self.steps} steps samples nothing; set steps to 1 or more")
        each = self.guidance if isinstance(self.guidance, tuple) else (self.guidance,)
        if wrong := [value for value in each if not math.isfinite(value)]:
            raise UserError(f"guidance is {wrong[0]}; it must be a finite number, 1 for none")
        if self.window is not None and not 0 <= self.window[0] < self.window[1] <= self.steps:
            raise UserError(
                f"window {list(self.window)} does not lie within the plan's steps; "
                f"it is [first, last) with 0 <= first < last <= {self.steps}"
            )

    @property
    def branches(self) -> int:
        """Network evaluations of one step: two with guidance, one where it is 1."""
        each = self.guidance if isinstance(self.guidance, tuple) else (self.guidance,)
        return 1 if set(each) == {1.0} else 2

    def shared_forwards(self, pictures: int, *, processes: int) -> int:
        """Network evaluations of drawing these once, over processes that draw as many each (`Fleet.part_of`)."""
        return -(-pictures // processes) * processes * self.steps * self.branches

    def scale(self, device: torch.device | str) -> float | Tensor:
        """The guidance of all images, or [B] that of each."""
        if not isinstance(self.guidance, tuple):
            return self.guidance
        return torch.tensor(self.guidance, device=device) if self.branches == 2 else 1.0

    def at(self, step: int) -> Dynamics:
        """The dynamics of one step."""
        inside = self.window is None or self.window[0] <= step < self.window[1]
        return self.dynamics if inside else self.dynamics.deterministic()

    def stochastic(self, schedule: Schedule) -> tuple[int, ...]:
        """The steps that have a std above 0: those a rollout records and a policy gradient can train."""
        grid, one = schedule.grid(self.steps), torch.zeros(1, 1)
        found = []
        for i in range(self.steps):
            step = self.at(i).step(schedule, Prediction(one, one), one, grid[i : i + 1], grid[i + 1 : i + 2])
            if float(step.std) > 0:
                found.append(i)
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transitions(Sliceable):
    """The recorded reverse steps. Leading axes are [B, K] in a rollout, [N] once flattened to items."""

    x: Tensor  # [B, K, C, H, W] float32
    x_next: Tensor  # [B, K, C, H, W] float32
    t: Tensor  # [B, K]
    t_next: Tensor  # [B, K]
    log_prob: Tensor  # [B, K] under the weights that sampled
    x0: Tensor | None = None  # [B, K, C, H, W] the clean latents foreseen at x; kept on request
    bare: Tensor | None = None  # [B, K, C, H, W] what the network said at x without a prompt; kept on request


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is kept of every stochastic step besides the transition itself."""

    x0: bool = False  # the clean latents foreseen before it
    bare: bool = False  # guidance's unconditional output, for a pass under the same weights that detaches it


class Step(NamedTuple):
    """One reverse step of a batch."""

    t: Tensor  # [B]
    t_next: Tensor  # [B]
    prediction: Prediction  # at x_t
    gaussian: Gaussian  # of x_next
    x_next: Tensor  # [B, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """The reverse steps of a plan under one denoiser."""

    denoiser: Denoiser
    plan: Plan
    grid: Tensor  # [steps + 1] times
    stochastic: tuple[int, ...]

    @classmethod
    def of(cls, denoiser: Denoiser, plan: Plan, device: torch.device) -> Path:
        schedule = denoiser.schedule
        grid = schedule.grid(plan.steps).to(device)
        return cls(denoiser=denoiser, plan=plan, grid=grid, stochastic=plan.stochastic(schedule))

    def step(
        self, i: int, x: Tensor, cond: Conditioning, noise: Noise | Generators, *, bare: Tensor | None = None
    ) -> Step:
        """Step number i from x [B, ...]; `bare` is what the network says at x without a prompt, where that is known."""
        plan, guidance = self.plan, self.plan.scale(x.device)
        t, t_next = self.grid[i].expand(len(x)), self.grid[i + 1].expand(len(x))
        keep = plan.keep_unconditional_grad
        prediction = self.denoiser.predict(x, t, cond, guidance=guidance, keep_unconditional_grad=keep, bare=bare)
        gaussian = plan.at(i).step(self.denoiser.schedule, prediction, x, t, t_next)
        x_next = gaussian.sample(noise.at(i + 1, x.device)) if i in self.stochastic else gaussian.mean
        return Step(t, t_next, prediction, gaussian, x_next)


def guided(
    denoiser: Denoiser, plan: Plan, cond: Conditioning, x: Tensor, t: Tensor, *, bare: Tensor | None = None
) -> Prediction:
    """The prediction at x [B, ...], t [B] under the plan's guidance.

    The unconditional branch is `bare`, or a forward of its own, without a graph unless the plan keeps its gradient.
    """
    keep = plan.keep_unconditional_grad
    if bare is None and plan.branches == 2:
        bare = denoiser.unconditional(x, t, keep_grad=keep)
    return denoiser.predict(x, t, cond, guidance=plan.scale(x.device), keep_unconditional_grad=keep, bare=bare)


def reverse_step(denoiser: Denoiser, plan: Plan, cond: Conditioning, step: Transitions) -> Gaussian:
    """p(x_next | x) of recorded steps [N] under the weights in use: what a policy gradient re-scores.

    The unconditional branch is `step.bare`, or as in `guided`, whether or not gradients are on now: so a pass under
    no_grad and one with gradients are bitwise equal at equal batch shape.
    """
    prediction = guided(denoiser, plan, cond, step.x, step.t, bare=step.bare)
    return plan.dynamics.step(denoiser.schedule, prediction, step.x, step.t, step.t_next)


def denoise(
    denoiser: Denoiser,
    cond: Conditioning,
    noise: Noise | Generators,
    plan: Plan,
    *,
    record: Record | None = None,
) -> tuple[Tensor, Transitions | None]:
    """Run the reverse process: clean latents [B, ...] and, with `record`, the stochastic steps.

    A pure function of (weights, cond, noise, plan); runs on the device of `cond`; nothing has a graph. Rows that follow
    each other with the same initial noise and conditioning are one until the first stochastic step, and computed once.
    """
    path = Path.of(denoiser, plan, cond.device)
    if record and not path.stochastic:
        raise UserError("this plan has no stochastic step to record; give its dynamics noise (eta > 0 or level > 0)")
    guidance = plan.scale(cond.device)
    assert noise.start is None or isinstance(guidance, float), "images of a shared start share their guidance, too"
    first, row = _alike(noise, cond)
    whole, cond, x = cond, cond.take(first), noise.take(first).at(0, cond.device)
    seen: list[Transitions] = []
    for i in range(plan.steps):
        if i in path.stochastic:
            cond, x = whole, _spread(x, row)
        kept = record if i in path.stochastic else None
        with torch.no_grad():
            t = path.grid[i].expand(len(x))
            bare = denoiser.unconditional(x, t) if kept and kept.bare and plan.branches == 2 else None
            step = path.step(i, x, cond, noise, bare=bare)
            if kept:
                seen.append(_recorded(step, x, x0=kept.x0, bare=bare))
        x = step.x_next
    return _spread(x, row), _stack(seen) if record else None


def _recorded(step: Step, x: Tensor, *, x0: bool, bare: Tensor | None) -> Transitions:
    """A step from x as it is kept, with what was foreseen before it if `x0`."""
    return Transitions(
        x=x,
        x_next=step.x_next,
        t=step.t,
        t_next=step.t_next,
        log_prob=step.gaussian.log_prob(step.x_next),
        x0=step.prediction.x0 if x0 else None,
        bare=bare,
    )


def _alike(noise: Noise | Generators, cond: Conditioning) -> tuple[Tensor, Tensor]:
    """Of rows that follow each other with one start and one conditioning the first [G], and each row's group [B]."""
    new = torch.ones(len(cond), dtype=torch.bool)
    if noise.start is not None:
        new[1:] = torch.tensor([a != b for a, b in pairwise(noise.start)], dtype=torch.bool)
        for value in cond.tensors.values():
            new[1:] |= (value[1:] != value[:-1]).flatten(1).any(1).cpu()
    return new.nonzero().flatten(), new.cumsum(0) - 1


def _spread(value: Tensor, row: Tensor) -> Tensor:
    """[B, ...] of a value of each group [G, ...]; one of each row [B, ...] as it is."""
    return value if len(value) == len(row) else value[row]


def _stack(seen: list[Transitions]) -> Transitions:
    """[B, K, ...] of K recorded steps [B, ...]."""
    foreseen = [s.x0 for s in seen if s.x0 is not None]
    bare = [s.bare for s in seen if s.bare is not None]
    return Transitions(
        x=torch.stack([s.x for s in seen], 1),
        x_next=torch.stack([s.x_next for s in seen], 1),
        t=torch.stack([s.t for s in seen], 1),
        t_next=torch.stack([s.t_next for s in seen], 1),
        log_prob=torch.stack([s.log_prob for s in seen], 1),
        x0=torch.stack(foreseen, 1) if foreseen else None,
        bare=torch.stack(bare, 1) if bare else None,
    )
