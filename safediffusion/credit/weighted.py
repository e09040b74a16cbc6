"""The weighted sum of scores, normalised inside each prompt's group (GRPO, arXiv 2402.03300; DanceGRPO, 2505.07818)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.credit.base import Scores, group_stats


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedSum:
    """A = clip((r - mean of the group) / (std + eps), +-clip), r the weighted sum of the scores.

    `std`: "group" divides by the group's own std, "batch" by the std inside groups pooled over the whole step (a group
    that hardly differs then weighs little), "none" does not divide (Dr. GRPO). A group of equal rewards gets exactly 0.
    """

    weights: Mapping[str, float]
    clip: float = 2.5
    eps: float = 1e-4
    std: Literal["group", "batch", "none"] = "group"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.weights)

    def scalar(self, scores: Scores) -> Tensor:
        """[B], the weighted sum; a name that no scorer produced is a UserError."""
        missing = [name for name in self.weights if name not in scores]
        if missing:
            raise UserError(
                f"credit weighs the scores {missing}, but the scorers produce {sorted(scores)}; name one of those"
            )
        return torch.stack([weight * scores[name] for name, weight in self.weights.items()]).sum(0)

    def advantage(self, scores: Scores, group: Tensor) -> Tensor:
        value = self.scalar(scores).detach().double()
        stats = group_stats(value, group)
        centred = torch.where(stats.std[group] == 0, 0.0, value - stats.mean[group])
        if self.std == "group":
            centred = centred / (stats.std[group] + self.eps)
        elif self.std == "batch":
            centred = centred / ((centred**2).mean().sqrt() + self.eps)
        return centred.clamp(-self.clip, self.clip).float()

    def observe(self, means: Mapping[str, float]) -> None:
        return None

    def state(self) -> dict[str, float]:
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        return None
