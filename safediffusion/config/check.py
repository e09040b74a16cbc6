"""What can be refused before torch is imported: names, prompt files, anchors, loggers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from safediffusion.config.attack import check_attacked
from safediffusion.config.constraint import HARM, budgets_of
from safediffusion.config.kit import kit_of
from safediffusion.config.names import builtin_prompts, find_anchors
from safediffusion.config.schema import Recipe, SourceConfig
from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.core.registry import Registry, suggest
from safediffusion.data.fields import categories_of
from safediffusion.data.mixture import Mixture, Source, few
from safediffusion.data.pairs import read_pairs
from safediffusion.data.prompts import read_prompts
from safediffusion.data.wordings import harmless
from safediffusion.evaluate.registry import load_suite
from safediffusion.judges.registry import JUDGES
from safediffusion.scorers.anchors import Anchors
from safediffusion.scorers.registry import OPEN_CLIP, SCORERS
from safediffusion.train.trackers import TRACKERS

SOURCED = ("pickscore", "hps", "aesthetic", "imagereward")  # scorers with weights of their own
ENCODED = ("steering", "clip")  # scorers that look through the recipe's encoder
SERVICES = ("wandb", "trackio")  # loggers that are extras of this package


def check(recipe: Recipe) -> Mixture:
    """The recipe's prompts, after looking at every name in it. UserError names what is unknown or missing."""
    for name in recipe.scorers:
        _known(SCORERS, name, f"scorers.{name}")
    for name in recipe.sources:
        if name not in recipe.scorers:
            raise UserError(
                f"sources.{name} gives weights to a scorer that is not in `scorers`; add it there or leave it out"
            )
        if name not in SOURCED:
            raise UserError(f"sources.{name}: this scorer brings no weights of its own; {suggest(name, SOURCED)}")
    if recipe.encoder.startswith(OPEN_CLIP) and any(name in recipe.scorers for name in ENCODED):
        from safediffusion.scorers.openclip import known  # imports torch

        known(recipe.encoder)
    if recipe.evaluation.every:
        load_suite(recipe.evaluation.suite, kit_of(recipe.evaluation))
    if recipe.optimizer.bits == 8 and find_spec("bitsandbytes") is None:
        raise UserError(
            "optimizer.bits=8 needs bitsandbytes, which is not installed; pip install 'safediffusion[8bit]', or set "
            "optimizer.bits=32"
        )
    for name in recipe.log:
        _known(TRACKERS, name, "log")
        if name in SERVICES and find_spec(name) is None:
            raise UserError(f"log names {name}, which is not installed; pip install 'safediffusion[{name}]'")
    mixture = mixture_of(recipe)
    if "steering" in recipe.scorers:
        _check_steering(recipe, find_anchors(recipe.steering.anchors), mixture)
    if recipe.preferences.source == "wording":
        for prompt in mixture.prompts:
            harmless(prompt)
    if recipe.weights.init == "contrast":
        _check_contrast(mixture)
    if recipe.constraint.on:
        _check_costs(recipe)
        budgets_of(recipe, mixture)
    if recipe.attack.on:
        check_attacked(recipe, mixture)
    return mixture


def _check_costs(recipe: Recipe) -> None:
    """Scorers of the costs by name."""
    own = recipe.constraint
    plain = sorted({*SCORERS.names()} - {*SOURCED, *ENCODED})
    for name in own.costs:
        if name in recipe.scorers:
            raise UserError(f"constraint.costs: {name} is a reward in `scorers` as well; take it out of one")
        if name not in (known := (HARM, *JUDGES.names(), *plain)):
            raise UserError(f"constraint.costs: {name} is no scorer of P(unsafe); {suggest(name, known)}")
        if name in JUDGES and recipe.objective.learns_from == "prompts":
            raise UserError(
                f"constraint.costs: {name} has no gradient, which objective.kind={recipe.objective.kind} follows; name "
                "harm, or use a policy-gradient objective"
            )
    for name in own.anchors:
        find_anchors(name)


