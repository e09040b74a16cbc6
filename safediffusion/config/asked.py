"""From a recipe to what asks for pictures beside its prompt sources: active choice, and the attacker."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from safediffusion.collect.attacker import Attacker, Budget, Harmfulness
from safediffusion.collect.disputed import Disputed
from safediffusion.collect.pool import Pool
from safediffusion.config.attack import SAFETY
from safediffusion.config.constrained import build_cost
from safediffusion.config.parts import build_plan
from safediffusion.config.schema import Recipe
from safediffusion.config.scorers import SharedEncoder, build_scorer
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.data.attack import Material, read_words, words_of
from safediffusion.data.mixture import Mixture, PromptSource
from safediffusion.diffusion.denoise import Plan
from safediffusion.models.load import split
from safediffusion.models.policy import Policy, Weights
from safediffusion.scorers.base import Scorer

Device = torch.device | str


class Asked(NamedTuple):
    """Where prompts come from: `source`, of which the others are parts where there are any."""

    source: PromptSource
    disputed: Disputed | None = None
    pool: Pool | None = None


def build_asked(recipe: Recipe, mixture: Mixture, scorers: Sequence[Scorer]) -> Asked:
    """The mixture, then what is chosen actively, then what an attacker found."""
    active, attack = recipe.active, recipe.attack
    disputed = pool = None
    if active.by != "random":
        safer = {scorer.name: scorer.higher_is_better for scorer in scorers}
        disputed = Disputed(
            source=mixture,
            prompts=mixture.prompts,
            scores={name: safer[name.partition("/")[0]] for name in active.scores},
            by=active.by,
            share=active.share,
            seed=recipe.seed,
        )
    source = disputed or mixture
    if attack.on:
        pool = Pool(source=source, room=attack.pool, share=attack.share, seed=recipe.seed)
    return Asked(pool or source, disputed, pool)


def build_attacker(
    recipe: Recipe, mixture: Mixture, pool: Pool, harm: Harmfulness, policy: Policy, *, fleet: Fleet
) -> Attacker:
    """Its parents are the prompts labelled unsafe, what it joins them with those labelled safe."""
    prompts, own = mixture.prompts, recipe.attack
    unsafe = {prompt.text: prompt for prompt in prompts if prompt.tags.get("label") == "unsafe"}
    words = {
        "none": lambda: (),
        "prompts": lambda: words_of(prompt.text for prompt in prompts),
        "model": policy.words,
    }.get(own.vocabulary, lambda: read_words(Path(own.vocabulary)))()
    if own.sweep > len(words):
        raise UserError(
            f"attack.sweep is {own.sweep}, but attack.vocabulary={own.vocabulary} has {len(words)} words; set "
            "attack.sweep to at most that"
        )
    if own.base_pictures:
        policy.allocate(frozenset({Weights.REFERENCE}))
    return Attacker(
        pool=pool,
        parents=tuple(unsafe.values()),
        material=Material(
            words=tuple(words),
            harmless=tuple(dict.fromkeys(p.text for p in prompts if p.tags.get("label") == "safe")),
        ),
        harm=harm,
        plan=attack_plan(recipe),
        budget=budget_of(recipe),
        excluded=_excluded(recipe),
        batch=recipe.rollout_batch,
        seed=recipe.seed,
        fleet=fleet,
    )


def build_harmfulness(recipe: Recipe, scorers: Sequence[Scorer], device: Device) -> Harmfulness:
    """The score that the attacker goes by: the recipe's own where it has that one."""
    name, term = ("steering", "safety") if recipe.attack.score == SAFETY else (recipe.attack.score, None)
    there = next((scorer for scorer in scorers if scorer.name == name), None)
    if there is None:
        shared = SharedEncoder(recipe.encoder, device)
        there = build_cost(name, recipe, shared, device) or build_scorer(name, recipe.steering, shared)
    return Harmfulness(there, term)


def attack_plan(recipe: Recipe) -> Plan:
    """Training's guidance, few deterministic steps."""
    plan = build_plan(recipe)
    return replace(plan, steps=recipe.attack.steps, dynamics=plan.dynamics.deterministic(), window=None)


def budget_of(recipe: Recipe) -> Budget:
    own = recipe.attack
    return Budget(
        every=own.every,
        candidates=own.candidates,
        rounds=own.rounds,
        keep=own.keep,
        pictures=own.pictures,
        sweep=own.sweep,
        crosses=own.crosses,
        least=-math.inf if own.least is None else own.least,
        base_pictures=own.base_pictures,
        base_least=-math.inf if own.base_least is None else own.base_least,
    )


def attack_forwards(recipe: Recipe, mixture: Callable[[], Mixture], *, processes: int) -> int:
    """Network evaluations of all searches of a run that always find new prompts; 0 without an attack."""
    if not recipe.attack.on:
        return 0
    parents = {p.text for p in mixture().prompts if p.tags.get("label") == "unsafe"}
    budget = budget_of(recipe)
    searches = sum(budget.searches(step) for step in range(recipe.steps))
    first = replace(budget, keep=min(budget.keep, len(parents)))
    each = [replace(first, crosses=0), *[first] * searches][:searches]  # the first has no find to cross with
    return sum(one.forwards(attack_plan(recipe), processes=processes) for one in each)


def _excluded(recipe: Recipe) -> Callable[[str], bool]:
    """Texts of held-out evaluation, where the embedded world's model or prompts are used."""
    sources = (config.builtin or "" for config in recipe.prompts.values())
    if split(recipe.model)[0] == "emoji" or any(name.startswith("emoji/") for name in sources):
        from safediffusion.worlds.emoji.reserved import reserved

        return reserved
    return lambda text: False
