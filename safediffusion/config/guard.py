"""The keys of a recipe's section `guard`. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from safediffusion.config.fields import key
from safediffusion.config.objectives import FocusNFixConfig
from safediffusion.core.errors import UserError
from safediffusion.core.learned import learned_from
from safediffusion.core.registry import suggest
from safediffusion.judges.registry import JUDGES

if TYPE_CHECKING:
    from safediffusion.config.schema import Recipe

SHARE = 0.05  # of the pictures that training draws, `every: auto` lets the panel draw as many


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardConfig:
    every: int | Literal["auto"] = key(
        "auto",
        "look at the panel after every so many steps; auto = for 5 % of the pictures that training draws; 0 = no guard",
        low=0,
    )
    prompts: int = key(16, "prompts of the panel, of the recipe's own; half of them unsafe where there are both", low=1)
    repeats: int = key(3, "pictures a prompt", low=2)
    stop: bool = key(True, "end training when the reward is bought; false only measures")
    use: Literal["best", "last"] = key(
        "best", "the weights that a run stopped by the guard stands for; may be changed with --resume"
    )
    patience: int = key(2, "looks in a row that must find a measure lost", low=1)
    collapse: float = key(
        0.5, "end training at once when diversity or entropy is surely below this share of the base's", low=0, high=1
    )
    tolerances: Mapping[str, float] = key({}, "by measure, in place of those in docs/guard.md", low=0)
    judges: tuple[str, ...] = key(
        (), "judges that look at the panel (`list judges`), with evaluation.sources and .encoders; never a reward"
    )
    encoder: str | None = key(
        None, "a CLIP that is not the reward's, for features and for how well prompts are followed; null = none"
    )


def looks(recipe: Recipe) -> int:
    """Steps between two looks; 0 where there are none: turned off, too short a run, or `auto` and nothing is drawn."""
    every = interval(recipe)
    return every if every <= recipe.steps else 0


def interval(recipe: Recipe) -> int:
    """Steps between two looks, of a run that is long enough for one; 0 = turned off, or `auto` and nothing is drawn."""
    guard = recipe.guard
    if guard.every == "auto" and recipe.preferences.source == "files":
        return 0  # there are no pictures of training to spare a share of
    often = math.ceil(guard.prompts * guard.repeats / (SHARE * recipe.groups * recipe.group_size))
    return often if isinstance(guard.every, str) else guard.every


def check_guard(recipe: Recipe) -> None:
    """UserError for what cannot guard: a judge or an encoder that is the reward's own, and unknown names."""
    guard = recipe.guard
    region = recipe.objective.region if isinstance(recipe.objective, FocusNFixConfig) else None
    for name in guard.judges:
        if name not in JUDGES:
            raise UserError(f"guard.judges: unknown judge '{name}'; {suggest(name, JUDGES.names())}")
        if name == recipe.attack.goes_by or name in learned_from(recipe.scorers, recipe.constraint.costs, region):
            raise UserError(
                f"guard.judges names {name}, which is in `scorers`, `constraint.costs` or is `objective.region` or "
                "`attack.score`: what is optimised, or chooses prompts, cannot guard; take it out of one"
            )
    for name, tolerance in guard.tolerances.items():
        if not tolerance:
            raise UserError(
                f"guard.tolerances.{name} is 0, of which no share can be used up; for hardly any change set 0.01"
            )
    if guard.encoder is not None and guard.encoder == recipe.encoder:
        raise UserError(
            f"guard.encoder is {guard.encoder}, the reward's own encoder, which cannot guard; name another CLIP or null"
        )
