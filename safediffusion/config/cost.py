"""What a recipe will cost, from its text and the model's configuration files alone: nothing is loaded or trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from safediffusion.collect.base import Volume
from safediffusion.collect.on_policy import starts
from safediffusion.config.asked import attack_forwards
from safediffusion.config.check import ENCODED, SOURCED, mixture_of
from safediffusion.config.collectors import branches, keeps_bare, pairs, pictures_an_item
from safediffusion.config.guard import looks
from safediffusion.config.names import encoder_source
from safediffusion.config.parts import (
    build_drawing,
    build_objective,
    build_plan,
    build_saving,
    build_windows,
    lora_spec,
)
from safediffusion.config.schema import Recipe
from safediffusion.core.errors import UserError
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.schedule import Schedule
from safediffusion.models.architecture import read_architecture
from safediffusion.models.footprint import Load, Memory, measure
from safediffusion.models.policy import Weights
from safediffusion.objectives.base import Objective
from safediffusion.objectives.forward import Forward
from safediffusion.objectives.grpo import PolicyGradient
from safediffusion.scorers.registry import OPEN_CLIP
from safediffusion.train import contrast


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Counts of a whole run over all processes; guidance counts as two forwards. Memory is that of one process.

    Items that nothing can be learned from are passed over, the reference is asked only about prompts that are held to
    it (objective.kl_safe), and a contrast takes fewer prompts where there are fewer: a run may take fewer passes, never
    more.
    """

    steps: int
    images: int
    forwards: int
    once: int  # of them before the first update, for weights.init
    attacks: int  # of them by the searches of an attack
    backwards: int
    guard: int  # forwards of the guard, which are not among `forwards`
    recorded: int  # trainable steps a picture
    direct: bool  # a reward's gradient goes through the steps that draw
    updates: int
    unmeasured: tuple[str, ...]  # networks of scorers that are not in `memory`
    assumed: str | None  # whose published configuration stands in for the model's, which is not on this machine
    measure: Callable[[], Memory] = field(repr=False)  # takes seconds

    @cached_property
    def memory(self) -> Memory:
        """Without the activations of scorers that gradients go through."""
        return self.measure()

    def _trained(self) -> str:
        """What of a picture is learned from."""
        if self.direct:
            return f"gradients of {self.backwards / self.images:.3g} steps"
        if self.recorded:
            return f"{self.recorded} trainable steps"
        return f"{self.backwards // self.images} times of the forward process"

    def lines(self) -> list[str]:
        """For the terminal."""
        memory = self.memory
        told = ", ".join(f"{name} {_size(value)}" for name, value in _parts(memory).items())
        each = self.forwards - self.once - self.attacks
        per = [value // self.steps for value in (self.updates, self.images, each, self.backwards)]
        first = f", {self.once:,} at the start" if self.once else ""
        first += f", {self.attacks:,} to search for attacks" if self.attacks else ""
        lines = [
            f"steps            {self.steps} of {per[0]} update(s)",
            f"images           {self.images:,} ({per[1]:,} a step), {self._trained()} each",
            f"UNet forwards    {self.forwards:,} ({per[2]:,} a step{first})",
            f"UNet backwards   {self.backwards:,} ({per[3]:,} a step)",
            f"peak memory      about {_size(memory.peak)} a process: {told}",
        ]
        if self.guard:
            lines.insert(
                -1, f"guard            {self.guard:,} forwards more ({100 * self.guard / self.forwards:.1f} %)"
            )
        lines += [f"not counted      the encoder {name}: it is not on this machine" for name in memory.uncounted]
        lines += [f"not counted      {name}" for name in self.unmeasured]
        if self.assumed:
            lines.append(
                f"assumed          the published architecture of {self.assumed}: the model is not on this machine"
            )
        return lines


def forecast(recipe: Recipe, *, processes: int = 1) -> Forecast:
    """The cost of `recipe` on this many processes."""
    if recipe.groups % processes:
        raise UserError(f"{recipe.groups} groups a step cannot be divided among {processes} processes")
    architecture = read_architecture(recipe.model)
    plan, objective = build_plan(recipe), build_objective(recipe)
    schedule = architecture.backbone(build_drawing(recipe)).schedule
    volume, sampled = _sampling(recipe, schedule, processes)
    searched = attack_forwards(recipe, partial(mixture_of, recipe), processes=processes)
    recorded = volume.recorded // volume.images
    cost, noisy = objective.forecast(volume), len(volume.plan.stochastic(schedule))
    once = contrast.forwards(plan, noisy, prompts=2 * contrast.PROMPTS) if recipe.weights.init == "contrast" else 0
    return Forecast(
        steps=recipe.steps,
        images=volume.images * recipe.steps,
        once=once,
        attacks=searched,
        forwards=once + sampled + searched + cost.forwards * recipe.steps,
        backwards=cost.backwards * recipe.steps,
        guard=_guard(recipe, plan, processes),
        recorded=recorded,
        direct=recipe.objective.learns_from == "prompts",
        updates=recipe.objective.updates * recipe.steps,
        unmeasured=_unmeasured(recipe),
        assumed=architecture.assumed,
        measure=lambda: measure(architecture, _load(recipe, volume, processes)),
    )


def _guard(recipe: Recipe, plan: Plan, processes: int) -> int:
    """Forwards of all the guard's looks, the one at the base among them."""
    every = looks(recipe)
    if not every:
        return 0
    there = {prompt.text for prompt in mixture_of(recipe).prompts}
    pictures = min(recipe.guard.prompts, len(there)) * recipe.guard.repeats
    return (1 + recipe.steps // every) * plan.shared_forwards(pictures, processes=processes)


def _sampling(recipe: Recipe, schedule: Schedule, processes: int) -> tuple[Volume, int]:
    """What the first step draws, and the network evaluations that drawing takes in the whole run."""
    plan, windows = build_plan(recipe), build_windows(recipe)
    sizes = {"groups": recipe.groups, "group_size": recipe.group_size}
    record = build_objective(recipe).records
    if recipe.objective.learns_from == "prompts":
        images = recipe.groups * recipe.group_size
        first = Volume.of(plan, schedule, **sizes, starts=images, record=False)
        drawn = first.forwards * recipe.steps if recipe.objective.samples else 0
        return first._replace(forwards=0), drawn
    if recipe.preferences.source != "rollouts":
        return _given(recipe, schedule, processes)
    how = {**sizes, "rollout_batch": recipe.rollout_batch, "processes": processes}
    distinct = starts(recipe.plan.noise_sharing, **how)
    places = Counter(windows.of(plan, step).window for step in range(recipe.steps))
    volumes = {
        window: Volume.of(replace(plan, window=window), schedule, **sizes, starts=distinct, record=record)
        for window in places
    }
    first = volumes[windows.of(plan, 0).window]._replace(bare=keeps_bare(recipe), pairs=pairs(recipe))
    return first, sum(volumes[w].forwards * count for w, count in places.items())


def _given(recipe: Recipe, schedule: Schedule, processes: int) -> tuple[Volume, int]:
    """The same of pairs that no score compares: those of files are handed over, not drawn."""
    plan, images = build_plan(recipe), recipe.groups * recipe.group_size
    probe = plan.shared_forwards(recipe.constraint.probe, processes=processes) if recipe.constraint.on else 0
    if recipe.preferences.source == "files":
        return Volume(images, recipe.groups, 0, 0, plan, pairs=pairs(recipe)), probe * recipe.steps
    sizes = {"groups": recipe.groups, "group_size": recipe.group_size}
    volume = Volume.of(plan, schedule, **sizes, starts=images, record=False)._replace(pairs=pairs(recipe))
    return volume, (volume.forwards + probe) * recipe.steps


def _load(recipe: Recipe, volume: Volume, processes: int) -> Load:
    """What the recipe asks of one process's memory."""
    plan, spec, objective = volume.plan, lora_spec(recipe), build_objective(recipe)
    behavior = Weights.BEHAVIOR in objective.needs
    reference = Weights.REFERENCE in objective.needs or recipe.attack.base_pictures > 0
    whole_reference = reference and spec is None and not recipe.memory.reference_on_cpu
    drawn = recipe.objective.learns_from == "prompts" and not recipe.objective.samples
    batch = recipe.objective.micro if drawn else recipe.rollout_batch
    return Load(
        weights=spec,
        copies=int(recipe.ema is not None) + int(behavior) + int(whole_reference),
        precision=recipe.precision,
        micro=recipe.objective.micro * pictures_an_item(recipe),
        graphs=recipe.objective.graphs(volume.recorded // volume.images),
        decodes=drawn,
        further_passes=_further(recipe, objective, volume),
        images=volume.images // processes,
        recorded=volume.recorded // volume.images,
        per_step=2 + (recipe.credit.gae_lambda is not None) + volume.bare + _keeps_mean(objective),
        rollout_batch=min(batch, volume.images // processes),
        guided=plan.branches == 2,
        encoder=None if _foreign(recipe) or not _encodes(recipe) else str(encoder_source(recipe.encoder)),
        drawing=build_drawing(recipe),
        saving=build_saving(recipe),
        moment_bits=recipe.optimizer.bits,
        shares=processes if recipe.weights.shard else 1,
    )


def _further(recipe: Recipe, objective: Objective[Any, Any], volume: Volume) -> int:
    """Forwards without gradient beside the one with it."""
    if isinstance(objective, Forward):
        return objective.further + objective.holds
    return branches(recipe, volume.plan) - 1 - int(volume.bare) + int(Weights.REFERENCE in objective.needs)


def _keeps_mean(objective: Objective[Any, Any]) -> bool:
    """Whether each item has a further latent, the mean of its step before the first update."""
    return isinstance(objective, PolicyGradient) and objective.keeps_mean


def _encodes(recipe: Recipe) -> bool:
    return any(name in recipe.scorers for name in ENCODED)


def _foreign(recipe: Recipe) -> bool:
    return recipe.encoder.startswith(OPEN_CLIP)


def _unmeasured(recipe: Recipe) -> tuple[str, ...]:
    """Networks beside the model's whose size is not read from configurations."""
    encoder = [f"the encoder {recipe.encoder}"] if _encodes(recipe) and _foreign(recipe) else []
    learned = ["the surrogate and its replay"] if recipe.objective.samples else []
    if recipe.objective.learns_from == "prompts" and recipe.scorers:
        learned += ["activations of the scorers that gradients go through"]
    learned += [f"the network of the cost {name}" for name in recipe.constraint.costs]
    eyes = [*recipe.guard.judges, *([] if recipe.guard.encoder is None else [recipe.guard.encoder])]
    learned += [f"the guard's {name}" for name in eyes] if looks(recipe) else []
    return (*encoder, *learned, *(f"the network of scorer {name}" for name in recipe.scorers if name in SOURCED))


def _parts(memory: Memory) -> dict[str, int]:
    """What the peak is made of."""
    work = {"training": memory.training, "sampling": memory.sampling, "decoding": memory.decoding}
    largest = max(work, key=lambda name: work[name])
    step = {
        "gradients and moments": memory.optimizer,
        "recorded steps": memory.rollout,
        largest: work[largest],
    }
    first = {"text encoders before the first step": memory.encoding}
    return {"networks": memory.weights, **(first if memory.encoding > sum(step.values()) else step)}


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
