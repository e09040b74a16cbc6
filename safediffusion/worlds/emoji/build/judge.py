"""Fits the judge on rendered scenes, half of them passed through the VAE so that it reads decoded pictures too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ..judge import CELL, Judge
from ..scenes import Sample
from ..vocabulary import NAMES
from .encoder import augment, half_seen
from .loop import Fit, device, run

FIT = Fit(name="judge", steps=1000, lr=2e-3, warmup=100, ema=0.0, seed=2)
NOTHING = len(NAMES)


def targets(samples: list[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """Class [N, 8, 8], offsets [N, 2, 8, 8] and weights [N, 8, 8]; cells beside a centre are left out of the loss."""
    classes = torch.full((len(samples), 8, 8), NOTHING)
    offsets, weight = torch.zeros(len(samples), 2, 8, 8), torch.ones(len(samples), 8, 8)
    for i, sample in enumerate(samples):
        centres = []
        for o in sample.scene.objects:
            col, row = min(int(o.x // CELL), 7), min(int(o.y // CELL), 7)
            weight[i, max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2] = 0.1
            centres.append((row, col, o))
        for row, col, o in centres:
            classes[i, row, col], weight[i, row, col] = NAMES.index(o.name), 4.0
            offsets[i, :, row, col] = torch.tensor([o.x / CELL - col - 0.5, o.y / CELL - row - 0.5])
    return classes, offsets, weight


def fit(samples: list[Sample], pictures: np.ndarray, decoded: np.ndarray, folder: Path, *, batch: int = 96) -> Judge:
    torch.manual_seed(FIT.seed)
    judge = Judge().to(device()).train()
    classes, offsets, weights = targets(samples)

    def step(number: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        index = torch.randint(len(samples), (batch,), generator=generator)
        x = augment(half_seen(index, pictures, decoded, generator), generator)
        logits, where = judge((x + 1) / 2)
        target, place, weight = classes[index].to(device()), offsets[index].to(device()), weights[index].to(device())
        loss = (F.cross_entropy(logits, target, reduction="none") * weight).mean()
        centre = (target != NOTHING)[:, None]
        distance = F.smooth_l1_loss(where, place, reduction="none") * centre
        return loss * 8 + distance.sum() / centre.sum(), {"class": loss.item()}

    run(judge, step, FIT, folder)
    return judge


def save(judge: Judge, folder: Path) -> None:
    """In fp16, but for what counts."""
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in judge.state_dict().items()}
    save_file(tensors, folder / "judge.safetensors")
