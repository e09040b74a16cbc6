"""From a recipe to the objects that train: with `config.scorers` the one place that knows every class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.amp import GradScaler

from safediffusion.collect.attacker import Attacked, Attacker
from safediffusion.config.asked import build_asked, build_attacker, build_harmfulness
from safediffusion.config.check import check
from safediffusion.config.collectors import Source, accounted, build_collector, build_critic, preferring
from safediffusion.config.constrained import unreachable
from safediffusion.config.files import local_files
from safediffusion.config.guarding import build_guard
from safediffusion.config.kit import kit_of
from safediffusion.config.labelled import load_pictures
from safediffusion.config.load import parse_recipe, to_plain
from safediffusion.config.notes import notes
from safediffusion.config.parts import build_drawing, build_objective, build_plan, build_saving, lora_spec
from safediffusion.config.schema import Recipe
from safediffusion.config.scorers import build_scorers
from safediffusion.core.digest import sha256
from safediffusion.core.fleet import Fleet
from safediffusion.core.prompt import Prompt
from safediffusion.core.provenance import weight_hashes
from safediffusion.data.mixture import Mixture
from safediffusion.evaluate.generate import Options
from safediffusion.evaluate.registry import load_suite
from safediffusion.evaluate.run import evaluate
from safediffusion.models.banks import FullSpec
from safediffusion.models.load import default_plan, load_policy, resolve, split, weights_file
from safediffusion.models.policy import Policy, Weights
from safediffusion.scorers.steering import Steering
from safediffusion.train import contrast
from safediffusion.train.calibrate import DirectionReport, check_direction
from safediffusion.train.contrast import check_adapters, start_from_contrast
from safediffusion.train.loop import Initialize, Trainer
from safediffusion.train.optim import LearningRate, adamw
from safediffusion.train.run import Experiment, Hook

Device = torch.device | str
MAY_CHANGE = frozenset(  # of a run that is resumed
    {
        *("steps", "checkpoint_every", "log", "about", "evaluation", "memory.embeddings", "memory.embeddings_gib"),
        *("guard.every", "guard.stop", "guard.use"),
    }
)


def build_experiment(recipe: Recipe, *, fleet: Fleet | None = None, device: Device = "cpu") -> Experiment[Any, Any]:
    """Everything `train.run.train` needs. UserError when a name, file or number of the recipe cannot work."""
    fleet = fleet or Fleet()
    mixture = check(recipe)
    scorers = build_scorers(recipe, device=device)
    policy = load_policy(
        recipe.model,
        weights=lora_spec(recipe) or FullSpec(fleet=fleet if recipe.weights.shard else None),
        device=device,
        precision=recipe.precision,
        drawing=build_drawing(recipe),
        saving=build_saving(recipe),
    )
    policy.prepare(texts_of(recipe, mixture))
    steering = next((each for each in scorers if isinstance(each, Steering)), None)
    critic = build_critic(recipe, policy, mixture, fleet=fleet)
    asked = build_asked(recipe, mixture, scorers)
    collector, attacker = build_collector(recipe, mixture, scorers, fleet=fleet, critic=critic, asked=asked), None
    if asked.pool is not None:
        harm = build_harmfulness(recipe, scorers, device)
        attacker = build_attacker(recipe, mixture, asked.pool, harm, policy, fleet=fleet)
    return Experiment(
        trainer=build_trainer(recipe, policy, mixture, collector, attacker=attacker),
        steps=recipe.steps,
        checkpoint_every=recipe.checkpoint_every,
        hook=_evaluation(recipe, fleet) if recipe.evaluation.every else None,
        hook_every=recipe.evaluation.every,
        check=None if steering is None or recipe.calibration.pictures is None else _Check(recipe, steering),
        notes=(*notes(recipe, mixture), *unreachable(recipe, mixture, scorers)),
        guard=build_guard(recipe, mixture, scorers, build_plan(recipe), fleet=fleet, device=device),
        trackers=recipe.log,
        config=to_plain(recipe),
        completed=lambda stored: to_plain(parse_recipe(stored)),
        may_change=MAY_CHANGE,
        provenance={
            "rewards": sorted(recipe.scorers),
            "weights": _hashes(recipe.model),
            "data": local_files(recipe),
            **_labels(steering),
            **accounted(recipe),
        },
    )


def texts_of(recipe: Recipe, mixture: Mixture) -> list[str]:
    """Every text that training, and its evaluation where there is one, can ask the model for."""
    texts = [prompt.text for prompt in mixture.prompts]
    settings = recipe.evaluation
    if not settings.every:
        return texts
    return texts + [row.text for row in load_suite(settings.suite, kit_of(settings)).items(settings.limit)]


def build_trainer(
    recipe: Recipe, policy: Policy, mixture: Mixture, collector: Source, *, attacker: Attacker | None = None
) -> Trainer[Any, Any]:
    """What the objective learns from is what the collector makes: their kinds are known when the recipe is read."""
    learned = preferring(recipe, collector)
    optimizer, objective = recipe.optimizer, recipe.objective
    rate = LearningRate(
        peak=optimizer.lr,
        warmup=optimizer.warmup,
        decay=optimizer.decay,
        hold=optimizer.hold,
        total=recipe.steps * objective.updates,
    )
    trainer = Trainer(
        policy=policy,
        collector=learned if attacker is None else Attacked(inner=learned, attacker=attacker),
        objective=build_objective(recipe, fleet=collector.fleet),
        optimizer=adamw(
            policy.parameters(),
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            bits=optimizer.bits,
        ),
        scaler=GradScaler(policy.device.type, enabled=recipe.precision == "fp16"),
        rate=rate,
        initialize=_initialize(recipe, policy, mixture, collector.fleet) if recipe.weights.init == "contrast" else None,
        updates=objective.updates,
        micro=objective.micro,
        max_norm=optimizer.max_norm,
        ema=recipe.ema,
        seed=recipe.seed,
        fleet=collector.fleet,
    )
    if recipe.compile:
        policy.compile()  # now that every set of weights is there
    return trainer


def _initialize(recipe: Recipe, policy: Policy, mixture: Mixture, fleet: Fleet) -> Initialize:
    """Adapters start from what tells the recipe's unsafe prompts from its safe ones, drawn by share and balance."""
    check_adapters(policy)
    prompts = [_first(mixture, label) for label in ("unsafe", "safe")]
    return partial(
        start_from_contrast,
        prompts=prompts,
        plan=build_plan(recipe),
        batch=recipe.rollout_batch,
        seed=recipe.seed,
        fleet=fleet,
    )


