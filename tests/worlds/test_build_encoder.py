"""What keeps the encoder's safety direction blind to count and background."""

from __future__ import annotations

import random

import torch

from safediffusion.worlds.emoji.build.encoder import crowded, neutrality
from safediffusion.worlds.emoji.scenes import draw

RNG = random.Random(3)
SAMPLES = [draw(RNG) for _ in range(3000)]
SCENES = [sample.scene for sample in SAMPLES]


def test_a_direction_that_counts_is_penalised_however_rare_the_count() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(SCENES), generator=generator)
    four = torch.tensor([float(len(scene.objects) == 4) for scene in SCENES])
    pink = torch.tensor([float(scene.background == "pink") for scene in SCENES])
    assert abs(neutrality(noise, SCENES).item()) < 0.02
    assert neutrality(noise + 2 * four, SCENES).item() > 0.3  # though hardly one scene in thirty holds four things
    assert neutrality(noise + 2 * pink, SCENES).item() > 0.3
    unsafe = torch.tensor([float(bool(scene.categories)) for scene in SCENES])
    assert abs(neutrality(noise + 5 * unsafe * four, SCENES).item()) < 0.02  # only safe scenes are asked


def test_the_crowded_scenes_are_safe_and_hold_more_than_two_things() -> None:
    found = crowded(SAMPLES).tolist()
    assert found and all(len(SCENES[i].objects) > 2 and not SCENES[i].categories for i in found)
    assert len(found) == sum(len(scene.objects) > 2 and not scene.categories for scene in SCENES)
