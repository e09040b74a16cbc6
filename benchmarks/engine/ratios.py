"""The ratio before the first update, in the precision and the batch shapes of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

import torch

from safediffusion.collect.base import portions
from safediffusion.config.build import build_experiment
from safediffusion.config.load import load_recipe, override, parse_recipe, to_plain
from safediffusion.models.policy import Policy
from safediffusion.objectives.grpo import Grpo, StepItems

Anchor = Literal["rollout", "recompute", "first_pass"]
ANCHORS: tuple[Anchor, ...] = ("rollout", "recompute", "first_pass")
PRECISIONS = ("bf16", "fp32")
BATCHES = 4  # micro-batches an anchor
STRICT = 1e-12  # below float32's resolution: only a ratio of exactly 1 lies inside
FEW = (
    *("plan.steps=4", "plan.window=[0,3]", "objective.steps_per_image=null", "objective.updates=1", "groups=1"),
    "steering.alpha=0.5",  # the one prompt may be one that is not steered, and no ratio depends on a reward
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored:
    """|ratio - 1| over the items of some micro-batches."""

    recipe: str
    precision: str
    anchor: str
    items: int
    largest: float  # of an item
    off: float  # share of items whose ratio is not exactly 1
    clipped: float  # share of items outside the recipe's clip


def measure_ratios(name: str, overrides: Sequence[str], *, device: str) -> list[Anchored]:
    """Every anchor in bf16 and in fp32, on one rollout batch of pictures, before any update.

    Which kernels run depends on the shape of a batch, not on how many steps there are: the pictures are drawn in four.
    Empty for an objective without a ratio.
    """
    return [row for precision in PRECISIONS for row in _in(precision, name, overrides, device)]


def _in(precision: str, name: str, overrides: Sequence[str], device: str) -> list[Anchored]:
    given = load_recipe(name, overrides)
    own = [*FEW, f"group_size={max(2, given.rollout_batch)}", f"precision={precision}"]
    recipe = parse_recipe(override(to_plain(given), own))  # which need not read all of them: nobody said them
    trainer = build_experiment(recipe, device=device).trainer
    policy, objective = trainer.policy, trainer.objective
    if not isinstance(objective, Grpo):
        return []
    scored, _ = trainer.collector.collect(policy, 0)
    items = objective.prepare(policy, scored, torch.Generator().manual_seed(0))
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(1))
    full = [part for part in portions(order, trainer.micro) if len(part) == min(trainer.micro, len(items))]
    batches = [items.take(part) for part in full[:BATCHES]]
    return [_anchored(policy, replace(objective, anchor=a), batches, (name, precision)) for a in ANCHORS]


def _anchored(policy: Policy, objective: Grpo, batches: Sequence[StepItems], of: tuple[str, str]) -> Anchored:
    seen = [_observe(policy, objective, batch) for batch in batches]
    return Anchored(
        recipe=of[0],
        precision=of[1],
        anchor=objective.anchor,
        items=sum(map(len, batches)),
        largest=max(largest for largest, _, _ in seen),
        off=fmean(off for _, off, _ in seen),
        clipped=fmean(clipped for _, _, clipped in seen),
    )


def _observe(policy: Policy, objective: Grpo, batch: StepItems) -> tuple[float, float, float]:
    """(largest, off, clipped) of one micro-batch. The two shares are what the objective's own loss says."""
    ready = objective.freeze(policy, batch) if objective.freezes else batch
    terms = objective.loss(policy, ready).terms
    strict = replace(objective, clip=STRICT).loss(policy, ready).terms
    if objective.single_update:  # nothing recorded to compare with: this very pass is the anchor
        largest = abs(float(terms["ratio"]) - 1)
    else:
        now = objective.freeze(policy, batch).step.log_prob
        largest = float((now - ready.step.log_prob).exp().sub(1).abs().max())
    return largest, float(strict["clipped"]), float(terms["clipped"])
