"""What every gradient through the sampler shares: which steps of a picture have it, the hold, and what it takes.

Notation:
    x0      the clean latents that the sampler reaches from an image's own noise; x_T ... x_1 before them
    K       reverse steps with gradients; those before them are constants
    KL      = mean over the K steps of |noise_theta(x_t) - noise_ref(x_t)|^2 / 2, mean over dimensions: that of two unit
              Gaussians around the noise both predict, at the states this sampler visits
    hold    the weight of KL: kl, and kl_safe (if given) for prompts labelled safe
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from safediffusion.collect.base import Volume
from safediffusion.collect.prompts_only import Prompted
from safediffusion.core.errors import UserError
from safediffusion.core.noise import Noise
from safediffusion.core.prompt import Prompt
from safediffusion.core.types import SHARED, Conditioning, Loss, Sliceable
from safediffusion.diffusion.denoise import Plan, guided
from safediffusion.diffusion.schedule import Prediction
from safediffusion.diffusion.unroll import Compare, GradWindow, Unrolled, unroll
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.base import Cost, Stateless, check_holds, holds

Range = tuple[int, int]  # both ends included


class Passes(NamedTuple):
    """Steps of all images together."""

    images: int
    constant: int  # without gradients
    learned: int  # with them
    held: int  # images that are held to the reference
    compared: int  # steps that the reference computes, too
    further: int = 0  # steps without gradients beyond those
    fresh: int = 0  # steps with gradients beyond those, from a constant


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureItems(Sliceable):
    """One item is one picture that is yet to be drawn."""

    prompts: tuple[Prompt, ...]
    cond: Conditioning  # [N, ...]
    noise: Noise
    window: GradWindow  # [N]
    hold: Tensor  # [N] weight of the distance to the reference
    plan: Plan = field(metadata=SHARED)
    reward: object = field(metadata=SHARED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughSteps(Stateless, ABC):
    """K is drawn from `last` for each picture, and from `early` how many steps it leaves out at the end.

    Pictures are drawn in the loss, by the weights of that moment: any number of updates, none of them off-policy.
    `checkpoint` computes the activations of each step again in the backward pass: memory of one step for any K.
    """

    last: Range = (1, 1)
    early: Range | None = None
    kl: float = 0.0
    kl_safe: float | None = None
    checkpoint: bool = False

    def __post_init__(self) -> None:
        for name, given, least in (("last", self.last, 1), ("early", self.early, 0)):
            if given is not None and not least <= given[0] <= given[1]:
                raise UserError(f"{name} is {list(given)}; it is [low, high] with {least} <= low <= high")
        check_holds(self.kl, self.kl_safe)

    @property
    def needs(self) -> frozenset[Weights]:
        return frozenset({Weights.REFERENCE}) if self._holds else frozenset()

    @property
    def _holds(self) -> bool:
        return self.kl > 0 or bool(self.kl_safe)

    @property
    def terms(self) -> tuple[str, ...]:
        return ("reward", "kl")

    def prepare(self, policy: Policy, experience: Prompted, generator: torch.Generator) -> PictureItems:
        """Windows are drawn by the image's number among those of all processes."""
        if policy.sharded:
            raise UserError(
                "weights that are divided among processes cannot be differentiated through the sampler; set "
                "weights.shard=false, or use a policy-gradient objective"
            )
        steps = experience.plan.steps
        self.fits(steps)
        stop = steps - self._draw(self.early or (0, 0), experience, generator)
        first = stop - self._draw(self.last, experience, generator)
        hold = holds(experience.prompts, self.kl, self.kl_safe)
        window = GradWindow(
            first=first, stop=stop, foresee=self.early is not None, checkpoint=self.checkpoint, compared=hold > 0
        )
        return PictureItems(
            prompts=experience.prompts,
            cond=experience.cond,
            noise=experience.noise,
            window=window,
            hold=hold,
            plan=experience.plan,
            reward=experience.reward,
        )

    def fits(self, steps: int) -> None:
        """UserError when a plan of so many steps is shorter than the longest way of a gradient."""
        early = 0 if self.early is None else self.early[1]
        if self.last[1] + early > steps:
            raise UserError(
                f"gradients through {self.last[1]} steps, up to {early} before the end, do not fit into a plan of "
                f"{steps}; raise plan.steps, or lower last or early"
            )

    @staticmethod
    def _draw(bounds: Range, experience: Prompted, generator: torch.Generator) -> Tensor:
        """[B] int64 between the bounds."""
        drawn = torch.randint(bounds[0], bounds[1] + 1, (experience.total,), generator=generator)
        return drawn[experience.index]

    def freeze(self, policy: Policy, items: PictureItems) -> PictureItems:
        return items

    def idle(self, items: PictureItems) -> Tensor:
        return torch.zeros(len(items), dtype=torch.bool)

    def drawn(self, policy: Policy, items: PictureItems) -> Unrolled:
        """The clean latents of these pictures, and their KL where it has a weight, with gradients."""
        compare = _kl(policy, items.plan) if self._holds else None
        return unroll(policy, items.cond, items.noise, items.plan, items.window, compare=compare)

    @staticmethod
    def held(items: PictureItems, kl: Tensor) -> Tensor:
        """The loss's part of the distances `kl` [N] to the reference."""
        return (items.hold.to(kl.device) * kl).mean()

    @abstractmethod
    def loss(self, policy: Policy, items: PictureItems) -> Loss: ...

    def cost(self, items: PictureItems) -> Cost:
        return self.cost_of(items.plan, self.passes(items))

    def passes(self, items: PictureItems) -> Passes:
        constant, learned = items.window.first, items.window.stop - items.window.first
        held = items.hold > 0
        return Passes(len(items), int(constant.sum()), int(learned.sum()), int(held.sum()), int(learned[held].sum()))

    def forecast(self, volume: Volume) -> Cost:
        return self.cost_of(volume.plan, self.most(volume))

    def most(self, volume: Volume) -> Passes:
        """Where windows are drawn, that of the longest, and as if all images were held: a run takes no more."""
        steps = volume.plan.steps - (0 if self.early is None else self.early[0])
        images, learned = volume.images, volume.images * self.last[1]
        held = self._holds
        return Passes(images, images * steps - learned, learned, images * held, learned * held)

    def cost_of(self, plan: Plan, spent: Passes) -> Cost:
        passes = 2 if self.checkpoint else 1
        forwards = spent.constant + spent.further + passes * (spent.learned + spent.compared + spent.fresh)
        branches = plan.branches if plan.keep_unconditional_grad else 1
        behind = spent.compared - spent.held  # the reference's first step of an image starts from a constant
        return Cost(forwards * plan.branches, (spent.learned + behind + spent.fresh) * branches)


def _kl(policy: Policy, plan: Plan) -> Compare:
    """KL [B] of the module's notation, at one step; gradients go through x in both networks."""

    def compare(x: Tensor, t: Tensor, cond: Conditioning, prediction: Prediction) -> Tensor:
        with policy.using(Weights.REFERENCE):
            reference = guided(policy, plan, cond, x, t)
        return ((prediction.noise - reference.noise) ** 2 / 2).flatten(1).mean(1)

    return compare
