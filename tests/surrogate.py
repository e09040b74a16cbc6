"""Tiny experiments with a surrogate: a reward without a gradient, learned on latents."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from safediffusion.collect.latent_reward import Groups, Settings
from safediffusion.collect.prompts_only import Prompted
from safediffusion.collect.surrogate import SurrogatePrompts
from safediffusion.core.fleet import Fleet
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.dynamics import Ddim
from safediffusion.models.policy import Policy
from safediffusion.objectives.lasro import Lasro
from safediffusion.objectives.through_steps import PictureItems
from safediffusion.scorers.base import ImageBatch
from safediffusion.train.loop import Trainer
from safediffusion.train.optim import LearningRate, adamw
from tests import training

PLAN = Plan(steps=4, dynamics=Ddim(0.0))
SMALL = Settings(width=4, epochs=1, batch=2, replay=2)


@dataclass(frozen=True)
class Steps(training.Brightness):
    """Brightness in steps: no gradient anywhere."""

    differentiable: bool = False

    def __call__(self, batch: ImageBatch) -> Tensor:
        return (batch.images.mean((1, 2, 3)) * 1000).floor() / 1000


def collector(settings: Settings = SMALL, *, fleet: Fleet = training.SOLO, groups: int = 2) -> SurrogatePrompts:
    rollouts = training.collector((Steps(),), plan=PLAN, fleet=fleet, groups=groups, size=3)
    return SurrogatePrompts(rollouts=replace(rollouts, record=False, rollout_batch=3), settings=settings)


def items(policy: Policy, objective: Lasro, step: int = 0) -> PictureItems:
    prompted, _ = collector().collect(policy, step)
    policy.allocate(objective.needs)
    return objective.prepare(policy, prompted, torch.Generator().manual_seed(0))


def trainer(
    policy: Policy, objective: Lasro, collect: SurrogatePrompts, *, lr: float = 1.0, sgd: bool = True, micro: int = 4
) -> Trainer[Prompted, PictureItems]:
    parameters = policy.parameters()
    return Trainer(
        policy=policy,
        collector=collect,
        objective=objective,
        optimizer=torch.optim.SGD(parameters, lr=lr) if sgd else adamw(parameters),
        rate=LearningRate(peak=lr),
        max_norm=None,
        micro=micro,
        fleet=collect.fleet,
    )


def made_up(groups: int, size: int, seed: int) -> Groups:
    """Random latents whose reward is the mean of their first channel."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(groups, size, 4, 8, 8, generator=generator)
    latents[:, :, 0] += torch.randn(groups, size, 1, 1, generator=generator)
    text = torch.randn(groups, 1, 6, generator=generator).expand(groups, size, 6).contiguous()
    return Groups(latents=latents, text=text, reward=latents[:, :, 0].mean((2, 3)))
