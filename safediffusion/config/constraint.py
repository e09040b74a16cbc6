"""The keys of `constraint`: budgets of harm that training must keep, and what measures it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safediffusion.config.fields import key
from safediffusion.config.objectives import PREFERRING, NftConfig, ReflConfig, RwrConfig
from safediffusion.core.errors import UserError
from safediffusion.core.prompt import FOUND
from safediffusion.core.registry import suggest
from safediffusion.judges.registry import JUDGES

if TYPE_CHECKING:
    from safediffusion.config.schema import Recipe
    from safediffusion.data.mixture import Mixture

HARM = "harm"
STEEPEST = 5.0  # a multiplier over rwr's temperature: a picture weighs at most e^5 of one that costs 1 more


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstraintConfig:
    costs: tuple[str, ...] = key(
        (), "scorers that give P(unsafe) of a picture, together an ensemble: harm, judges, plug-ins; [] = no constraint"
    )
    budgets: Mapping[str, float] = key({}, "highest cost by harm category, e.g. {sexual: 0.01}", low=0, high=1)
    budget: float | None = key(None, "that of every other category of the prompts; null = none", low=0, high=1)
    std: float = key(1.0, "weight of the ensemble's standard deviation in the cost, beside its mean", low=0)
    rho: float = key(10.0, "strength of the penalty on the measured excess", low=0)
    eta: float = key(1.0, "step of the multipliers along the measured excess", low=0)
    ema: float = key(0.9, "how much of a category's measured cost stays from step to step", low=0, high=0.9999)
    bound: float | None = key(
        100.0, "what a cost weighs at most beside the reward; null = anything (not for preferences)", low=1e-6
    )
    finished: bool = key(
        False,
        "measure costs in pictures drawn to their end, where the gradient goes through foreseen ones (refl): budgets "
        "of what is drawn, for further forwards and another decoding and scoring of pictures with a category",
    )
    views: int = key(
        0,
        "a cost is that of the worst of so many views of a picture; 0 = their mean, as objective.views says",
        low=0,
    )
    probe: int = key(
        14,
        "pictures that every step draws to measure costs in, where training draws none of the policy's own "
        "(preferences.source=files or wording)",
        low=1,
    )
    anchors: tuple[str, ...] = key((), "anchor sets of harm, an ensemble; [] = that of steering.anchors")
    pictures: str | None = key(
        None, "labelled pictures to fit harm on: emoji, or a folder; null = those of calibration.pictures"
    )
    sources: Mapping[str, str] = key({}, "weights of judges, where those published are not wanted")
    encoders: Mapping[str, str] = key({}, "CLIPs of judges, where those published are not wanted")

    @property
    def on(self) -> bool:
        return bool(self.costs)


def check_constraint(recipe: Recipe) -> None:
    """Options that mean nothing together."""
    own = recipe.constraint
    if not own.on:
        if own != ConstraintConfig():
            raise UserError("`constraint` names no costs, so nothing is measured; set constraint.costs=[harm]")
        return
    if not own.budgets and own.budget is None:
        raise UserError("constraint.costs are measured, but there is no budget; set constraint.budget=0.01")
    for name in (*own.sources, *own.encoders):
        if name not in own.costs:
            raise UserError(f"constraint.sources or encoders names {name}, which is not in constraint.costs; add it")
        if name not in JUDGES:
            raise UserError(
                f"constraint.sources or encoders names {name}, which is no judge and has neither; leave it out"
            )
    if HARM in own.costs and own.pictures is None and recipe.calibration.pictures is None:
        raise UserError(
            "constraint.costs names harm, which is fitted on labelled pictures, but there are none; set "
            "constraint.pictures=emoji or a folder"
        )
    if HARM not in own.costs and (own.anchors or own.pictures):
        raise UserError(
            "constraint.anchors and pictures are for harm, which is not in constraint.costs; leave them out"
        )
    objective = recipe.objective
    if own.finished and not (isinstance(objective, ReflConfig) and objective.early[1] > 0):
        raise UserError(
            f"constraint.finished is for pictures that are left early (refl with early above 0), and objective.kind="
            f"{objective.kind} as set measures finished ones; leave it out"
        )
    if own.views and not getattr(objective, "views", 0):
        raise UserError(
            f"constraint.views is {own.views}, but objective.kind={objective.kind} as set scores pictures themselves; "
            "set objective.views to 1 or more (draft, alignprop and refl have it), or leave constraint.views out"
        )
    if recipe.preferences.by is not None:
        raise UserError(
            f"preferences.by={recipe.preferences.by} compares pictures by that score alone, without their costs; set "
            "preferences.by=null"
        )
    if recipe.objective.samples:
        raise UserError(
            f"objective.kind={recipe.objective.kind} learns its reward from pictures of several steps, under "
            "multipliers that have moved since; leave `constraint` out, or use a policy gradient, refl or draft"
        )
    _check_weights(recipe)
    if recipe.objective.kind in PREFERRING and own.bound is None:
        raise UserError(f"objective.kind={recipe.objective.kind} needs a bounded multiplier; set constraint.bound=100")


def _check_weights(recipe: Recipe) -> None:
    """What a large multiplier would leave of a reward that is cut off, or of pictures that weigh exp(advantage)."""
    objective, bound = recipe.objective, recipe.constraint.bound
    if isinstance(objective, NftConfig) and (bound is None or bound > objective.advantage_max):
        raise UserError(
            f"objective.kind=nft knows advantages up to objective.advantage_max={objective.advantage_max:g}, beyond "
            f"which a multiplier of {'any size' if bound is None else f'{bound:g}'} leaves nothing of the reward; set "
            f"constraint.bound={objective.advantage_max:g} or less, or a larger advantage_max"
        )
    if not isinstance(objective, RwrConfig) or objective.weighting != "exp":
        return
    most = STEEPEST * objective.temperature
    if bound is None or bound > most:
        raise UserError(
            f"objective.kind=rwr weighs pictures by exp(advantage / {objective.temperature:g}), which a multiplier of "
            f"{'any size' if bound is None else f'{bound:g}'} drives beyond all others; set "
            f"constraint.bound={most:g} or less, or objective.weighting=top"
        )


def budgets_of(recipe: Recipe, mixture: Mixture) -> dict[str, float]:
    """Every category's budget. UserError for a category of which no prompt is: nothing would measure it.

    Prompts that an attacker finds are a category more, FOUND, as far as their own is not known.
    """
    own = recipe.constraint
    found = sorted({prompt.tags["category"] for prompt in mixture.prompts if "category" in prompt.tags})
    for name in own.budgets:
        if name not in found and not (recipe.attack.on and name == FOUND):
            raise UserError(
                f"constraint.budgets.{name}: no prompt has this category, so its cost is never measured; "
                f"{suggest(name, found)}"
            )
    if not found:
        raise UserError(
            "constraint.budget is for the categories of prompts, but no prompt has one; add a column `category`, or "
            "set prompts.NAME.category"
        )
    found += [FOUND] if recipe.attack.on else []
    return {name: budget for name in found if (budget := own.budgets.get(name, own.budget)) is not None}
