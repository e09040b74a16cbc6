"""What keys of a recipe exclude each other or mean nothing together; each refusal says what to set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safediffusion.config.credits import WeightedConfig
from safediffusion.config.objectives import (
    FINISHED,
    PAIRED,
    PREFERRING,
    AwmConfig,
    DirectConfig,
    ForwardConfig,
    HeldConfig,
)
from safediffusion.core.errors import UserError
from safediffusion.core.registry import suggest

if TYPE_CHECKING:
    from safediffusion.config.schema import PlanConfig, Recipe


def check_experience(recipe: Recipe) -> None:
    """Options that the objective's kind cannot use."""
    kind, plan = f"objective.kind={recipe.objective.kind}", recipe.plan
    if not recipe.objective.advantages and recipe.credit.gae_lambda is not None:
        raise UserError(f"credit.gae_lambda shares out advantages, which {kind} does not read; set it to null")
    if recipe.objective.learns_from == "rollouts":
        _check_group(recipe)
        return
    if recipe.steering.alpha == "auto" and "steering" in recipe.scorers and not recipe.objective.samples:
        raise UserError(
            f"steering.alpha is auto, which is measured on a first rollout, but {kind} has none; give it a number, "
            "e.g. the `steering/alpha` that a run of objective.kind=grpo logs"
        )
    if plan.noise_sharing != "fresh":
        raise UserError(
            f"plan.noise_sharing is {plan.noise_sharing}, but {kind} compares no pictures; set plan.noise_sharing=fresh"
        )
    if plan.window_moves != "fixed" or recipe.overlap or recipe.weights.shard:
        raise UserError(
            f"{kind} draws and learns in one go; set plan.window_moves=fixed, overlap=false and weights.shard=false"
        )
    if recipe.compile and recipe.memory.checkpointing and recipe.weights.kind == "lora" and _held(recipe):
        raise UserError(
            f"compile=true and memory.checkpointing=true: {kind} holds pictures to the reference, whose adapters are "
            "off and cannot be turned off again in a compiled backward pass; set one of them to false"
        )


def _held(recipe: Recipe) -> bool:
    """Whether gradients go through the reference, too."""
    objective = recipe.objective
    if not isinstance(objective, DirectConfig):
        return False
    return objective.kl > 0 or (isinstance(objective, HeldConfig) and bool(objective.kl_safe))


def _check_group(recipe: Recipe) -> None:
    """One picture a prompt: for advantages over earlier steps' pictures, or labels by a threshold."""
    objective, credit = recipe.objective, recipe.credit
    if objective.kind == "prdp" and recipe.group_size % 2:
        raise UserError(f"objective.kind=prdp compares pairs, but group_size is {recipe.group_size}; set an even one")
    if recipe.group_size > 1:
        return
    if objective.advantages and credit.compares:
        who, instead = f"credit.kind={credit.kind}", ", or credit.kind=running"
    elif objective.advantages and recipe.constraint.on:
        who, instead = "`constraint`", ", or leave that out"  # a cost alone in its group is no advantage
    elif objective.advantages and credit.gae_lambda is not None:
        who, instead = "credit.gae_lambda", ", or that to null"
    elif not objective.advantages and recipe.preferences.threshold is None:
        who = f"objective.kind={objective.kind}"
        instead = ", or preferences.threshold above which a picture is liked" if objective.kind == "kto" else ""
    else:
        return
    raise UserError(
        f"group_size is {recipe.group_size}, but {who} compares the pictures of a prompt with each other; set "
        f"group_size to 2 or more{instead}"
    )


