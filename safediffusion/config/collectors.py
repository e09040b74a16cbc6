"""From a recipe to the collector that makes what its objective learns from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safediffusion.collect.base import Collector
from safediffusion.collect.budgeted import Budgeted
from safediffusion.collect.disputed import Watched
from safediffusion.collect.latent_reward import Settings
from safediffusion.collect.offline import LabelledPairs, OfflinePairs, load_pairs
from safediffusion.collect.on_policy import OnPolicy
from safediffusion.collect.online import OnlineLabels, OnlinePairs
from safediffusion.collect.prompts_only import PromptsOnly
from safediffusion.collect.reward import Reward
from safediffusion.collect.surrogate import SurrogatePrompts
from safediffusion.collect.wording import WordingPairs
from safediffusion.config.asked import Asked
from safediffusion.config.constrained import constrain
from safediffusion.config.objectives import FINISHED, PAIRED, PREFERRING
from safediffusion.config.parts import build_credit, build_objective, build_plan, build_windows
from safediffusion.config.schema import Recipe
from safediffusion.core.fleet import Fleet
from safediffusion.credit.constraint import Constrained
from safediffusion.credit.critic import Critic
from safediffusion.credit.value import width
from safediffusion.data.mixture import Mixture
from safediffusion.data.mixture import Source as Prompts
from safediffusion.data.pairs import read_pairs
from safediffusion.diffusion.denoise import Plan
from safediffusion.models.policy import Policy, Weights
from safediffusion.scorers.base import Scorer

Source = OnPolicy | PromptsOnly | OfflinePairs | WordingPairs | Budgeted  # what a recipe's pictures come from


def build_collector(
    recipe: Recipe,
    mixture: Mixture,
    scorers: tuple[Scorer, ...],
    *,
    fleet: Fleet,
    critic: Critic | None = None,
    asked: Asked | None = None,
) -> Source:
    """What the objective's kind learns from; `asked` None: nothing is found or chosen beside the mixture."""
    if recipe.preferences.source != "rollouts":
        pairs = given_pairs(recipe, mixture, build_plan(recipe), fleet=fleet)
        return budgeted(recipe, mixture, scorers, pairs) if recipe.constraint.on else pairs
    asked, credit = asked or Asked(mixture), constrain(recipe, mixture, build_credit(recipe), scorers)
    if asked.disputed is not None:
        credit = Watched(credit=credit, disputed=asked.disputed)
    if recipe.objective.learns_from == "prompts" and not recipe.objective.samples:
        return PromptsOnly(
            prompts=asked.source,
            reward=Reward(
                scorers=scorers,
                credit=credit,
                finished=recipe.constraint.finished,
                worst={name: recipe.constraint.views for name in recipe.constraint.costs if recipe.constraint.views},
            ),
            plan=build_plan(recipe),
            groups=recipe.groups,
            group_size=recipe.group_size,
            seed=recipe.seed,
            fleet=fleet,
        )
    objective = build_objective(recipe)
    return OnPolicy(
        prompts=asked.source,
        scorers=scorers,
        credit=credit,
        plan=build_plan(recipe),
        windows=build_windows(recipe),
        groups=recipe.groups,
        group_size=recipe.group_size,
        rollout_batch=recipe.rollout_batch,
        noise_sharing=recipe.plan.noise_sharing,
        gae_lambda=recipe.credit.gae_lambda,
        critic=critic,
        overlap=recipe.overlap,
        record=objective.records,
        behavior=Weights.BEHAVIOR if Weights.BEHAVIOR in objective.needs else Weights.LIVE,
        keep_bare=keeps_bare(recipe),
        seed=recipe.seed,
        fleet=fleet,
    )


def build_critic(recipe: Recipe, policy: Policy, mixture: Mixture, *, fleet: Fleet) -> Critic | None:
    """Its inputs are as many as the model's latents have channels and its prompts' embeddings numbers."""
    settings = asdict(recipe.critic)
    if settings.pop("kind") == "none":
        return None
    inputs = width(policy.latent_shape[0], policy.encode(mixture.sources[0].prompts[:1]))
    return Critic(inputs=inputs, **settings, seed=recipe.seed, fleet=fleet)


