"""The weighted sum of scores, normalised inside each prompt's group (GRPO, arXiv 2402.03300; DanceGRPO, 2505.07818)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from safediffusion.credit.base import Among, Scores, Weighted, check_positive, group_stats


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedSum(Weighted):
    """A = clip((r - mean of the group) / (std + eps), +-clip), r the weighted sum of the scores.

    `std`: "group" divides by the group's own std, "batch" by the std inside groups pooled over the whole step (a group
    that hardly differs then weighs little), "none" does not divide (Dr. GRPO). A group of equal rewards gets exactly 0.
    """

    clip: float = 2.5
    eps: float = 1e-4
    std: Literal["group", "batch", "none"] = "group"

    def __post_init__(self) -> None:
        check_positive(self.clip, self.eps)

    def advantage(self, scores: Scores, among: Among) -> Tensor:
        value, group = self.scalar(scores, among.prompts).detach().double(), among.group
        stats = group_stats(value, group)
        centred = torch.where(stats.std[group] == 0, 0.0, value - stats.mean[group])
        if self.std == "group":
            centred = centred / (stats.std[group] + self.eps)
        elif self.std == "batch":
            centred = centred / ((centred**2).mean().sqrt() + self.eps)
        return centred.clamp(-self.clip, self.clip).float()
