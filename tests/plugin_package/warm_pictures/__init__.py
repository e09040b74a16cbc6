"""A scorer that another package adds: more red than blue is warm."""

from __future__ import annotations

from torch import Tensor

from safediffusion.scorers.base import ImageBatch


class Warmth:
    name = "warmth"
    higher_is_better = True
    differentiable = True

    def __call__(self, batch: ImageBatch) -> Tensor:
        """[B], mean of red minus mean of blue, in [-1, 1]."""
        means = batch.images.mean((2, 3))
        return means[:, 0] - means[:, 2]
