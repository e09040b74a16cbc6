"""The judge: how its grid is read, and what the shipped one sees in the shipped labelled pictures."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from safediffusion.worlds.emoji import assets, scenes
from safediffusion.worlds.emoji.build.judge import NOTHING, targets
from safediffusion.worlds.emoji.judge import CELL, Judge
from safediffusion.worlds.emoji.vocabulary import NAMES, OBJECTS, unsafe

CAT, KNIFE = NAMES.index("cat"), NAMES.index("knife")


class Fixed(Judge):
    """Answers with the given grids."""

    def __init__(self, logits: Tensor, offset: Tensor | None = None) -> None:
        super().__init__()
        self._logits = logits
        self._offset = torch.zeros(len(logits), 2, 8, 8) if offset is None else offset

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self._logits, self._offset


def empty(count: int = 1) -> Tensor:
    """Logits of pictures that nobody stands in."""
    logits = torch.zeros(count, len(NAMES) + 1, 8, 8)
    logits[:, NOTHING] = 20.0
    return logits


def put(logits: Tensor, cell: tuple[int, int], name: int, probability: float) -> None:
    """`name` against "nothing" in the cell (row, column), all other classes out of the question."""
    logits[0, :, cell[0], cell[1]] = -30.0
    logits[0, name, cell[0], cell[1]] = torch.logit(torch.tensor(probability))
    logits[0, NOTHING, cell[0], cell[1]] = 0.0


IMAGE = torch.zeros(1, 3, 64, 64)


def test_a_cell_with_an_offset_becomes_a_place_in_pixels() -> None:
    logits, offset = empty(), torch.zeros(1, 2, 8, 8)
    put(logits, (2, 5), KNIFE, 0.9)
    offset[0, :, 2, 5] = torch.tensor([0.25, -0.5])
    (found,) = Fixed(logits, offset).detect(IMAGE)[0]
    assert found.name == "knife" and found.score == pytest.approx(0.9, abs=1e-5)
    assert (found.x, found.y) == ((5 + 0.5 + 0.25) * CELL, (2 + 0.5 - 0.5) * CELL)


def test_weak_cells_are_silent_and_a_peak_silences_its_neighbours() -> None:
    logits = empty()
    put(logits, (1, 1), CAT, 0.49)
    put(logits, (4, 4), KNIFE, 0.9)
    put(logits, (5, 5), CAT, 0.8)
    put(logits, (4, 6), CAT, 0.7)
    assert [d.name for d in Fixed(logits).detect(IMAGE)[0]] == ["knife"]
    put(logits, (5, 5), CAT, 0.2)
    found = Fixed(logits).detect(IMAGE)[0]
    assert [(d.name, d.x, d.y) for d in found] == [("knife", 36, 36), ("cat", 52, 36)]


def test_an_object_is_there_even_if_its_name_is_in_doubt() -> None:
    logits = empty()
    put(logits, (3, 3), CAT, 0.6)
    logits[0, KNIFE, 3, 3] = logits[0, CAT, 3, 3] - 0.1
    (found,) = Fixed(logits).detect(IMAGE)[0]
    assert found.name == "cat" and found.score < 0.5


def test_pictures_are_read_apart_and_an_empty_one_holds_nothing() -> None:
    logits = torch.cat([empty(), empty()])
    logits[1, CAT, 0, 7] = 40.0
    first, second = Fixed(logits).detect(IMAGE.expand(2, -1, -1, -1))
    assert first == [] and [d.name for d in second] == ["cat"]


def test_what_the_judge_is_taught_reads_back_as_the_scene() -> None:
    rng = random.Random(3)
    samples = [scenes.draw(rng) for _ in range(60)]
    classes, offsets, _ = targets(samples)
    logits = torch.nn.functional.one_hot(classes, len(NAMES) + 1).permute(0, 3, 1, 2).float() * 20
    for sample, found in zip(samples, Fixed(logits, offsets).detect(torch.zeros(60, 3, 64, 64)), strict=True):
        told = sorted((o.name, o.x, o.y) for o in sample.scene.objects)
        read = sorted((d.name, d.x, d.y) for d in found)
        assert [name for name, *_ in read] == [name for name, *_ in told]
        assert np.allclose([place for _, *place in read], [place for _, *place in told], atol=1e-4)


def test_the_shipped_judge_reads_the_shipped_pictures() -> None:
    images, labels = assets.calibration()
    found = Judge.load().detect(images)
    flags = [any(unsafe(d.name) for d in seen) == label["unsafe"] for seen, label in zip(found, labels, strict=True)]
    assert np.mean(flags) >= 0.97
    whole = [
        len(seen) == label["count"]
        and {OBJECTS[d.name].category for d in seen} - {None} == ({label["category"]} if label["unsafe"] else set())
        for seen, label in zip(found, labels, strict=True)
    ]
    assert np.mean(whole) >= 0.97


def test_features_are_one_vector_a_picture_whatever_the_batch() -> None:
    judge, images = Judge.load(), assets.calibration()[0][:6]
    features = judge.features(images)
    assert features.shape == (6, 128)
    assert torch.allclose(features[2:3], judge.features(images[2:3]), atol=1e-5)
    mean, covariance = assets.fid_reference()
    assert mean.shape == (128,) and covariance.shape == (128, 128)
    assert np.allclose(covariance, covariance.T) and np.linalg.eigvalsh(covariance).min() > -1e-9
