"""From a recipe to the parts that its words name one by one: weights, plan, credit, objective."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from safediffusion.config.credits import CREDIT_KINDS, CreditConfig
from safediffusion.config.fields import Kinds, own_keys
from safediffusion.config.objectives import OBJECTIVE_KINDS, FocusNFixConfig, ObjectiveConfig
from safediffusion.config.regions import with_region
from safediffusion.config.schema import PlanConfig, Recipe
from safediffusion.core.fleet import Fleet
from safediffusion.credit.base import Credit
from safediffusion.credit.registry import CREDITS
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.dynamics import Cps, DanceSde, Ddim, Dynamics, FlowSde
from safediffusion.diffusion.windows import Windows
from safediffusion.models.banks import LoraSpec
from safediffusion.models.policy import Drawing, Saving
from safediffusion.objectives.base import Objective
from safediffusion.objectives.direct import Direct
from safediffusion.objectives.kto import DiffusionKto
from safediffusion.objectives.registry import OBJECTIVES
from safediffusion.objectives.through_steps import ThroughSteps


def lora_spec(recipe: Recipe) -> LoraSpec | None:
    """None when all weights are trained."""
    weights = recipe.weights
    if weights.kind == "full":
        return None
    return LoraSpec(
        rank=weights.rank, alpha=weights.alpha, targets=weights.targets, within=weights.within, seed=recipe.seed
    )


def build_plan(recipe: Recipe) -> Plan:
    plan = recipe.plan
    return Plan(
        steps=plan.steps,
        guidance=plan.guidance,
        dynamics=build_dynamics(plan),
        window=plan.window,
        keep_unconditional_grad=plan.keep_unconditional_grad,
    )


def build_windows(recipe: Recipe) -> Windows:
    return Windows(moves=recipe.plan.window_moves, every=recipe.plan.window_every, seed=recipe.seed)


def build_dynamics(plan: PlanConfig) -> Dynamics:
    if plan.dynamics == "ddim":
        return Ddim(1.0 if plan.eta is None else plan.eta)
    named: dict[str, type[FlowSde | DanceSde | Cps]] = {"flow-sde": FlowSde, "dance-sde": DanceSde, "cps": Cps}
    made = named[plan.dynamics]
    return made() if plan.level is None else made(plan.level)


def build_saving(recipe: Recipe) -> Saving:
    return Saving(**asdict(recipe.memory))


def build_drawing(recipe: Recipe) -> Drawing:
    return Drawing(size=recipe.plan.size, embedded_guidance=recipe.plan.embedded_guidance)


def build_credit(recipe: Recipe) -> Credit:
    """Its kind's own keys are its arguments; a plug-in is made with the scores' weights alone."""
    made: Credit = CREDITS.get(recipe.credit.kind)(weights=recipe.scorers, **_own(recipe.credit, CREDIT_KINDS))
    return made


def build_objective(recipe: Recipe, *, fleet: Fleet = Fleet()) -> Objective[Any, Any]:  # noqa: B008
    """Its kind's own keys are its arguments; a plug-in is made without any."""
    own = _own(recipe.objective, OBJECTIVE_KINDS)
    if isinstance(recipe.objective, FocusNFixConfig):
        own = with_region(own)
    made: Objective[Any, Any] = OBJECTIVES.get(recipe.objective.kind)(**own)
    if isinstance(made, Direct) and recipe.constraint.finished:
        made = replace(made, finish=True)
    if isinstance(made, ThroughSteps):
        made.fits(recipe.plan.steps)
    if isinstance(made, DiffusionKto):
        return replace(made, batch=recipe.objective.micro, fleet=fleet)
    return made


def _own(config: ObjectiveConfig | CreditConfig, kinds: Kinds) -> dict[str, Any]:
    """The keys that only this kind has, with their values."""
    return {name: getattr(config, name) for name in own_keys(type(config), kinds.base)}