def check_window(plan: PlanConfig) -> None:
    if plan.dynamics == "ddim":
        if plan.level is not None:
            raise UserError(
                f"plan.level is {plan.level}, which plan.dynamics=ddim does not have; set plan.eta, or "
                "plan.dynamics=flow-sde, dance-sde or cps"
            )
    elif plan.eta is not None:
        raise UserError(
            f"plan.eta is {plan.eta}, which plan.dynamics={plan.dynamics} has not; set plan.eta=null and plan.level"
        )
    if plan.window is not None and not 0 <= plan.window[0] < plan.window[1] <= plan.steps:
        raise UserError(
            f"plan.window is {list(plan.window)}; it is [first, last) within the {plan.steps} steps of plan.steps"
        )
    if plan.window is None and plan.window_moves != "fixed":
        raise UserError(f"plan.window_moves is {plan.window_moves}, but there is no plan.window to start from")
    if plan.window is not None and plan.window_moves != "fixed" and plan.window[1] >= plan.steps - 1:
        raise UserError(
            f"plan.window_moves is {plan.window_moves}, but window {list(plan.window)} of {plan.steps} steps has "
            "nowhere to move, as the last step is left out; set a window that ends earlier"
        )


def check_preferences(recipe: Recipe) -> None:
    """Options that the recipe's objective would not look at."""
    kind, own, none = recipe.objective.kind, recipe.preferences, type(recipe.preferences)()
    if kind not in PREFERRING and own != none:
        raise UserError(f"`preferences` is for objective.kind={', '.join(PREFERRING)}, not {kind}; leave it out")
    if kind in PAIRED and own.threshold is not None:
        raise UserError(f"preferences.threshold labels pictures for kto; objective.kind={kind} compares two, set null")
    if kind not in PAIRED and own.per_group != none.per_group:
        raise UserError(f"preferences.per_group counts pairs, which objective.kind={kind} has not; leave it out")
    if kind in PAIRED and own.per_group > recipe.group_size // 2:
        raise UserError(
            f"preferences.per_group is {own.per_group}, but group_size={recipe.group_size} gives at most "
            f"{recipe.group_size // 2} pairs a group; lower it or raise group_size"
        )


def check_surrogate(recipe: Recipe) -> None:
    kind, own = recipe.objective.kind, recipe.surrogate
    if not recipe.objective.samples and own != type(own)():
        raise UserError(f"`surrogate` is for objective.kind=lasro, not {kind}; leave it out")
    if recipe.objective.samples and recipe.group_size < 2:
        raise UserError(f"{kind}'s surrogate tells pictures of a prompt apart, but group_size is 1; set 2 or more")
    if not own.lr > 0:
        raise UserError(f"surrogate.lr is {own.lr}, with which it would learn nothing; set it above 0, e.g. 0.001")


def check_pairs(recipe: Recipe) -> None:
    """Pairs that no score compares: what goes with them, and what would not be looked at."""
    own, none, kind = recipe.preferences, type(recipe.preferences)(), recipe.objective.kind
    if (own.source == "files") != (own.files is not None):
        raise UserError(
            "preferences.source=files goes with preferences.files=FOLDER or FILE.jsonl; set both or neither"
        )
    if own.source == "rollouts":
        name = own.by and own.by.partition("/")[0]
        if name and name not in recipe.scorers:
            raise UserError(
                f"preferences.by is {own.by}, which no scorer of the recipe gives; {suggest(name, recipe.scorers)}, or "
                "add it to `scorers`"
            )
        return
    where = f"preferences.source={own.source}"
    if kind not in FINISHED:
        raise UserError(
            f"{where} gives finished pictures, but objective.kind={kind} learns from the steps that led to them; set "
            f"objective.kind={' or '.join(FINISHED)}, or preferences.source=rollouts"
        )
    for name in ("by", "margin", "per_group", "threshold"):
        if getattr(own, name) != getattr(none, name):
            raise UserError(f"preferences.{name} compares pictures, but {where} says which is preferred; leave it out")
    if recipe.scorers or recipe.credit != WeightedConfig():
        raise UserError(f"{where} is learned from without a score; set scorers={{}} and leave out `credit`")
    if recipe.constraint.on and kind != "dpo":
        raise UserError(
            f"{where}: a budget weighs the pairs of its category, and objective.kind={kind} has labels without "
            "weights; set objective.kind=dpo, or leave `constraint` out"
        )
    if recipe.plan.noise_sharing != "fresh" or recipe.plan.window_moves != "fixed" or recipe.overlap:
        raise UserError(f"{where}: set plan.noise_sharing=fresh, plan.window_moves=fixed and overlap=false")
    if own.source == "files" and (recipe.prompts or recipe.group_size != 2):
        raise UserError(f"{where} brings its own prompts, two pictures each; set prompts={{}} and group_size=2")
    if recipe.group_size % 2:
        raise UserError(f"{where} draws pairs, but group_size is {recipe.group_size}; set it to a multiple of 2")