def keeps_bare(recipe: Recipe) -> bool:
    """Whether guidance's unconditional outputs of a rollout serve the one update that follows it, too."""
    objective = build_objective(recipe)
    return (
        objective.records
        and objective.single_update
        and build_plan(recipe).branches == 2
        and not (recipe.plan.keep_unconditional_grad)
    )


def given_pairs(recipe: Recipe, mixture: Mixture, plan: Plan, *, fleet: Fleet) -> OfflinePairs | WordingPairs:
    """Pairs that no score compares: those of files, or of the prompts and their harmless wordings."""
    own = recipe.preferences
    if own.source == "files":
        pairs, _ = load_pairs(Path(str(own.files)))
        return OfflinePairs(
            pairs=pairs, batch=recipe.groups, encode_batch=recipe.rollout_batch, seed=recipe.seed, fleet=fleet
        )
    return WordingPairs(
        prompts=mixture,
        plan=plan,
        groups=recipe.groups,
        group_size=recipe.group_size // 2,
        rollout_batch=recipe.rollout_batch,
        seed=recipe.seed,
        fleet=fleet,
    )


def budgeted(
    recipe: Recipe, mixture: Mixture, scorers: tuple[Scorer, ...], pairs: OfflinePairs | WordingPairs
) -> Budgeted:
    """Those pairs under the recipe's budgets, whose costs are of prompts of the budgets' categories in even turns."""
    constraint = constrain(recipe, mixture, build_credit(recipe), scorers)
    assert isinstance(constraint, Constrained), "checked with the recipe"
    watched = tuple(prompt for prompt in mixture.prompts if prompt.tags.get("category") in constraint.budgets)
    return Budgeted(
        pairs=pairs,
        constraint=constraint,
        scorers=scorers,
        prompts=Mixture(sources=(Prompts(name="budgets", prompts=watched, balance="category"),), seed=recipe.seed),
        count=recipe.constraint.probe,
        plan=build_plan(recipe),
        batch=recipe.rollout_batch,
        seed=recipe.seed,
        fleet=pairs.fleet,
    )


def accounted(recipe: Recipe) -> Mapping[str, Any]:
    """What became of the rows of preferences.files, for run.json; nothing without such."""
    if recipe.preferences.files is None:
        return {}
    _, account = read_pairs(Path(recipe.preferences.files))
    return {"pairs": account.text()}


def preferring(recipe: Recipe, rollouts: Source) -> Collector[Any]:
    """What the recipe's objective learns from: what is given where that is the rollouts themselves, or prompts."""
    kind, own = recipe.objective.kind, recipe.preferences
    if recipe.objective.samples:
        assert isinstance(rollouts, OnPolicy), "a surrogate is taught by pictures of a rollout"
        return SurrogatePrompts(rollouts=rollouts, settings=Settings(**asdict(recipe.surrogate)))
    if kind not in PREFERRING:
        return rollouts
    if isinstance(rollouts, OfflinePairs | WordingPairs | Budgeted):
        return rollouts if kind in PAIRED else LabelledPairs(source=rollouts)
    assert isinstance(rollouts, OnPolicy), "preferences compare pictures of a rollout"
    worse = [scorer.name for scorer in rollouts.scorers if not scorer.higher_is_better]
    lower = own.by is not None and own.by.partition("/")[0] in worse
    if kind in PAIRED:
        return OnlinePairs(rollouts=rollouts, by=own.by, lower=lower, margin=own.margin, per_group=own.per_group)
    return OnlineLabels(rollouts=rollouts, by=own.by, lower=lower, margin=own.margin, threshold=own.threshold)


def pairs(recipe: Recipe) -> int:
    """Pairs a step, over all processes."""
    if recipe.preferences.source != "rollouts":
        return recipe.groups * recipe.group_size // 2
    return recipe.groups * recipe.preferences.per_group if recipe.objective.kind in PAIRED else 0


def pictures_an_item(recipe: Recipe) -> int:
    return 2 if recipe.objective.kind in PAIRED else 1


def branches(recipe: Recipe, plan: Plan) -> int:
    """Network evaluations of a picture in one pass of training; finished pictures are learned from without guidance."""
    return 1 if recipe.objective.kind in FINISHED else plan.branches
