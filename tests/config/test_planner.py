"""What fits, and what is changed until it does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from safediffusion.config import planner
from safediffusion.config.cost import _parts
from safediffusion.config.planner import fits
from safediffusion.config.schema import Recipe
from safediffusion.models.footprint import Memory

GIB = 2**30
LESS = ("memory.checkpointing=true", "memory.text_encoders=cpu", "objective.micro=1")


def by_settings(recipe: Recipe) -> Any:
    """20 GiB as it ships; 12, 9, 5, 4 and 3 with one lever after the other."""
    saved = 8 * recipe.memory.checkpointing + {"keep": 0, "free": 3, "cpu": 4}[recipe.memory.text_encoders]
    saved += 4 * (recipe.objective.micro == 1) + (recipe.rollout_batch == 1)
    return SimpleNamespace(memory=SimpleNamespace(peak=GIB * (20 - saved), uncounted=()))


@pytest.mark.parametrize(
    ("size", "changes", "line"),
    [
        (24, (), "sd15-steer: about 20 GiB, fits"),
        (14, ("memory.checkpointing=true",), "sd15-steer: about 20 GiB; 12 GiB with memory.checkpointing=true"),
        (10, ("memory.checkpointing=true", "memory.text_encoders=free"), None),
        (5.6, (*planner.LEVERS[0], *planner.LEVERS[1], *planner.LEVERS[2]), None),
        (4, (*LESS, "rollout_batch=1", "memory.vae_slicing=true"), None),  # each key once, as it was set last
        (3, None, "sd15-steer: about 20 GiB; 3 GiB with everything that saves memory, more than there is"),
    ],
)
def test_the_least_that_makes_a_recipe_fit(
    monkeypatch: pytest.MonkeyPatch, size: float, changes: tuple[str, ...] | None, line: str | None
) -> None:
    monkeypatch.setattr(planner, "forecast", by_settings)
    (fit,) = fits(int(size * GIB), ("sd15-steer",))
    assert fit.changes == changes and fit.peak == 20 * GIB
    assert line is None or fit.line() == line


def test_sd15_fits_a_small_card() -> None:
    """Counted from the published configuration: the LoRA recipe needs well under 24 GiB."""
    (fit,) = fits(24 * GIB, ("sd15-steer",))
    assert fit.changes is not None and 2 * GIB < fit.changed < 0.9 * 24 * GIB


def test_text_encoders_that_are_freed_count_beside_the_networks_alone() -> None:
    sizes = {"weights": 10, "optimizer": 3, "rollout": 2, "sampling": 1, "training": 4, "decoding": 2}
    small, large = (Memory(encoding=encoding, uncounted=(), **sizes) for encoding in (8, 11))
    assert (small.peak, large.peak) == (10 + 9, 10 + 11)
    named = "gradients and moments", "recorded steps", "training"
    assert _parts(small) == {"networks": 10, **dict(zip(named, (3, 2, 4), strict=True))}
    assert _parts(large) == {"networks": 10, "text encoders before the first step": 11}
