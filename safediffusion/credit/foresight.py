"""A baseline for every reverse step: what the reward of the foreseen picture already told before the step was taken."""

from __future__ import annotations

import torch
from torch import Tensor

from safediffusion.credit.base import group_stats


def less_foreseen(advantage: Tensor, foreseen: Tensor, group: Tensor) -> Tensor:
    """[B, K] float32: A_k = A - beta_k (V_k - mean of V_k in the group), the advantage of each recorded step.

    `advantage` [B] is the images', `foreseen` [B, K] the reward of the clean latents that the denoiser predicts at the
    state *before* step k. V_k does not depend on the noise of step k or later, so the policy gradient keeps its
    expectation and loses the variance that earlier noise brings: a control variate, as a critic would be, but without
    one. beta_k is the least-squares slope inside groups over the whole batch; 0 where V_k is the same everywhere.
    """
    value, columns = advantage.double(), foreseen.double().unbind(1)
    centred = torch.stack([column - group_stats(column, group).mean[group] for column in columns], 1)
    energy = (centred**2).sum(0)
    slope = torch.where(energy > 0, (value @ centred) / energy, 0.0)
    return (value[:, None] - slope * centred).float()


def explained(advantage: Tensor, by_step: Tensor) -> list[float]:
    """[K], the share of the advantage's mean square that was foreseen before each step."""
    whole = float((advantage.double() ** 2).mean())
    return [1 - float((column.double() ** 2).mean()) / whole if whole else 0.0 for column in by_step.unbind(1)]
