"""What a recipe is allowed to do and its user may not expect: sentences for the start of a run. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from safediffusion.config.credits import RunningConfig
from safediffusion.config.guard import interval, looks
from safediffusion.config.schema import Recipe
from safediffusion.data.fields import categories_of
from safediffusion.data.mixture import Mixture


def notes(recipe: Recipe, mixture: Mixture) -> Iterator[str]:
    yield from _rarely_met(recipe, mixture)
    yield from _never(recipe)
    yield from _uncounted(recipe, mixture)
    embedded = recipe.model.partition("+")[0] == "emoji"  # whose detector looks
    if looks(recipe) and recipe.guard.encoder is None and not recipe.guard.judges and not embedded:
        yield (
            "the guard sees layout and colour alone, not what is in a picture; name who looks, e.g. "
            "guard.encoder=openai/clip-vit-base-patch32 or guard.judges=[nudenet]"
        )


def _never(recipe: Recipe) -> Iterator[str]:
    """What is asked for and comes after the last step."""
    guard, steps, attack = recipe.guard, recipe.steps, recipe.attack
    if (every := interval(recipe)) > steps:
        yield f"the guard looks every {every} steps, and the run has {steps}, so nothing guards it"
    named = [f"guard.{name}" for name in ("judges", "tolerances") if getattr(guard, name)]
    if named and not every:
        yield f"{' and '.join(named)} are set, but the guard is off (guard.every), so nobody looks"
    if attack.on and attack.every >= steps:
        yield (
            f"attack.every is {attack.every}, and the run has {steps} steps, so nothing is searched: the first "
            "search is before the step after so many"
        )


def _uncounted(recipe: Recipe, mixture: Mixture) -> Iterator[str]:
    """Prompts under no budget although a column says their harm."""
    if not recipe.constraint.on:
        return
    for source in mixture.sources:
        left = sum(prompt.harm is None and bool(categories_of(prompt.tags)) for prompt in source.prompts)
        if left:
            yield (
                f"{left:,} prompts of the source '{source.name}' have `categories` but no `category`, so no budget "
                f"counts them; set prompts.{source.name}.category, or give each a `category`"
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
