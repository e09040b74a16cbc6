"""Reverse steps with gradients: what direct back-propagation of a reward differentiates through.

Truncated: the steps before an image's window are taken without a graph, so their result is a constant. The gradient is
exact for what remains, provided that the plan keeps the gradient of guidance's unconditional branch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from safediffusion.core.errors import UserError
from safediffusion.core.noise import Generators, Noise
from safediffusion.core.types import SHARED, Conditioning, Sliceable

from .denoise import Denoiser, Path, Plan
from .schedule import Prediction

Compare = Callable[[Tensor, Tensor, Conditioning, Prediction], Tensor]  # (x [B, ...], t [B], cond, prediction) -> [B]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradWindow(Sliceable):
    """The reverse steps [first, stop) of each image that carry gradients; an image ends after step stop - 1."""

    first: Tensor  # [B] int64, on the CPU
    stop: Tensor  # [B] int64, on the CPU
    foresee: bool = field(default=False, metadata=SHARED)  # end with the clean latents that the last step predicts
    checkpoint: bool = field(default=False, metadata=SHARED)  # each step again in the backward pass: memory of one
    compared: Tensor | None = None  # [B] bool, on the CPU: images whose steps `compare` sees; None for all

    def __post_init__(self) -> None:
        if not bool(((self.first >= 0) & (self.first < self.stop)).all()):
            raise UserError(
                f"windows of gradients go from steps {self.first.tolist()} to {self.stop.tolist()}; "
                "every image needs 0 <= first < stop"
            )


class Unrolled(NamedTuple):
    latents: Tensor  # [B, ...] clean
    compared: Tensor  # [B], the mean of `compare` over the steps with gradients; 0 where it saw none
    after: Tensor  # [B, ...], without gradients: the state that each window ends in, from which `rest` goes on


@dataclass(frozen=True, slots=True, kw_only=True)
class _Images(Sliceable):
    """Images on their way, all after the same number of steps."""

    row: Tensor  # [b] their place in the batch
    x: Tensor  # [b, ...]
    cond: Conditioning
    noise: Noise | Generators
    window: GradWindow


def unroll(
    denoiser: Denoiser,
    cond: Conditioning,
    noise: Noise | Generators,
    plan: Plan,
    window: GradWindow,
    *,
    compare: Compare | None = None,
) -> Unrolled:
    """What `denoise` gives, with gradients through each image's own window.

    Images share forwards until their windows begin; those with the same window share them inside, too. A window that
    ends before the plan does needs `foresee`. `compare` sees every step with gradients of the images
    that ask for it, and is differentiated as well.
    """
    last = int(window.stop.max())
    if last > plan.steps or (int(window.stop.min()) < plan.steps and not window.foresee):
        raise UserError(
            f"windows of gradients end after steps {window.stop.tolist()} of a plan of {plan.steps}; they end with the "
            "plan, or earlier with the picture foreseen there"
        )
    assert not isinstance(plan.guidance, tuple), "images that are differentiated share their guidance"
    path, at = Path.of(denoiser, plan, cond.device), 0
    waiting = _Images(row=torch.arange(len(cond)), x=noise.at(0, cond.device), cond=cond, noise=noise, window=window)
    done: list[tuple[Tensor, Unrolled]] = []
    for first in sorted(set(window.first.tolist())):
        with torch.no_grad():
            for i in range(at, first):
                waiting = replace(waiting, x=path.step(i, waiting.x, waiting.cond, waiting.noise).x_next)
        begins, stops = waiting.window.first == first, waiting.window.stop
        for stop in sorted(set(stops[begins].tolist())):
            chosen = waiting.take((begins & (stops == stop)).nonzero().flatten())
            done.append((chosen.row, _through(path, chosen, compare)))
        waiting, at = waiting.take((~begins).nonzero().flatten()), first
    order = torch.cat([row for row, _ in done]).argsort().to(cond.device)
    parts = zip(*(each for _, each in done), strict=True)
    return Unrolled(*(torch.cat(part)[order] for part in parts))


@torch.no_grad()
def rest(
    denoiser: Denoiser, cond: Conditioning, noise: Noise | Generators, plan: Plan, x: Tensor, *, stop: Tensor
) -> Tensor:
    """Clean latents [B, ...] of images that are at x [B, ...] after so many steps each: `stop` [B], on the CPU."""
    path, x = Path.of(denoiser, plan, cond.device), x.clone()
    for i in range(int(stop.min()), plan.steps):
        rows = (stop <= i).nonzero().flatten()
        there = rows.to(x.device)
        x[there] = path.step(i, x[there], cond.take(rows), noise.take(rows)).x_next
    return x


def again(function: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, *, forget: bool) -> tuple[Tensor, ...]:
    """`function(x)`; with `forget` its activations are computed again in the backward pass."""
    if not forget:
        return function(x)
    found: tuple[Tensor, ...] = checkpoint(function, x, use_reentrant=False, preserve_rng_state=False)
    return found


def _through(path: Path, images: _Images, compare: Compare | None) -> Unrolled:
    """The steps of images that share one window, with gradients."""
    window, cond, noise = images.window, images.cond, images.noise
    first, stop, x = int(window.first[0]), int(window.stop[0]), images.x
    detached = path.plan.branches == 2 and not path.plan.keep_unconditional_grad

    chosen = torch.ones(len(x), dtype=torch.bool) if window.compared is None else window.compared
    rows = chosen.nonzero().flatten()

    def one(i: int, x: Tensor) -> tuple[Tensor, ...]:
        bare = path.denoiser.unconditional(x, path.grid[i].expand(len(x))) if detached else None
        step = path.step(i, x, cond, noise, bare=bare)
        ends = window.foresee and i == stop - 1
        seen = torch.zeros(len(x), device=x.device)
        if compare is not None and len(rows):
            asked = Prediction(*(each[rows] for each in step.prediction))
            seen = seen.index_put((rows.to(x.device),), compare(x[rows], step.t[rows], cond.take(rows), asked))
        return step.prediction.x0 if ends else step.x_next, seen, step.x_next.detach()

    compared, after = list[Tensor](), x
    for i in range(first, stop):
        x, seen, after = again(lambda x, i=i: one(i, x), x, forget=window.checkpoint)  # type: ignore[misc]
        compared.append(seen)
    return Unrolled(x, torch.stack(compared).mean(0), after)
