"""The size of a micro-batch, and skipping idle items, change nothing but memory and time."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from safediffusion.diffusion.denoise import Plan
from safediffusion.objectives.flow_dppo import FlowDppo
from safediffusion.objectives.grpo import Grpo, PolicyGradient
from safediffusion.objectives.grpo_guard import GrpoGuard
from safediffusion.scorers.base import ImageBatch
from tests import tiny, training


def after_one_step(objective: PolicyGradient, micro: int, *, updates: int = 1, full: bool = False) -> Tensor:
    policy = tiny.policy(full=full, trained=True)
    plan = Plan(steps=4, guidance=2.0)
    training.trainer(
        policy, training.collector(plan=plan), objective, lr=0.3, sgd=True, micro=micro, updates=updates, max_norm=None
    ).step(0)
    return tiny.flat(policy)


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
@pytest.mark.parametrize(
    ("objective", "updates"),
    [
        (Grpo(), 1),
        (Grpo(kl=0.5, steps_per_image=3), 1),
        (Grpo(anchor="recompute", clip=0.2), 3),
        (Grpo(anchor="rollout", clip=0.2, images_per_group=3), 2),
        (GrpoGuard(clip=0.2), 3),
        (FlowDppo(divergence=1e-4), 3),
    ],
)
def test_micro_batches_do_not_change_the_update(objective: PolicyGradient, updates: int, full: bool) -> None:
    start = tiny.flat(tiny.policy(full=full, trained=True))
    whole = after_one_step(objective, 1000, updates=updates, full=full)
    assert float((whole - start).abs().max()) > 1e-4  # it did move
    for micro in (1, 7):
        found = after_one_step(objective, micro, updates=updates, full=full)
        assert float((found - whole).norm()) < 1e-4 * float((whole - start).norm())


@dataclass(frozen=True)
class FirstGroupOnly:
    """Tells the pictures of safe prompts apart, and none of the others."""

    name: str = "half"
    higher_is_better: bool = True
    differentiable: bool = False

    def __call__(self, batch: ImageBatch) -> Tensor:
        safe = torch.tensor([p.tags["label"] == "safe" for p in batch.prompts])
        return batch.images.mean((1, 2, 3)) * safe


def test_skipping_zero_variance_groups_gives_the_same_update_for_less() -> None:
    weights, backwards = [], []
    for skip in (True, False):
        policy = tiny.policy(trained=True)
        collector = training.collector((FirstGroupOnly(),))
        trainer = training.trainer(policy, collector, Grpo(skip_idle=skip), lr=0.3, sgd=True, micro=8)
        metrics = trainer.step(0)
        assert metrics["group/zero_variance"] == 0.5
        weights.append(tiny.flat(policy))
        backwards.append(metrics["unet_backwards"])
    torch.testing.assert_close(weights[0], weights[1], atol=1e-6, rtol=1e-4)
    assert backwards == [16, 32]
