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
from safediffusion.config.objectives import (
    AwmConfig,
    FlowDppoConfig,
    GrpoConfig,
    ObjectiveConfig,
    PrdpConfig,
    RwrConfig,
)
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
    yield from _unread_calibration(recipe)
    yield from _unread_clip(objective)
    if recipe.weights.kind == "full":
        why = "weights.kind=full trains every weight and has no adapter"
        yield Unread("weights", ("rank", "alpha", "targets", "within"), why, ", or set weights.kind=lora")
    if recipe.optimizer.decay == "constant":
        yield Unread("optimizer", ("hold",), "optimizer.decay=constant never falls", ", or set optimizer.decay=cosine")
    if not recipe.scorers:
        why = "nothing is rewarded (`scorers` is empty), so the guard stops only a collapse"
        yield Unread("guard", ("patience",), why)
    if plan.guidance == 1:
        yield Unread("plan", ("keep_unconditional_grad",), "plan.guidance=1 has no unconditional branch")
    if len(constraint.costs) == 1 and (constraint.costs[0] in JUDGES or SCORERS.ships(constraint.costs[0])):
        why = f"{constraint.costs[0]} is the only cost, and one number has no standard deviation"
        yield Unread("constraint", ("std",), why, ", or name a second scorer in constraint.costs")
    if constraint.on and recipe.preferences.source == "rollouts":
        why = "costs are measured in the pictures that training draws"
        yield Unread("constraint", ("probe",), why)
    yield from _unread_steering(recipe)


def _unread_calibration(recipe: Recipe) -> Iterator[Unread]:
    """A direction is measured where there is one and pictures of it; what is fitted as harm always is."""
    fitted, pictures = HARM in (*recipe.constraint.costs, recipe.attack.goes_by), recipe.calibration.pictures
    if not fitted and "steering" not in recipe.scorers:
        keys = ("min_auc",) if pictures is None else ("pictures", "min_auc")
        yield Unread("calibration", keys, "`scorers` has no steering and nothing is fitted as harm")
    elif not fitted and pictures is None:
        why = "calibration.pictures is null, so no direction is measured"
        yield Unread("calibration", ("min_auc",), why, ", or set calibration.pictures to labelled pictures")


def _unread_clip(objective: ObjectiveConfig) -> Iterator[Unread]:
    """Where a step's only update starts at the old policy there is nothing to clip."""
    if objective.updates > 1:
        return
    if isinstance(objective, GrpoConfig | FlowDppoConfig | AwmConfig) and objective.anchor != "rollout":
        key = "divergence" if isinstance(objective, FlowDppoConfig) else "clip"
        why = f"objective.anchor={objective.anchor} with one update a step makes every ratio exactly 1"
        yield Unread("objective", (key,), why, ", or set objective.anchor=recompute and objective.updates=2")
    if isinstance(objective, PrdpConfig):
        why = "the only update of a step starts at the old policy"
        yield Unread("objective", ("clip",), why, ", or set objective.updates to 2 or more")


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
