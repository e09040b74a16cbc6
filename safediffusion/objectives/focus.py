"""Focus-N-Fix: DRaFT that may change a picture only where it is a problem (arXiv 2501.06481).

Notation:
    I, I0   the pictures that the trained and the pretrained weights draw from one noise, by the same steps
    M       mask of I0: 1 in the region that is the problem (`regions`), 0 elsewhere; a constant
    L       = mean [ -r(I) + beta * outside + kl * KL ]       KL and the steps with gradients as in `through_steps`
    outside = |(1 - M)(I - I0)|_F / sqrt(3 H W), pixels in [0, 1]

The paper's norm is not divided: its beta is ours / sqrt(3 H W). Ours is the root mean square over the whole picture, so
that one beta means the same for every size of picture. Where I = I0 outside the region its gradient is taken as 0. No
code of the authors was found; their regions come from networks that predict heat maps of harm or artefacts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from safediffusion.collect.base import Volume
from safediffusion.collect.reward import Reward
from safediffusion.core.errors import UserError
from safediffusion.core.types import Loss
from safediffusion.diffusion.unroll import unroll
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.regions import Region, Saliency
from safediffusion.objectives.through_steps import Passes, PictureItems, ThroughSteps


@dataclass(frozen=True, slots=True, kw_only=True)
class FocusNFix(ThroughSteps):
    region: Region = Saliency()
    beta: float = 1.0

    def __post_init__(self) -> None:
        ThroughSteps.__post_init__(self)
        if self.beta < 0:
            raise UserError(f"beta is {self.beta}; what holds the picture outside its region must weigh 0 or more")

    @property
    def needs(self) -> frozenset[Weights]:
        return frozenset({Weights.REFERENCE})

    @property
    def terms(self) -> tuple[str, ...]:
        return ("reward", "kl", "outside", "region/share")

    def loss(self, policy: Policy, items: PictureItems) -> Loss:
        assert isinstance(items.reward, Reward), "the region is found by the reward of pictures"
        start = self._start(policy, items)
        mask = self.region(start, items.prompts, items.reward)
        latents, kl, _ = self.drawn(policy, items)
        images = policy.decode(latents)
        r, outside = items.reward(images, items.prompts), distance_outside(images, start, mask)
        terms = {"reward": r, "kl": kl, "outside": outside, "region/share": mask.mean((1, 2, 3))}
        total = -r.mean() + self.beta * outside.mean() + self.held(items, kl)
        return Loss(total=total, terms={name: value.detach().mean() for name, value in terms.items()})

    @torch.no_grad()
    def _start(self, policy: Policy, items: PictureItems) -> Tensor:
        """I0 [N, 3, H, W]."""
        window = replace(items.window, checkpoint=False)
        with policy.using(Weights.REFERENCE):
            return policy.decode(unroll(policy, items.cond, items.noise, items.plan, window).latents)

    def passes(self, items: PictureItems) -> Passes:
        return _and_start(ThroughSteps.passes(self, items))

    def most(self, volume: Volume) -> Passes:
        return _and_start(ThroughSteps.most(self, volume))


def focus_n_fix(
    *,
    last: int = 1,
    beta: float = 1.0,
    region: Region | Literal["saliency"] = "saliency",
    share: float | None = None,
    kl: float = 0.0,
    checkpoint: bool = False,
) -> FocusNFix:
    """Over DRaFT-K with K = `last`; `share` is that of the region "saliency"."""
    if region == "saliency":
        region = Saliency() if share is None else Saliency(share=share)
    elif share is not None:
        raise UserError(f"share is {share}, which the region 'saliency' alone has; leave it out")
    assert not isinstance(region, str), f"the region '{region}' has to be made first"
    return FocusNFix(last=(last, last), kl=kl, checkpoint=checkpoint, region=region, beta=beta)


def distance_outside(images: Tensor, start: Tensor, mask: Tensor) -> Tensor:
    """[N], `outside` of the module's notation, of pictures [N, 3, H, W] and masks [N, 1, H, W]."""
    held = ((1 - mask) * (images - start)).flatten(1)
    norm: Tensor = torch.linalg.vector_norm(held, dim=1)
    return norm / math.sqrt(held.shape[1])


def _and_start(found: Passes) -> Passes:
    """And I0, by the same steps without gradients."""
    return found._replace(further=found.constant + found.learned)
