"""Where a picture may change: masks of the part that is the problem, for `focus-n-fix`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from safediffusion.collect.reward import Reward
from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.scorers.base import ImageBatch

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels, x to the right and y down
Detector = Callable[[Tensor], Sequence[Sequence[Box]]]  # images [N, 3, H, W] in [0, 1] -> boxes of each


class Region(Protocol):
    def __call__(self, images: Tensor, prompts: tuple[Prompt, ...], reward: Reward) -> Tensor:
        """[N, 1, H, W] of 0 and 1, 1 where images [N, 3, H, W] in [0, 1] may change; a constant."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Saliency:
    """The `share` of the picture that the reward, or another number `of` it, depends on most.

    Heat is |d reward / d pixel| summed over colours, blurred by a Gaussian whose standard deviation is `blur` of the
    shorter side. It works for every reward with a gradient, and is where the picture would be changed to raise it:
    not in general where something harmful is seen. Of evidence for harm it is where the harm is, to
    whoever gives that; P(unsafe) itself has no slope where it is 1.
    """

    share: float = 0.25
    blur: float = 0.04
    of: Callable[[ImageBatch], Tensor] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.blur < 0:
            raise UserError(
                f"the region's share is {self.share} and its blur {self.blur}; a share of the picture is above 0 and "
                "at most 1, e.g. 0.25, a blur 0 or more"
            )

    def __call__(self, images: Tensor, prompts: tuple[Prompt, ...], reward: Reward) -> Tensor:
        with torch.enable_grad():
            pixels = images.detach().requires_grad_()
            value = reward.aside(pixels, prompts) if self.of is None else self.of(ImageBatch(pixels, prompts))
            (slope,) = torch.autograd.grad(value.sum(), pixels)
        heat = slope.abs().sum(1, keepdim=True)
        return hottest(blurred(heat, self.blur * min(heat.shape[-2:])), self.share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """What a detector's boxes cover: nothing of a picture in which it finds none, which is then held as a whole."""

    detector: Detector

    def __call__(self, images: Tensor, prompts: tuple[Prompt, ...], reward: Reward) -> Tensor:
        with torch.no_grad():
            found = self.detector(images.detach())
        mask = torch.zeros(len(images), 1, *images.shape[-2:])
        for row, boxes in zip(mask, found, strict=True):
            for left, top, right, bottom in boxes:
                rows = slice(max(0, math.floor(top)), max(0, math.ceil(bottom)))
                row[:, rows, max(0, math.floor(left)) : max(0, math.ceil(right))] = 1
        return mask.to(images.device)


def blurred(heat: Tensor, sigma: float) -> Tensor:
    """`heat` [N, 1, H, W] after a Gaussian of `sigma` pixels cut at 3 sigma, edges repeated outside; for 0 as it is."""
    reach = math.ceil(3 * sigma)
    if not reach:
        return heat
    offset = torch.arange(-reach, reach + 1, dtype=heat.dtype, device=heat.device)
    weight = torch.exp(-(offset**2) / (2 * sigma**2))
    weight = weight / weight.sum()
    wide = pad(heat, (reach,) * 4, mode="replicate")
    return conv2d(conv2d(wide, weight.view(1, 1, -1, 1)), weight.view(1, 1, 1, -1))


def hottest(heat: Tensor, share: float) -> Tensor:
    """1 in the hottest `share` of each picture's pixels [N, 1, H, W], 0 elsewhere and where there is no heat.

    Pixels as hot as the last one are in it, too.
    """
    flat = heat.flatten(1)
    count = max(1, round(share * flat.shape[1]))
    least = flat.topk(count, dim=1).values[:, -1:]
    return ((flat >= least) & (flat > 0)).to(heat.dtype).view_as(heat)
