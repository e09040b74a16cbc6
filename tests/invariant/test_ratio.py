"""The ratio is 1 before the first update: for every dynamics, precision, bank and batch shape."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from safediffusion.collect.base import portions
from safediffusion.core.types import Loss
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.dynamics import Cps, DanceSde, Ddim, Dynamics, FlowSde
from safediffusion.diffusion.schedule import RectifiedFlow
from safediffusion.models.policy import Policy
from safediffusion.objectives.grpo import Grpo, StepItems
from tests import tiny, training

DYNAMICS: dict[str, Dynamics] = {
    "ddim": Ddim(1.0),
    "ddim-half": Ddim(0.5),
    "cps": Cps(0.8),
    "flow-sde": FlowSde(0.7),
    "dance-sde": DanceSde(0.3),
}
MICRO = (1, 4, 13)


def items_of(dynamics: str, dtype: torch.dtype, *, full: bool, guidance: float) -> tuple[Policy, StepItems]:
    policy = tiny.policy(full=full, dtype=dtype, trained=True)
    if dynamics.endswith("-sde"):
        policy.backbone.schedule = RectifiedFlow()  # type: ignore[misc]
    plan = Plan(steps=4, guidance=guidance, dynamics=DYNAMICS[dynamics])
    collector = replace(training.collector((training.Brightness(),), plan=plan), rollout_batch=3)
    return policy, training.experience(policy, collector)[1]


def losses(policy: Policy, items: StepItems, objective: Grpo, micro: int) -> list[Loss]:
    """As the trainer does it: every micro-batch is frozen before the first loss, in its final shape."""
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(1))[: MICRO[-1]]
    batches = [items.take(part) for part in portions(order, micro)]
    frozen = [objective.freeze(policy, batch) if objective.freezes else batch for batch in batches]
    return [objective.loss(policy, batch) for batch in frozen]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_recomputed_and_first_pass_anchors_give_exactly_one(
    dynamics: str, dtype: torch.dtype, full: bool, guidance: float
) -> None:
    policy, items = items_of(dynamics, dtype, full=full, guidance=guidance)
    for anchor in ("recompute", "first_pass"):
        for micro in MICRO:
            for loss in losses(policy, items, Grpo(anchor=anchor), micro):
                assert loss.terms["ratio"].item() == 1.0 and loss.terms["clipped"].item() == 0.0


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
@pytest.mark.parametrize("dynamics", DYNAMICS)
def test_the_rollouts_own_anchor_is_one_to_rounding_in_fp32(dynamics: str, full: bool, guidance: float) -> None:
    """Sampled in batches of three, with both branches in one forward, and re-scored otherwise."""
    policy, items = items_of(dynamics, torch.float32, full=full, guidance=guidance)
    for micro in MICRO:
        for loss in losses(policy, items, Grpo(anchor="rollout"), micro):
            assert loss.terms["ratio"].item() == pytest.approx(1.0, abs=1e-4)
            assert loss.terms["clipped"].item() == 0.0  # at the released clip of 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_trainer_logs_exactly_one_on_its_first_update(dtype: torch.dtype) -> None:
    for anchor, updates in (("first_pass", 1), ("recompute", 1)):
        policy = tiny.policy(dtype=dtype, trained=True)
        trainer = training.trainer(policy, objective=Grpo(anchor=anchor), updates=updates, micro=7)  # type: ignore[arg-type]
        metrics = trainer.step(0)
        assert metrics["loss/ratio"] == 1.0 and metrics["loss/clipped"] == 0.0
