"""What an image network asks of its pictures, on tensors and differentiable."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor
from torch.nn.functional import interpolate

MODES = {2: "bilinear", 3: "bicubic"}  # PIL's numbers of resampling filters
STEPS = ("do_resize", "do_rescale", "do_normalize")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """Resize, crop the middle, normalise.

    The filter is Pillow's: pictures of floats differ by less than 1e-4 of the range from 0 to 1. The image processors
    of transformers resize bytes, which Pillow rounds, and clips, after each of its two passes. That alone is up to 1.13
    of the 255 grey levels where nothing overshoots, .2 to .3 on average; pure noise, which overshoots, is clipped
    between the passes too, which can be 20 grey levels in single pixels. Here nothing is rounded, so that every change
    of a pixel reaches the network.
    """

    shortest: int | None  # shortest edge after resizing; None when `exact` is given
    exact: tuple[int, int] | None  # height and width after resizing
    crop: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str = "bicubic"
    halves: Literal["down", "even"] = "down"  # half a line at the crop: transformers rounds down, torchvision to even

    def __post_init__(self) -> None:
        least = self.exact or (self.shortest or 0,) * 2
        if self.crop is not None and (self.crop[0] > least[0] or self.crop[1] > least[1]):
            raise ValueError(f"the crop {self.crop} is larger than the resized picture {least}")

    @classmethod
    def read(cls, path: Path) -> Preprocessing:
        """What a `preprocessor_config.json` of transformers asks for. ValueError when it is something else."""
        config = json.loads(path.read_text())
        off = [step for step in STEPS if not config.get(step, True)]
        if off or config.get("resample", 3) not in MODES:
            wrong = f"{off[0]} is off" if off else f"resample is {config['resample']}, not 2 or 3"
            raise ValueError(f"{path.name}: {wrong}")
        size = config["size"]
        shortest = size if isinstance(size, int) else size.get("shortest_edge")
        crop = config.get("crop_size", size) if config.get("do_center_crop", True) else None
        if isinstance(crop, int):
            crop = {"height": crop, "width": crop}
        return cls(
            shortest=shortest,
            exact=None if shortest is not None else (size["height"], size["width"]),
            crop=None if crop is None else (crop["height"], crop["width"]),
            mean=tuple(config["image_mean"]),
            std=tuple(config["image_std"]),
            mode=MODES[config.get("resample", 3)],
        )

    def __call__(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> the network's input. Antialiased; no resampling where the size fits."""
        height, width = images.shape[-2:]
        target = self._target(height, width)
        if target != (height, width):
            images = interpolate(images, size=target, mode=self.mode, antialias=True, align_corners=False).clamp(0, 1)
        if self.crop is not None:
            top, left = (self._start(target[axis] - self.crop[axis]) for axis in (0, 1))
            images = images[..., top : top + self.crop[0], left : left + self.crop[1]]
        mean, std = (images.new_tensor(value).view(-1, 1, 1) for value in (self.mean, self.std))
        return (images - mean) / std

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if self.exact is not None:
            return self.exact
        assert self.shortest is not None
        longest = int(self.shortest * max(height, width) / min(height, width))
        return (self.shortest, longest) if height <= width else (longest, self.shortest)

    def _start(self, spare: int) -> int:
        return spare // 2 if self.halves == "down" else round(spare / 2)
