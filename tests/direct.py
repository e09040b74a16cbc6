"""Tiny experiments of direct back-propagation: prompts only, a reward anyone can see."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from safediffusion.collect.prompts_only import Prompted, PromptsOnly
from safediffusion.collect.reward import Reward
from safediffusion.credit.weighted import WeightedSum
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.dynamics import Ddim
from safediffusion.models.policy import Policy
from safediffusion.objectives.through_steps import PictureItems, ThroughSteps
from safediffusion.train.loop import Trainer
from safediffusion.train.optim import LearningRate
from tests import training

PLAN = Plan(steps=4, dynamics=Ddim(0.0))
REWARD = Reward(scorers=(training.Brightness(),), credit=WeightedSum(weights={"brightness": 1.0}))


def collector(plan: Plan = PLAN, *, reward: Reward = REWARD, groups: int = 2, size: int = 3) -> PromptsOnly:
    return PromptsOnly(prompts=training.mixture(), reward=reward, plan=plan, groups=groups, group_size=size)


def items(policy: Policy, objective: ThroughSteps, plan: Plan = PLAN, *, reward: Reward = REWARD) -> PictureItems:
    prompted, _ = collector(plan, reward=reward).collect(policy, 0)
    policy.allocate(objective.needs)
    return objective.prepare(policy, prompted, torch.Generator().manual_seed(0))


def trainer(
    policy: Policy, objective: ThroughSteps, plan: Plan = PLAN, **options: Any
) -> Trainer[Prompted, PictureItems]:
    return Trainer(
        policy=policy,
        collector=collector(plan),
        objective=objective,
        optimizer=torch.optim.SGD(policy.parameters(), lr=1.0),
        rate=LearningRate(peak=options.pop("lr", 1.0)),
        max_norm=None,
        **options,
    )


def slope(policy: Policy, value: Tensor) -> Tensor:
    """d value / d parameters, flattened."""
    return torch.cat([piece.flatten() for piece in torch.autograd.grad(value, policy.parameters())])
