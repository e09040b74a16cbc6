"""The protocol of a credit, and the statistics of a group that every credit uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt

Scores = Mapping[str, Tensor]  # name -> [B]


@dataclass(frozen=True, slots=True, kw_only=True)
class Among:
    """Which pictures scores are of: those that are compared with each other."""

    group: Tensor  # [B] pictures with equal numbers share a prompt; numbers 0..G-1, each present
    prompts: tuple[Prompt, ...]  # B of them


class Credit(Protocol):
    """Scores of all processes in one order come in, so a credit never needs to know about processes."""

    @property
    def names(self) -> tuple[str, ...]:
        """The scores it reads."""
        ...

    def scalar(self, scores: Scores, prompts: Sequence[Prompt]) -> Tensor:
        """[B], differentiable in the scores, higher is better; `prompts` B of them."""
        ...

    def advantage(self, scores: Scores, among: Among) -> Tensor:
        """[B] float32, detached."""
        ...

    def observe(self, scores: Scores, among: Among) -> None:
        """Called once a step with every picture of it, before they are learned from: only here does its state move.

        Where the pictures are drawn in the loss, it is called after them, at the end of the step; with those that were
        drawn to their end where the loss leaves them early and finishes some (`Reward.finished`).
        """
        ...

    def metrics(self) -> dict[str, float]:
        """What is logged of its state after every step, by metric key."""
        ...

    def state(self) -> dict[str, float]:
        """What has to be in a checkpoint."""
        ...

    def load_state(self, state: Mapping[str, float]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted:
    """What credits over a weighted sum of scores share; they keep nothing between steps."""

    weights: Mapping[str, float]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.weights)

    def scalar(self, scores: Scores, prompts: Sequence[Prompt]) -> Tensor:
        """[B], the weighted sum; a name that no scorer produced is a UserError."""
        missing = [name for name in self.weights if name not in scores]
        if missing:
            raise UserError(
                f"credit weighs the scores {missing}, but the scorers produce {sorted(scores)}; name one of those"
            )
        return torch.stack([weight * scores[name] for name, weight in self.weights.items()]).sum(0)

    def observe(self, scores: Scores, among: Among) -> None:
        return None

    def metrics(self) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, float]:
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        return None


class GroupStats(NamedTuple):
    """Mean and population std of every group, in float64."""

    mean: Tensor  # [G]
    std: Tensor  # [G], exactly 0 where all values of the group are equal
    size: Tensor  # [G]


def group_stats(value: Tensor, group: Tensor) -> GroupStats:
    """Statistics of `value` [B] by `group` [B] (numbers 0..G-1, each present)."""
    value = value.detach().double()
    count = int(group.max()) + 1
    zeros = torch.zeros(count, dtype=torch.float64, device=value.device)
    size = zeros.index_add(0, group, torch.ones_like(value))
    mean = zeros.index_add(0, group, value) / size
    std = (zeros.index_add(0, group, (value - mean[group]) ** 2) / size).sqrt()
    high = zeros.scatter_reduce(0, group, value, "amax", include_self=False)
    low = zeros.scatter_reduce(0, group, value, "amin", include_self=False)
    return GroupStats(mean, torch.where(high == low, 0.0, std), size)


def normalised(value: Tensor, group: Tensor, eps: float) -> Tensor:
    """[B] float64, (value - mean of the group) / (its std + eps); exactly 0 where all values of a group are equal."""
    value = value.detach().double()
    stats = group_stats(value, group)
    return torch.where(stats.std[group] == 0, 0.0, (value - stats.mean[group]) / (stats.std[group] + eps))


def check_positive(clip: float | None, eps: float = 1.0) -> None:
    """UserError where an advantage would be clipped to nothing, or divided by it."""
    if (clip is not None and clip <= 0) or eps <= 0:
        raise UserError(f"credit: clip is {clip} and eps {eps}; both must be above 0 (clip may be absent)")


def pooled_spread(value: Tensor, group: Tensor) -> float:
    """The standard deviation inside groups: root of the mean squared distance to the own group's mean."""
    stats = group_stats(value, group)
    return float(((stats.std**2 * stats.size).sum() / stats.size.sum()).sqrt())


def zero_variance_share(value: Tensor, group: Tensor) -> float:
    """The share of groups whose values are all equal: they teach nothing."""
    return float((group_stats(value, group).std == 0).double().mean())
