"""Random numbers by key: an image's noise depends on its key alone, never on its batch, its rank or its device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .types import SHARED, Sliceable

Key = tuple[int, str, int]  # (seed, prompt id, repeat)


@dataclass(frozen=True, slots=True)
class Noise(Sliceable):
    """The random numbers of a batch of images.

    `start`, when given, keys the initial noise apart from the later steps, e.g. one start shared by all prompts.
    """

    keys: tuple[Key, ...]
    shape: tuple[int, ...] = field(metadata=SHARED)  # of one image's latents
    start: tuple[Key, ...] | None = None

    def at(self, step: int, device: torch.device | str = "cpu") -> Tensor:
        """[B, *shape] standard normal, float32. Step 0 starts the reverse process; step i > 0 drives its i-th step.

        Drawn on the CPU by Philox with the 128-bit digest of (key, step), then moved: equal on every machine.
        """
        keys = self.start if step == 0 and self.start is not None else self.keys
        out = np.empty((len(keys), *self.shape), dtype=np.float32)
        for row, key in zip(out, keys, strict=True):
            stream(*key, step).standard_normal(out=row, dtype=np.float32)
        return torch.from_numpy(out).to(device)


@dataclass(frozen=True, slots=True)
class Generators(Sliceable):
    """The random numbers of diffusers' pipelines, given `torch.Generator("cpu").manual_seed(seed)` for each prompt.

    For prompt sets that say which seed belongs to a prompt: the pictures are those that others draw with it. `images`
    are drawn of a prompt by one generator, in one batch.
    """

    draws: tuple[tuple[int, int], ...]  # of each image the prompt's seed, and which of its images it is
    shape: tuple[int, ...] = field(metadata=SHARED)  # of one image's latents
    images: int = field(default=1, metadata=SHARED)
    start: None = None

    def at(self, step: int, device: torch.device | str = "cpu") -> Tensor:
        """[B, *shape] standard normal, float32; steps as in `Noise`."""
        out = torch.empty((len(self.draws), *self.shape))
        for row, (seed, number) in zip(out, self.draws, strict=True):
            generator = torch.Generator("cpu").manual_seed(seed)
            for _ in range(step + 1):
                batch = torch.randn((self.images, *self.shape), generator=generator)
            row.copy_(batch[number])
        return out.to(device)


def stream(*key: int | str) -> np.random.Generator:
    """A random generator that depends on `key` alone; different keys give independent streams."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big")))
