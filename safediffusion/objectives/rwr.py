"""Reward-weighted likelihood: the family's own denoising loss, more for better images (arXiv 2305.13301, section 4.1).

Notation:
    e = |n_theta(x_t) - n|^2                                n the family's own target (forward.py)
    L = mean [ omega e + kl |n_theta - n_ref|^2 ]
    omega = exp(A / temperature)                            w_RWR of the paper, up to its constant Z
          | 1 for the best `share` of a group, else 0       w_sparse
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from safediffusion.collect.base import Scored
from safediffusion.core.errors import UserError
from safediffusion.core.types import Loss
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.base import check_holds
from safediffusion.objectives.forward import (
    Forward,
    Kind,
    NoisedItems,
    advantages,
    drift,
    matching,
    native,
    noise_again,
    predict,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardWeighted(Forward):
    """No image is pushed away: a bad one only weighs less. Any number of updates may follow one rollout.

    `weighting` "top" trains on the best `share` of every group, at least one image; those that tie with the last of
    them count as well, but never those that nothing of their group is below: a group of equal images has no best.
    """

    weighting: Literal["exp", "top"] = "exp"
    temperature: float = 1.0
    share: float = 0.25
    kl: float = 0.0
    kl_safe: float | None = None
    times: Kind = "grid"
    times_per_image: int | None = None

    def __post_init__(self) -> None:
        _ = self.when
        check_holds(self.kl, self.kl_safe)
        if self.weighting not in ("exp", "top"):
            raise UserError(f"weighting is '{self.weighting}'; it is exp or top")
        if self.temperature <= 0 or not 0 < self.share < 1:
            raise UserError(
                f"temperature is {self.temperature} and share {self.share}; temperature must be above 0, share between "
                "0 and 1"
            )

    @property
    def needs(self) -> frozenset[Weights]:
        return frozenset({Weights.REFERENCE}) if self.holds else frozenset()

    @property
    def terms(self) -> tuple[str, ...]:
        return ("policy", "kl", "weight", "matching")

    @property
    def further(self) -> int:
        return 0

    def prepare(self, policy: Policy, experience: Scored, generator: torch.Generator) -> NoisedItems:
        advantage = advantages(experience, "reward-weighted likelihood")
        weight = self._best(advantage, experience.rollout.group)
        if self.weighting == "exp":
            weight = (advantage / self.temperature).exp()
        return self.items(policy, experience, weight, generator)

    def _best(self, advantage: Tensor, group: Tensor) -> Tensor:
        """[B] 1 for the best of each group, else 0; a group lies whole on one process."""
        chosen = torch.zeros_like(advantage)
        for number in sorted(set(group.tolist())):
            members = (group == number).nonzero().flatten()
            ranked = advantage[members].sort(descending=True).values
            last = ranked[max(1, round(self.share * len(members))) - 1]
            chosen[members] = ((advantage[members] >= last) & (advantage[members] > ranked[-1])).to(advantage)
        return chosen

    def idle(self, items: NoisedItems) -> Tensor:
        return ((items.weight == 0) & (items.hold == 0)).cpu()

    def loss(self, policy: Policy, items: NoisedItems) -> Loss:
        batch = noise_again(policy, items)
        now = predict(policy, batch)
        error = matching(policy, batch, now)
        weighted = (items.weight * error).mean()
        kl = drift(policy, batch, native(policy, batch, now), items.hold, of=partial(native, policy))
        terms = {
            "policy": weighted.detach(),
            "kl": kl.detach().mean(),
            "weight": items.weight.mean(),
            "matching": error.detach().mean(),
        }
        return Loss(total=weighted + (items.hold * kl).mean(), terms=terms)
