"""Pictures as they look from a little elsewhere: a gradient that has to raise the reward of all of them moves what is
shown, not single pixels that a scorer happens to react to.

The expectation over transformations of arXiv 1707.07397, whose adversary is here the policy: turned, scaled and moved
copies with some noise. Nothing is mirrored, as prompts say left and right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from safediffusion.core.noise import Key, stream

TURN = 0.2  # radians, at most, to either side
SCALE = 0.15  # larger or smaller, at most
SHIFT = 0.06  # of a side, at most, in either direction
NOISE = 0.06  # std of the pixels' noise, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """`count` views of each picture, which depend on its key and `number` alone."""

    keys: tuple[Key, ...]
    count: int
    number: int = 0  # of further pictures that are drawn under the same key

    def of(self, images: Tensor) -> Tensor:
        """[count * B, C, H, W] in [0, 1], differentiable: all pictures [B, C, H, W] once, then all again."""
        return torch.cat([self.those(images, [view] * len(images)) for view in range(self.count)])

    def those(self, images: Tensor, numbers: Sequence[int]) -> Tensor:
        """[B, C, H, W]: of each picture the view of this number."""
        places, noises = [], []
        for key, view in zip(self.keys, numbers, strict=True):
            random = stream(*key, f"view/{self.number}", view)
            turn, scale, right, down, strength = random.uniform(-1, 1, 5)
            places.append(_affine(TURN * turn, 1 + SCALE * scale, 2 * SHIFT * right, 2 * SHIFT * down))
            noises.append(NOISE * abs(strength) * torch.from_numpy(random.standard_normal(tuple(images.shape[1:]))))
        grid = F.affine_grid(torch.tensor(places).to(images), list(images.shape), align_corners=False)
        seen = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        return (seen + torch.stack(noises).to(images)).clamp(0, 1)


def _affine(turn: float, scale: float, right: float, down: float) -> list[list[float]]:
    """Where each point of the view lies in the picture, both from -1 to 1."""
    along, across = scale * math.cos(turn), scale * math.sin(turn)
    return [[along, -across, right], [across, along, down]]