def _first(mixture: Mixture, label: str) -> tuple[Prompt, ...]:
    """The first prompts of this label that the mixture's sources give."""
    parts = [
        replace(source, prompts=chosen)
        for source in mixture.sources
        if (chosen := tuple(p for p in source.prompts if p.tags.get("label") == label))
    ]
    count = min(contrast.PROMPTS, sum(len(part.prompts) for part in parts))
    return replace(mixture, sources=tuple(parts)).draw(0, count)


class _Check:
    """Measures the direction when a fresh run starts, on the main settings of `calibration`."""

    def __init__(self, recipe: Recipe, steering: Steering) -> None:
        self._settings, self._steering = recipe.calibration, steering

    def __call__(self) -> DirectionReport:
        settings = self._settings
        assert settings.pictures is not None
        return check_direction(
            self._steering,
            load_pictures(settings.pictures),
            min_auc=settings.min_auc,
            allow_weak=settings.allow_weak_direction,
        )


def _evaluation(recipe: Recipe, fleet: Fleet) -> Hook:
    """Measures the averaged weights where there are any, the live ones elsewhere; pictures stay in the run folder."""
    settings = recipe.evaluation
    which = Weights.LIVE if recipe.ema is None else Weights.EMA
    plan, drawing = default_plan(recipe.model), build_drawing(recipe)

    def hook(policy: Policy, step: int, folder: Path) -> Mapping[str, float]:
        options = Options(
            plan=plan,
            batch=settings.batch,
            limit=settings.limit,
            replace=True,  # what a session left that was stopped before its checkpoint, and came here by other weights
            model={
                "model": recipe.model,
                "run": str(folder),
                "step": str(step),
                **drawing.described(),
                "precision": recipe.precision,
            },
        )
        place = folder / "eval" / f"{settings.suite}-{step:06d}"
        suite = load_suite(settings.suite, replace(kit_of(settings), device=str(policy.device), folder=place))
        with policy.using(which):
            found = evaluate(policy, suite, place, fleet=fleet, options=options)
        return {f"eval/{key}": estimate.value for key, estimate in found.items() if estimate.value is not None}

    return hook


def _labels(steering: Steering | None) -> dict[str, Any]:
    """The labels behind the reward's directions, by category."""
    return {} if steering is None or steering.labels is None else {"labels": steering.labels.counts()}


def _hashes(model: str) -> dict[str, Any]:
    """Of the base's and the added files that lie on this machine; a hub id is named as it is."""
    base, extras = split(model)
    folder = Path(resolve(base))
    found: dict[str, Any] = {"model": model}
    if folder.is_dir():
        found["files"] = weight_hashes(folder)
    return found | ({"added": {extra: sha256(weights_file(extra)) for extra in extras}} if extras else {})