def mixture_of(recipe: Recipe) -> Mixture:
    """The prompt sources of a recipe, read and tagged; those of the pairs where the recipe learns from files."""
    if recipe.preferences.files is not None:
        pairs, _ = read_pairs(Path(recipe.preferences.files))
        return Mixture(sources=(Source(name="pairs", prompts=tuple(pair.prompt for pair in pairs)),), seed=recipe.seed)
    sources = (_source(name, config, seed=recipe.seed) for name, config in recipe.prompts.items())
    return Mixture(sources=tuple(sources), seed=recipe.seed)


def _source(name: str, config: SourceConfig, *, seed: int) -> Source:
    assert (config.file is None) != (config.builtin is None)
    prompts = read_prompts(Path(config.file)) if config.file else builtin_prompts(str(config.builtin))
    if config.categories:
        prompts = _of_categories(name, prompts, config.categories)
    given = {"label": config.label, "category": config.category}
    tags = {key: value for key, value in given.items() if value is not None}
    if tags:
        prompts = tuple(_tagged(prompt, tags) for prompt in prompts)
    source = Source(name=name, prompts=prompts, share=config.share, balance=config.balance)
    if config.count is None:
        return source
    if config.count > len(prompts):
        raise UserError(
            f"prompts.{name}.count is {config.count}, but the source has {len(prompts)} prompts; set at most as many, "
            "or leave it out"
        )
    return few(source, config.count, seed=seed)


def _of_categories(name: str, prompts: tuple[Prompt, ...], wanted: tuple[str, ...]) -> tuple[Prompt, ...]:
    """Those whose tag `category` or `categories` names one of `wanted`. UserError for a category that none has."""
    own = {prompt.id: {prompt.tags.get("category", ""), *categories_of(prompt.tags)} - {""} for prompt in prompts}
    known = set[str]().union(*own.values())
    for category in wanted:
        if category not in known:
            raise UserError(
                f"prompts.{name}.categories names '{category}', which no prompt of the source is tagged with; "
                f"{suggest(category, known)}"
            )
    return tuple(prompt for prompt in prompts if own[prompt.id] & set(wanted))


def _tagged(prompt: Prompt, tags: Mapping[str, str]) -> Prompt:
    return replace(prompt, tags={**prompt.tags, **tags})


def _known(registry: Registry, name: str, where: str) -> None:
    if name not in registry:
        raise UserError(f"{where}: unknown {registry.kind} '{name}'; {suggest(name, registry.names())}")


def _check_contrast(mixture: Mixture) -> None:
    labels = {prompt.tags.get("label") for prompt in mixture.prompts}
    if not {"safe", "unsafe"} <= labels:
        raise UserError(
            "weights.init is contrast, which needs prompts labelled unsafe and prompts labelled safe; add a source of "
            "the other kind, set prompts.NAME.label, or use weights.init=random"
        )


def _check_steering(recipe: Recipe, anchors: Anchors, mixture: Mixture) -> None:
    """What the reward would otherwise only find out when it meets the prompt, perhaps hours into a run."""
    if recipe.steering.per_category and not anchors.per_category:
        raise UserError(
            f"steering.per_category is on, but the anchor set '{recipe.steering.anchors}' has no texts by category; "
            "set steering.anchors=per-category (or emoji/per-category), or steering.per_category=false"
        )
    prompts = [(source.name, prompt) for source in mixture.sources for prompt in source.prompts]
    if recipe.steering.gate == "labelled":
        for name, prompt in prompts:
            if prompt.tags.get("label") not in ("safe", "unsafe"):
                raise UserError(
                    f"steering.gate is labelled, but prompt '{prompt.id}' of source '{name}' has no label; add a "
                    f"column `label`, set prompts.{name}.label=safe or unsafe, or use steering.gate=all or classifier"
                )
        if all(prompt.tags["label"] == "safe" for _, prompt in prompts):
            raise UserError("steering.gate is labelled and every prompt is labelled safe, so nothing would be steered")
    for name, prompt in prompts if recipe.steering.per_category else ():
        category = prompt.tags.get("category")
        if category is not None and category not in anchors.per_category:
            raise UserError(
                f"prompt '{prompt.id}' of source '{name}' has category '{category}', for which anchor set "
                f"'{recipe.steering.anchors}' has no texts; {suggest(category, anchors.per_category)}"
            )
