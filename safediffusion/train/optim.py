"""The optimizer and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import torch
from torch import nn

from safediffusion.core.errors import UserError


def adamw(
    parameters: Sequence[nn.Parameter],
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-4,
    bits: Literal[8, 32] = 32,
) -> torch.optim.Optimizer:
    """AdamW over `parameters`; the trainer sets its learning rate before every update.

    With 8 `bits` the moments of tensors of 4,096 numbers and more are kept in a byte each (bitsandbytes, arXiv
    2110.02861). UserError when that package is missing.
    """
    if not parameters:
        raise UserError("the policy has no trainable parameter; use a LoRA rank of 1 or more, or full weights")
    made: Any = torch.optim.AdamW if bits == 32 else _bitsandbytes().AdamW8bit
    optimizer: torch.optim.Optimizer = made(parameters, lr=0.0, betas=betas, eps=eps, weight_decay=weight_decay)
    return optimizer


def _bitsandbytes() -> Any:
    try:
        return import_module("bitsandbytes.optim")
    except ImportError as error:
        raise UserError(
            f"optimizer.bits=8 needs bitsandbytes ({error}): pip install 'safediffusion[8bit]', or set bits to 32"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningRate:
    """The learning rate of an update, a pure function of its number: `warmup` updates up, `hold`, then `decay`."""

    peak: float
    warmup: int = 0
    decay: Literal["constant", "linear", "cosine"] = "constant"
    hold: float = 0.0  # share of the updates after the warm-up that go by before it decays
    total: int | None = None  # updates of the whole run; needed when it decays

    def __post_init__(self) -> None:
        if not self.peak > 0 or self.warmup < 0:
            raise UserError(f"learning rate {self.peak} must be above 0 and warmup {self.warmup} 0 or more")
        if not 0 <= self.hold < 1:
            raise UserError(f"the learning rate's hold is {self.hold}; it is a share from 0 to below 1")
        if self.decay != "constant" and self.total is None:
            raise UserError(f"learning rate decay '{self.decay}' needs the total number of updates")

    def at(self, update: int) -> float:
        """The rate of update 0, 1, 2, ..."""
        if update < self.warmup:
            return self.peak * (update + 1) / self.warmup
        if self.decay == "constant" or self.total is None:
            return self.peak
        passed = min(1.0, (update - self.warmup) / max(1, self.total - self.warmup))
        done = max(0.0, passed - self.hold) / (1 - self.hold)
        return self.peak * (1 - done if self.decay == "linear" else (1 + math.cos(math.pi * done)) / 2)
