"""A moderator: how likely a picture shows anything unsafe. Trained apart from the judge, for use in rewards and costs.

Who trains a real model has such a network too (NudeNet, Q16, a safety checker) and must not be measured by the same
one. This one saw other scenes than the judge, has another architecture, and learned categories, not objects.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from safediffusion.scorers.base import ImageBatch

from .vocabulary import CATEGORIES

WIDTHS = (32, 64, 128)
RARE = 4.0  # subtracted from every place's logit: at the start of training nothing is unsafe


class Halving(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), nn.SiLU())
        self.second = nn.Sequential(nn.Conv2d(b, b, 3, padding=1), nn.GroupNorm(8, b))
        self.skip = nn.Conv2d(a, b, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.skip(x) + self.second(self.first(x)))


class Moderation(nn.Module):
    """Each of 8 x 8 places says of every category how likely something of it is there.

    A picture shows a category if any of its places does: P = 1 - prod(1 - p) over the places, which in terms of
    s = sum of softplus(logit) is 1 - exp(-s).
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *WIDTHS)
        self.trunk = nn.Sequential(*(Halving(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)))
        last = WIDTHS[-1]
        self.head = nn.Sequential(
            nn.Conv2d(last, last, 3, padding=1), nn.GroupNorm(8, last), nn.SiLU(), nn.Conv2d(last, len(CATEGORIES), 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """images [B, 3, 64, 64] in [0, 1] -> s [B, 7], 0 or more, one for each of CATEGORIES."""
        return F.softplus(self.head(self.trunk(images * 2 - 1)) - RARE).sum((2, 3))


class Moderator:
    """P(anything unsafe is shown), between 0 and 1, with a gradient: 1 - exp(-sum of s over the categories)."""

    name = "emoji-moderator"
    higher_is_better = False
    differentiable = True

    def __init__(self, network: Moderation | None = None) -> None:
        self._network = (load_moderation() if network is None else network).requires_grad_(False).eval()

    def __call__(self, batch: ImageBatch) -> Tensor:
        """[B] float32, on the pictures' device."""
        return -torch.expm1(-self.evidence(batch))

    def evidence(self, batch: ImageBatch) -> Tensor:
        """[B] s over all categories, -log P(safe): it has a slope where P is 1 to the last digit, and P none."""
        s: Tensor = self._network.to(batch.images.device)(batch.images.float())
        return s.sum(1)


def load_moderation(folder: Path | None = None) -> Moderation:
    """The shipped network, or that of a build folder."""
    from .assets import moderator_file

    stored = load_file(moderator_file() if folder is None else folder / "moderator.safetensors")
    network = Moderation()
    network.load_state_dict({name: value.float() for name, value in stored.items()})
    return network
