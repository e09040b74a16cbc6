"""What a recipe is allowed to do and its user may not expect: sentences for the start of a run. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from safediffusion.config.credits import RunningConfig
from safediffusion.config.guard import looks
from safediffusion.config.schema import Recipe
from safediffusion.data.mixture import Mixture


def notes(recipe: Recipe, mixture: Mixture) -> Iterator[str]:
    yield from _rarely_met(recipe, mixture)
    embedded = recipe.model.partition("+")[0] == "emoji"  # whose detector looks
    if looks(recipe) and recipe.guard.encoder is None and not recipe.guard.judges and not embedded:
        yield (
            "the guard sees layout and colour alone, not what is in a picture; name who looks, e.g. "
            "guard.encoder=openai/clip-vit-base-patch32 or guard.judges=[nudenet]"
        )


def _rarely_met(recipe: Recipe, mixture: Mixture) -> Iterator[str]:
    """Running statistics of prompts that never have as many rewards as these need."""
    credit = recipe.credit
    if not isinstance(credit, RunningConfig):
        return
    met = Counter(p.text for step in range(recipe.steps) for p in mixture.draw(step, recipe.groups))
    most = max(met.values()) * recipe.group_size
    if most < credit.least:
        yield (
            f"no prompt has credit.least={credit.least} rewards in {recipe.steps} steps (the most is {most}), so every "
            "advantage is over the whole step; draw fewer prompts (prompts.NAME.count), or more steps"
        )
