"""The keys of `active`: which prompts are drawn more often than their sources' shares say. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from safediffusion.config.fields import key
from safediffusion.core.errors import UserError

if TYPE_CHECKING:
    from safediffusion.config.schema import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveConfig:
    by: Literal["random", "ranks", "probabilities"] = key(
        "random",
        "random: by the sources' shares alone; else prompts on whose last pictures `scores` disagree come more often, "
        "by the pictures' ranks in their step or by the scores themselves, each P(unsafe)",
    )
    scores: tuple[str, ...] = key((), "two scores or more, e.g. [steering/safety, emoji-moderator]")
    share: float = key(0.5, "of the prompts of a step, how many are chosen so", low=0, high=1)

    @property
    def on(self) -> bool:
        return self.by != "random"


def check_active(recipe: Recipe) -> None:
    """Options that mean nothing together, and scores that nobody measures."""
    own = recipe.active
    if not own.on:
        if own != ActiveConfig():
            raise UserError("`active` is set, but active.by is random, which looks at no score; set active.by=ranks")
        return
    if len(set(own.scores)) < 2:
        raise UserError(
            f"active.by={own.by} compares scores, and active.scores has {len(set(own.scores))}; name two or more, e.g. "
            "[steering/safety, emoji-moderator]"
        )
    there = (*recipe.scorers, *recipe.constraint.costs)
    for name in own.scores:
        if name.partition("/")[0] not in there:
            raise UserError(
                f"active.scores names {name}, which is measured neither by `scorers` nor by `constraint.costs` "
                f"({', '.join(there)}); add it, in `scorers` with weight 0 if it is to be no reward"
            )
    if recipe.constraint.finished:
        raise UserError(
            "constraint.finished scores pictures of harm categories alone, and active chooses among all prompts; leave "
            "one of them out"
        )
    if recipe.preferences.source != "rollouts":
        raise UserError(
            f"active chooses prompts by scores, but preferences.source={recipe.preferences.source} scores no picture; "
            "set active.by=random"
        )
