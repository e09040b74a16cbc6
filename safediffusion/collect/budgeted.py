"""Given pairs under budgets of harm: how much a category's pairs weigh follows what the policy still draws of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from safediffusion.collect.base import Collector, Measured, State, Volume, portions
from safediffusion.collect.measure import check_finite
from safediffusion.collect.preferences import Pairs
from safediffusion.core.fleet import Fleet
from safediffusion.core.noise import Noise
from safediffusion.core.prompt import Prompt
from safediffusion.credit.base import Among
from safediffusion.credit.constraint import Constrained
from safediffusion.data.mixture import PromptSource
from safediffusion.diffusion.denoise import Plan, denoise
from safediffusion.models.policy import Policy, Weights
from safediffusion.scorers.base import ImageBatch, Scorer, score_all

COLLECTOR = "budgets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgeted:
    """A pair of category j weighs 1 + u_j, at most 1 + `bound`; one without a budget 1.

    Pairs that were given say nothing of the policy, so every step draws `count` pictures of `prompts` with the live
    weights and takes the costs of the constraint from those. Nothing is learned from them.
    """

    pairs: Collector[Pairs]
    constraint: Constrained
    scorers: Sequence[Scorer]
    prompts: PromptSource
    count: int
    plan: Plan
    batch: int = 32
    seed: int = 0
    fleet: Fleet = Fleet()

    @property
    def behavior(self) -> Weights:
        return self.pairs.behavior

    def collect(self, policy: Policy, step: int) -> tuple[Pairs, Measured]:
        found, measured = self.pairs.collect(policy, step)
        self._measure(policy, step)
        weight = found.weight * (1 + self.constraint.weights(found.prompts)).to(found.weight)
        forwards = measured.get("unet_forwards", 0.0) + self._forwards
        told = {**measured, "unet_forwards": forwards, **self.constraint.metrics()}
        return replace(found, weight=weight), told

    @torch.no_grad()
    def _measure(self, policy: Policy, step: int) -> None:
        """The multipliers move by the costs of this step's pictures, each process having drawn its share of them."""
        prompts = self.prompts.draw(step, self.count)
        rows = portions(torch.tensor(self.fleet.part_of(self.count)), self.batch)
        parts = [self._scores(policy, step, prompts, some.tolist()) for some in rows]
        scores = {
            name: self.fleet.gather_tensor(torch.cat([part[name] for part in parts]))[: self.count] for name in parts[0]
        }
        check_finite(scores, prompts, step)
        self.constraint.observe(scores, Among(group=torch.arange(self.count), prompts=prompts))

    def _scores(self, policy: Policy, step: int, prompts: Sequence[Prompt], rows: Sequence[int]) -> dict[str, Tensor]:
        """Of the pictures of these prompts, by number; every step has noise of its own."""
        mine = tuple(prompts[row] for row in rows)
        keys = tuple((self.seed, f"budget/{prompts[row].id}", step * self.count + row) for row in rows)
        latents, _ = denoise(policy, policy.encode(mine), Noise(keys, policy.latent_shape), self.plan)
        scores = score_all(self.scorers, ImageBatch(policy.decode(latents), mine))
        return {name: value.double().cpu() for name, value in scores.items()}

    @property
    def _forwards(self) -> int:
        """Over all processes."""
        return self.plan.shared_forwards(self.count, processes=self.fleet.world)

    def volume(self, policy: Policy, step: int) -> Volume:
        volume = self.pairs.volume(policy, step)
        return volume._replace(forwards=volume.forwards + self._forwards)

    def state(self) -> State:
        return {**self.pairs.state(), COLLECTOR: self.constraint.state()}

    def load_state(self, state: State) -> None:
        self.constraint.load_state(state[COLLECTOR])
        self.pairs.load_state({name: own for name, own in state.items() if name != COLLECTOR})
