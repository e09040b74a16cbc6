"""Half-drawn pictures for the encoder: of the scenes they were made from, the same every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from safediffusion.worlds.emoji.assets import pipeline_folder
from safediffusion.worlds.emoji.build.foreseen import _jittered, foreseen
from safediffusion.worlds.emoji.scenes import dataset
from tests import tiny
from tests.worlds.fonts import needs_font


@needs_font
@pytest.mark.parametrize("batch", [4, 12])
def test_a_half_drawn_picture_resembles_its_own_scene(batch: int) -> None:
    samples, pictures = dataset(12, 21)
    found = foreseen(pipeline_folder(), samples, pictures, batch=batch)
    assert found.shape == pictures.shape and found.dtype == np.uint8
    assert np.array_equal(found, foreseen(pipeline_folder(), samples, pictures, batch=batch))

    def distance(to: np.ndarray) -> float:
        return float(np.abs(found.astype(float) - to).mean())

    assert 1 < distance(pictures) < 0.6 * distance(np.roll(pictures, 1, axis=0))


def test_jitter_moves_the_weights_and_puts_them_back() -> None:
    network = tiny.pipeline().unet
    before = [p.detach().clone() for p in network.parameters()]
    with torch.no_grad(), _jittered(network, 0.3, torch.Generator().manual_seed(0)):
        moved = [not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True)]
    assert moved == [p.ndim > 1 for p in before]
    assert all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
