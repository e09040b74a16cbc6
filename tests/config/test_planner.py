"""What fits, and what is changed until it does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from safediffusion.config import planner
from safediffusion.config.planner import fits
from safediffusion.config.schema import Recipe

GIB = 2**30


def by_settings(recipe: Recipe) -> Any:
    """20 GiB as it ships; 12, 9, 5 and 4 with one lever after the other."""
    saved = 8 * recipe.memory.checkpointing + 3 * recipe.memory.text_on_cpu + 4 * (recipe.objective.micro == 1)
    return SimpleNamespace(memory=SimpleNamespace(peak=GIB * (20 - saved - (recipe.rollout_batch == 1)), uncounted=()))


@pytest.mark.parametrize(
    ("size", "changes", "line"),
    [
        (24, (), "sd15-steer: about 20 GiB, fits"),
        (14, ("memory.checkpointing=true",), "sd15-steer: about 20 GiB; 12 GiB with memory.checkpointing=true"),
        (10, ("memory.checkpointing=true", "memory.text_on_cpu=true"), None),
        (5.6, (*planner.LEVERS[0], *planner.LEVERS[1], *planner.LEVERS[2]), None),
        (3, None, "sd15-steer: about 20 GiB; 4 GiB with everything that saves memory, more than there is"),
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
