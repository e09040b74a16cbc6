"""From the section `constraint` of a recipe to the scorers of its costs and the credit that keeps its budgets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, pstdev

import torch

from safediffusion.config.constraint import HARM, budgets_of
from safediffusion.config.judged import load_judged
from safediffusion.config.labelled import load_pictures
from safediffusion.config.names import find_anchors
from safediffusion.config.schema import Recipe
from safediffusion.core.errors import UserError
from safediffusion.core.stats import auc
from safediffusion.credit.base import Credit
from safediffusion.credit.constraint import Constrained, Rule
from safediffusion.data.mixture import Mixture
from safediffusion.judges.registry import JUDGES
from safediffusion.scorers.anchors import Anchors
from safediffusion.scorers.base import Scorer
from safediffusion.scorers.clip import Encoder
from safediffusion.scorers.harm import COMMON, Fitted, Harm, fit
from safediffusion.scorers.labelled import Pictures, embed
from safediffusion.scorers.steering import direction

Device = torch.device | str


def constrain(recipe: Recipe, mixture: Mixture, credit: Credit, scorers: Sequence[Scorer]) -> Credit:
    """`credit` under the recipe's budgets, or as it is where there are none; `scorers` are all of the recipe's."""
    own = recipe.constraint
    if not own.on:
        return credit
    return Constrained(
        credit=credit,
        costs=tuple(scorer.name for scorer in scorers if scorer.name not in recipe.scorers),
        budgets=budgets_of(recipe, mixture),
        std=own.std,
        rule=Rule(rho=own.rho, eta=own.eta, ema=own.ema, bound=math.inf if own.bound is None else own.bound),
    )


def unreachable(recipe: Recipe, mixture: Mixture, scorers: Sequence[Scorer]) -> Iterator[str]:
    """Budgets that `harm`, where it is the only cost, has even safe pictures above."""
    own = recipe.constraint
    harm = next((each for each in scorers if isinstance(each, Harm)), None)
    if harm is None or own.costs != (HARM,):
        return
    for category, budget in budgets_of(recipe, mixture).items():
        found = harm.on_safe(category)
        least = fmean(found) + own.std * pstdev(found)
        if least > budget:
            yield (
                f"harm's cost of the safe labelled pictures is about {least:.1%} for {category}, above its budget of "
                f"{budget:.1%}, which training will not reach; set constraint.budgets above it, or another cost"
            )


def build_cost(name: str, recipe: Recipe, encoder: Callable[[], Encoder], device: Device) -> Scorer | None:
    """The scorer of P(unsafe) by that name, None for one that is neither `harm` nor a judge."""
    own = recipe.constraint
    if name == HARM:
        return build_harm(recipe, encoder())
    if name not in JUDGES:
        return None
    return load_judged(name, own.sources, own.encoders, device=device)


def build_harm(recipe: Recipe, encoder: Encoder) -> Harm:
    """Of every anchor set one member for its common direction, and one for its categories' own where it has some."""
    own = recipe.constraint
    source = own.pictures or recipe.calibration.pictures
    assert source is not None, "checked with the recipe"
    pictures = load_pictures(source)
    z = embed(encoder, pictures.images)
    least = 0.0 if recipe.calibration.allow_weak_direction else recipe.calibration.min_auc
    members: dict[str, dict[str, Fitted]] = {}
    for name in own.anchors or (recipe.steering.anchors,):
        anchors = find_anchors(name)
        common = _fitted(encoder, anchors, pictures, z, least=least)
        members[f"{name} common"] = {COMMON: common}
        parts = {
            category: _fitted(encoder, each, pictures, z, category=category, least=least)
            for category, each in anchors.per_category.items()
            if category in pictures.categories
        }
        if parts:
            members[f"{name} own"] = {COMMON: common, **parts}
    return Harm(encoder=encoder, members=members)


def _fitted(
    encoder: Encoder, anchors: Anchors, pictures: Pictures, z: torch.Tensor, *, category: str = COMMON, least: float
) -> Fitted:
    """Safe pictures against the unsafe ones, of one category where that is given."""
    kept = torch.tensor([each is None or not category or each == category for each in pictures.categories])
    unsafe = torch.tensor([each is not None for each in pictures.categories])[kept]
    found = fit(direction(encoder, anchors).cpu(), z[kept], unsafe)
    p = found(z[kept])
    told = auc(p[unsafe].tolist(), p[~unsafe].tolist()) if found.slope < 0 else 0.0
    if told < least:
        raise UserError(
            f"harm{f' of {category}' if category else ''} tells unsafe pictures from safe ones with AUC {told:.3f}, "
            f"below calibration.min_auc={least}, so its cost would say little; use other anchors or another encoder, "
            "or train all the same with calibration.allow_weak_direction=true"
        )
    return found
