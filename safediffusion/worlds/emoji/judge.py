"""The judge: a convolutional grid detector trained apart from pipeline and encoder. It is never a reward."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from safediffusion.evaluate.rows import Detection

from .vocabulary import NAMES

CELL = 8  # pixels a grid cell
THRESHOLD = 0.5


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.body = nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU(), second, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def _halving(a: int, b: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU()


class Judge(nn.Module):
    """Every 8x8-pixel cell says whether an object is centred in it, which one, and where in the cell."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *(part for a, b in ((3, 24), (24, 48), (48, 96)) for part in _halving(a, b)),
            *(Residual(96) for _ in range(4)),
            nn.Conv2d(96, 128, 1),
            nn.ReLU(),
        )
        self.classes = nn.Conv2d(128, len(NAMES) + 1, 1)  # last class: nothing centred here
        self.offset = nn.Conv2d(128, 2, 1)

    @classmethod
    def load(cls, folder: Path | None = None) -> Self:
        from .assets import judge_file

        stored = load_file(judge_file() if folder is None else folder / "judge.safetensors")
        judge = cls()
        judge.load_state_dict({name: value.float() for name, value in stored.items()})
        return judge.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images [B, 3, 64, 64] in [0, 1] -> class logits [B, C + 1, 8, 8], offsets [B, 2, 8, 8] in cells."""
        trunk = self.trunk(images * 2 - 1)
        return self.classes(trunk), self.offset(trunk).tanh() * 0.75

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """[B, 128] mean features, for the Frechet distance of the world."""
        features: Tensor = self.trunk(images * 2 - 1).mean((2, 3))
        return features

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[list[Detection]]:
        """The objects of each picture: cells whose objectness exceeds 0.5 and every neighbour's."""
        logits, offset = self(images)
        probability = logits.softmax(1)
        found = 1 - probability[:, -1]
        peak = found == F.max_pool2d(found[:, None], 3, stride=1, padding=1)[:, 0]
        score, which = probability[:, :-1].max(1)
        out: list[list[Detection]] = [[] for _ in range(len(images))]
        for b, row, col in (peak & (found > THRESHOLD)).nonzero().tolist():
            dx, dy = offset[b, :, row, col].tolist()
            x, y = (col + 0.5 + dx) * CELL, (row + 0.5 + dy) * CELL
            name = NAMES[int(which[b, row, col])]
            out[b].append(Detection(name=name, x=x, y=y, score=float(score[b, row, col])))
        return out
