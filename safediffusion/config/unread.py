"""Keys that a recipe has but does not read, given its other keys. No torch.

Only what somebody says is refused, not what is inherited: a recipe that changes `objective.kind` or `scorers` need not
take back what the recipe below it says for its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, NamedTuple

from safediffusion.config.attack import SAFETY
from safediffusion.config.constraint import HARM
from safediffusion.config.credits import CreditConfig, WeightedConfig
from safediffusion.config.fields import own_keys
from safediffusion.config.objectives import RwrConfig
from safediffusion.core.errors import UserError
from safediffusion.judges.registry import JUDGES
from safediffusion.scorers.registry import SCORERS

if TYPE_CHECKING:
    from safediffusion.config.schema import Recipe


class Unread(NamedTuple):
    section: str
    keys: tuple[str, ...]
    why: str
    instead: str = ""  # what makes them count, if anything does, as it ends the message


def check_read(recipe: Recipe, given: Mapping[str, object], *, defaults: bool) -> None:
    """UserError for a key of `given` that `recipe` does not read; `defaults`: even if it says what is the default."""
    for section, keys, why, instead in unread(recipe):
        said, own = given.get(section), getattr(recipe, section)
        for key in keys:
            changed = defaults or getattr(own, key) != getattr(type(own)(), key)
            if isinstance(said, Mapping) and key in said and changed:
                raise UserError(f"{section}.{key} is {said[key]}, but {why}; leave it out{instead}")


def unread(recipe: Recipe) -> Iterator[Unread]:
    """What objectives, scorers and settings leave aside."""
    objective, credit, plan, constraint = recipe.objective, recipe.credit, recipe.plan, recipe.constraint
    kind, plugin = f"objective.kind={objective.kind}", type(credit) is CreditConfig  # that may have its own scalar
    if not objective.advantages and not plugin:
        keys = ("kind", *own_keys(type(credit), CreditConfig))
        yield Unread("credit", keys, f"{kind} reads the weighted sum of the scores and no advantages")
    elif isinstance(credit, WeightedConfig) and credit.std == "none":
        yield Unread("credit", ("eps",), "credit.std=none divides by nothing", ", or set credit.std=group or batch")
    if isinstance(objective, RwrConfig):
        key, other = ("share", "top") if objective.weighting == "exp" else ("temperature", "exp")
        why = f"objective.weighting={objective.weighting} has none"
        yield Unread("objective", (key,), why, f", or set objective.weighting={other}")
    if plan.window_moves != "sliding":
        why = f"plan.window_moves={plan.window_moves} has no such pace"
        yield Unread("plan", ("window_every",), why, ", or set plan.window_moves=sliding")
    if recipe.calibration.pictures is not None and not _measures_direction(recipe):
        yield Unread("calibration", ("pictures",), "`scorers` has no steering and nothing is fitted as harm")
    if recipe.optimizer.decay == "constant":
        yield Unread("optimizer", ("hold",), "optimizer.decay=constant never falls", ", or set optimizer.decay=cosine")
    if not recipe.scorers:
        why = "nothing is rewarded (`scorers` is empty), so the guard stops only a collapse"
        yield Unread("guard", ("patience",), why)
    if len(constraint.costs) == 1 and (constraint.costs[0] in JUDGES or SCORERS.ships(constraint.costs[0])):
        why = f"{constraint.costs[0]} is the only cost, and one number has no standard deviation"
        yield Unread("constraint", ("std",), why, ", or name a second scorer in constraint.costs")
    yield from _unread_steering(recipe)


def _measures_direction(recipe: Recipe) -> bool:
    return "steering" in recipe.scorers or HARM in (*recipe.constraint.costs, recipe.attack.goes_by)


def _unread_steering(recipe: Recipe) -> Iterator[Unread]:
    """Of the score `steering`, by the scorers and an attack; harm borrows its anchors."""
    own, searched, constraint = recipe.steering, recipe.attack.goes_by, recipe.constraint
    if "steering" in recipe.scorers or searched == SAFETY:
        if own.alpha != "auto":
            why = f"it is for steering.alpha=auto, and steering.alpha is {own.alpha:g}"
            yield Unread("steering", ("alpha_ratio",), why, ", or set steering.alpha=auto")
        if own.labels is None:
            yield Unread("steering", ("label_prior",), "there are no steering.labels", ", or set those")
        return
    borrowed = (HARM in constraint.costs or searched == HARM) and not constraint.anchors
    keys = tuple(f.name for f in fields(own) if not (borrowed and f.name == "anchors"))
    yield Unread("steering", keys, "`scorers` has no steering", ", or add it there, e.g. scorers.steering=1")
