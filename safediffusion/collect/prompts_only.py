"""Prompts with the keys of their noise and no pictures: for objectives that draw and differentiate in one go."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from safediffusion.collect.base import Measured, State, Volume
from safediffusion.collect.reward import Reward
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.noise import Noise
from safediffusion.core.prompt import Prompt
from safediffusion.core.types import SHARED, Conditioning, Sliceable
from safediffusion.data.mixture import PromptSource
from safediffusion.diffusion.denoise import Plan
from safediffusion.models.policy import Policy, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompted(Sliceable):
    """Pictures that are to be drawn: one entry each."""

    prompts: tuple[Prompt, ...]
    cond: Conditioning  # [B, ...]
    noise: Noise
    index: Tensor  # [B] the picture's number among those of all processes
    total: int = field(metadata=SHARED)  # pictures of all processes
    plan: Plan = field(metadata=SHARED)
    reward: object = field(metadata=SHARED)  # what gradients follow: a `Reward`, or what stands for one on latents


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptsOnly:
    """`groups` prompts a step over all processes, `group_size` pictures each, every one with noise of its own."""

    prompts: PromptSource
    reward: Reward
    plan: Plan
    groups: int = 8
    group_size: int = 1
    seed: int = 0
    fleet: Fleet = Fleet()
    _chosen: list[Prompt] = field(default_factory=list, init=False, repr=False)  # of the last step

    def __post_init__(self) -> None:
        for name, value in (("groups", self.groups), ("group_size", self.group_size)):
            if value < 1:
                raise UserError(f"{name} is {value}; it must be 1 or more")
        if self.groups % self.fleet.world:
            raise UserError(
                f"{self.groups} groups a step cannot be divided among {self.fleet.world} processes; "
                f"set groups to a multiple of {self.fleet.world}"
            )

    @property
    def behavior(self) -> Weights:
        """Those in training, which the objective draws with."""
        return Weights.LIVE

    @torch.no_grad()
    def collect(self, policy: Policy, step: int) -> tuple[Prompted, Measured]:
        """This process's share of the step's prompts, with the keys that `OnPolicy` gives them."""
        chosen, size = self.prompts.draw(step, self.groups), self.group_size
        self._chosen[:] = chosen
        share = len(chosen) // self.fleet.world
        mine = range(self.fleet.rank * share, (self.fleet.rank + 1) * share)
        prompts = tuple(chosen[number] for number in mine for _ in range(size))
        keys = tuple(
            (self.seed, f"train/{step}/{number}/{chosen[number].id}", repeat)
            for number in mine
            for repeat in range(size)
        )
        prompted = Prompted(
            prompts=prompts,
            cond=policy.encode(prompts),
            noise=Noise(keys, policy.latent_shape),
            index=torch.arange(mine.start * size, mine.stop * size),
            total=self.groups * size,
            plan=self.plan,
            reward=self.reward,
        )
        return prompted, {"images": float(prompted.total)}

    def settle(self) -> Measured:
        """The credit observes the pictures that the objective drew, or finished, of the last step's prompts."""
        return self.reward.settle(self._chosen, self.fleet)

    def volume(self, policy: Policy, step: int) -> Volume:
        """Pictures, but no network evaluation: the objective counts those it makes."""
        return Volume(self.groups * self.group_size, self.groups, 0, 0, self.plan)

    def state(self) -> State:
        own = self.reward.credit.state()
        return {"credit": own} if own else {}

    def load_state(self, state: State) -> None:
        self.reward.credit.load_state(state.get("credit", {}))
