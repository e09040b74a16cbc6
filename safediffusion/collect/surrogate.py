"""Prompts, and a surrogate of their reward on latents that is refreshed at every step (LaSRO, arXiv 2411.15247).

Each step draws pictures with the trained weights, scores them by the true scorers, says how well the surrogate of the
step before orders them, and only then lets it learn from them and from those it remembers. What the objective follows
are other pictures of the same prompts, from noise of their own, so that the surrogate was not fitted to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from safediffusion.collect.base import Measured, Scored, State, Volume
from safediffusion.collect.clock import Clock
from safediffusion.collect.latent_reward import (
    Groups,
    LatentReward,
    Learner,
    Settings,
    correlation,
    embedding,
    rank_accuracy,
)
from safediffusion.collect.on_policy import OnPolicy
from safediffusion.collect.prompts_only import Prompted
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.noise import Noise
from safediffusion.core.types import Conditioning
from safediffusion.credit.base import pooled_spread
from safediffusion.models.policy import Policy, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """R(z, c) / scale. The paper divides by a moving average and clips; a scale of each step needs no state."""

    network: LatentReward
    scale: float  # R's standard deviation inside the prompts of this step
    accuracy: float  # with which the network before this step ordered this step's pictures

    def of(self, latents: Tensor, cond: Conditioning) -> Tensor:
        """[B] of clean latents [B, C, H, W], without decoding anything."""
        found: Tensor = self.network(latents, embedding(cond))
        return found / self.scale


@dataclass(slots=True, kw_only=True)
class SurrogatePrompts:
    """What `rollouts` draws and scores teaches the surrogate; its scorers need no gradient."""

    rollouts: OnPolicy
    settings: Settings = Settings()
    _learner: Learner | None = field(default=None, init=False, repr=False)
    _waiting: Mapping[str, Tensor] | None = field(default=None, init=False, repr=False)  # loaded before the first step

    def __post_init__(self) -> None:
        if self.rollouts.group_size < 2:
            raise UserError("a surrogate is told apart pictures of one prompt; set group_size to 2 or more")

    @property
    def behavior(self) -> Weights:
        return self.rollouts.behavior

    @property
    def fleet(self) -> Fleet:
        return self.rollouts.fleet

    def collect(self, policy: Policy, step: int) -> tuple[Prompted, Measured]:
        scored, measured = self.rollouts.collect(policy, step)
        clock = Clock(policy.device)
        with clock.part("surrogate"):
            fresh = self._everywhere(scored)
            learner = self._learner or self._made(fresh, policy.device)
            own = self._taught(learner, fresh, step)
        surrogate = Surrogate(
            network=learner.network,
            scale=own["surrogate/spread"] or 1.0,
            accuracy=1 - own["surrogate/error"],
        )
        return self._prompted(policy, scored, step, surrogate), {**measured, **own, **clock.metrics()}

    def _taught(self, learner: Learner, fresh: Groups, step: int) -> dict[str, float]:
        """Measure, then learn; weights and metrics are the main process's, lest rounding lead one to rest alone."""
        before = learner.values(fresh)
        found = {
            "surrogate/error": 1 - rank_accuracy(before, fresh.reward),
            "surrogate/correlation": correlation(before, fresh.reward),
            "surrogate/loss": learner.learn(fresh, step),
            "surrogate/replay": float(learner.replay.reward.numel()),
        }
        for weight in learner.network.parameters():
            weight.copy_(self.fleet.broadcast(weight.detach()))
        group = torch.arange(len(fresh)).repeat_interleave(fresh.reward.shape[1])
        found["surrogate/spread"] = pooled_spread(learner.values(fresh).flatten(), group)
        main = self.fleet.broadcast(torch.tensor(list(found.values()), dtype=torch.float64))
        return dict(zip(found, main.tolist(), strict=True))

    def _everywhere(self, scored: Scored) -> Groups:
        """The pictures of all processes, in one order."""
        size, rollout = self.rollouts.group_size, scored.rollout
        parts = rollout.latents.float(), embedding(rollout.cond), scored.reward.float()
        rows = (self.fleet.gather_tensor(part.detach().cpu()) for part in parts)
        latents, text, reward = (row.view(-1, size, *row.shape[1:]) for row in rows)
        return Groups(latents=latents, text=text, reward=reward)

    def _made(self, first: Groups, device: torch.device) -> Learner:
        made = Learner(first, self.settings, seed=self.rollouts.seed, device=device)
        if self._waiting is not None:
            made.load_tensors(self._waiting)
        self._learner, self._waiting = made, None
        return made

    def _prompted(self, policy: Policy, scored: Scored, step: int, surrogate: Surrogate) -> Prompted:
        """This process's prompts again, with noise that no picture of the rollout had."""
        size, prompts = self.rollouts.group_size, scored.rollout.prompts
        keys = tuple(
            (self.rollouts.seed, f"follow/{step}/{index // size}/{prompt.id}", index % size)
            for index, prompt in zip(scored.index.tolist(), prompts, strict=True)
        )
        return Prompted(
            prompts=prompts,
            cond=scored.rollout.cond,
            noise=Noise(keys, policy.latent_shape),
            index=scored.index,
            total=scored.total,
            plan=scored.rollout.plan,
            reward=surrogate,
        )

    def volume(self, policy: Policy, step: int) -> Volume:
        """Of the pictures that are scored; the objective draws as many again, and counts what they take."""
        return self.rollouts.volume(policy, step)

    def state(self) -> State:
        return self.rollouts.state()

    def load_state(self, state: State) -> None:
        self.rollouts.load_state(state)

    @property
    def learns(self) -> bool:
        return True

    def tensors(self) -> dict[str, Tensor]:
        if self._learner is None:
            return dict(self._waiting or {})
        return self._learner.tensors()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self._learner, self._waiting = None, tensors