def check_noise(recipe: Recipe) -> None:
    """What a plan whose steps add no noise cannot do."""
    if recipe.preferences.source != "rollouts":
        return  # no step is trained
    plan, forward = recipe.plan, isinstance(recipe.objective, ForwardConfig)
    name = "eta" if plan.eta == 0 else "level" if plan.level == 0 else None
    if name is None:
        return
    if recipe.objective.learns_from == "prompts":
        return  # pictures are differentiated as they are drawn, so that a plan without noise will do
    if not forward and recipe.objective.kind not in FINISHED:
        raise UserError(
            f"plan.{name} is 0, so no step has a probability to train; set plan.{name} above 0, or leave it out"
        )
    if plan.noise_sharing != "fresh":
        raise UserError(
            f"plan.{name} is 0 and plan.noise_sharing {plan.noise_sharing}, so the pictures of a group are all the "
            f"same; set plan.noise_sharing=fresh or plan.{name} above 0"
        )
    if recipe.weights.init == "contrast":
        raise UserError(
            f"weights.init=contrast looks at the plan's noisy steps, but plan.{name} is 0; set weights.init=random or "
            f"plan.{name} above 0"
        )


def check_forward(recipe: Recipe) -> None:
    """What objectives on the forward process have no use for, and what they need."""
    objective = recipe.objective
    if not isinstance(objective, ForwardConfig):
        return
    if recipe.credit.gae_lambda is not None:
        raise UserError(
            f"credit.gae_lambda gives recorded steps their advantages, but objective.kind={objective.kind} learns from "
            "whole pictures; set credit.gae_lambda=null"
        )
    if recipe.plan.keep_unconditional_grad:
        raise UserError(
            f"plan.keep_unconditional_grad is for guidance in training, but objective.kind={objective.kind} trains "
            "without guidance; set plan.keep_unconditional_grad=false"
        )
    if isinstance(objective, AwmConfig) and objective.kl_ema and recipe.ema is None:
        raise UserError("objective.kl_ema compares with averaged weights, but there are none; set ema, e.g. ema=0.9")


def check_full(recipe: Recipe) -> None:
    """Options that only full weights have, and those of them that exclude each other."""
    shard, offload = recipe.weights.shard, recipe.memory.reference_on_cpu
    if recipe.weights.kind == "lora":
        for name, given in (("weights.shard", shard), ("memory.reference_on_cpu", offload)):
            if given:
                raise UserError(
                    f"{name} is for full weights: an adapter is small and its reference is the base itself; "
                    f"set {name}=false or weights.kind=full"
                )
    if shard and offload:
        raise UserError(
            "memory.reference_on_cpu moves a whole reference, but weights.shard divides it among the processes; "
            "set one of them to false"
        )
    if shard and recipe.optimizer.bits == 8:
        raise UserError(
            "optimizer.bits=8 keeps moments of whole weights, but weights.shard divides them among the processes; "
            "set optimizer.bits=32 or weights.shard=false"
        )
    if shard and recipe.evaluation.every:
        raise UserError(
            "evaluation.every measures during training, which weights that are divided among processes "
            "(weights.shard) cannot; set evaluation.every=0 and evaluate the run folder afterwards"
        )
