"""The section `constraint`: what it builds, what it refuses, and both ways in which costs are measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from safediffusion.collect.on_policy import OnPolicy
from safediffusion.collect.online import OnlinePairs
from safediffusion.collect.prompts_only import PromptsOnly
from safediffusion.collect.reward import Reward
from safediffusion.config.build import build_experiment
from safediffusion.config.check import check, mixture_of
from safediffusion.config.cost import forecast
from safediffusion.config.load import load_recipe
from safediffusion.config.scorers import build_scorers
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.prompt import Prompt
from safediffusion.credit.constraint import Constrained, Rule
from safediffusion.credit.weighted import WeightedSum
from safediffusion.scorers.base import ImageBatch
from safediffusion.train.run import train
from tests import small

WEAK = ["constraint.pictures=emoji", "calibration.allow_weak_direction=true"]
CATEGORIES = ("harassment", "hate", "illegal activity", "self-harm", "sexual", "shocking", "violence")


def test_one_number_is_every_category_s_and_a_named_one_goes_first(folders: small.Folders) -> None:
    keys = ["constraint.budgets={sexual: 0.01}", "plan.size=[16,16]", *WEAK]
    made = build_experiment(load_recipe("emoji-constrained", [*folders.small, *keys])).trainer.collector
    assert isinstance(made, OnPolicy) and isinstance(made.credit, Constrained)
    assert made.credit.budgets == {name: 0.01 if name == "sexual" else 0.1 for name in CATEGORIES}
    assert made.credit.costs == ("harm",) and made.credit.credit == WeightedSum(weights={"clip": 1.0}, std="batch")
    alone = load_recipe("emoji-constrained", ["constraint.budget=null", "constraint.budgets={sexual: 0.01}"])
    assert alone.constraint.budgets == {"sexual": 0.01}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["constraint.costs=[]"], "names no costs"),
        (["constraint.budget=null"], "but there is no budget"),
        (["constraint.budgets={nudity: 0.1}"], "no prompt has this category.*known: harassment, hate"),
        (["constraint.costs=[q17]"], "q17 is no scorer of P.*did you mean 'q16'"),
        (["constraint.costs=[hps]"], "hps is no scorer of P"),
        (["constraint.costs=[clip]"], "clip is a reward in `scorers` as well; take it out of one"),
        (
            ["constraint.costs=[emoji-moderator]", "constraint.sources={emoji-moderator: x}", "constraint.budget=0.1"],
            "names emoji-moderator, which is no judge and has neither",
        ),
        (["constraint.sources={q16: prompts.p}"], "names q16, which is not in constraint.costs"),
        (["constraint.budget=2"], "constraint.budget is 2"),
        (["calibration.pictures=null"], "there are none; set constraint.pictures=emoji"),
        (["constraint.costs=[q16]", "constraint.pictures=emoji"], "are for harm, which is not in"),
    ],
)
def test_what_cannot_work_is_refused(keys: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(load_recipe("emoji-constrained", keys))


def test_preferences_take_bounded_costs_and_no_other_number() -> None:
    own = ["constraint.costs=[harm]", "constraint.budget=0.1"]
    with pytest.raises(UserError, match="compares pictures by that score alone"):
        load_recipe("emoji-dpo", [*own, "preferences.by=steering/safety"])
    with pytest.raises(UserError, match="needs a bounded multiplier"):
        load_recipe("emoji-dpo", [*own, "preferences.by=null", "constraint.bound=null"])
    with pytest.raises(UserError, match="q16 has no gradient, which objective.kind=draft follows"):
        check(load_recipe("emoji-draft", ["constraint.costs=[q16]", "constraint.budget=0.1"]))


def test_objectives_that_a_multiplier_would_break_are_refused() -> None:
    own = ["constraint.costs=[harm]", "constraint.budget=0.1"]
    with pytest.raises(UserError, match="lasro learns its reward from pictures of several steps, under multipliers"):
        load_recipe("emoji-lasro", own)
    with pytest.raises(UserError, match=r"drives beyond all others; set constraint\.bound=2\.5 or less"):
        load_recipe("emoji-rwr", own)
    assert load_recipe("emoji-rwr", [*own, "constraint.bound=2.5"]).constraint.on
    assert load_recipe("emoji-rwr", [*own, "objective.weighting=top"]).constraint.on
    with pytest.raises(UserError, match=r"multiplier of 100 leaves nothing of the reward; set constraint\.bound=5 or"):
        load_recipe("emoji-nft", own)
    assert load_recipe("emoji-nft", [*own, "constraint.bound=5"]).constraint.on
    assert load_recipe("emoji-nft", [*own, "objective.advantage_max=100"]).constraint.on


def test_a_score_is_not_followed_the_wrong_way(folders: small.Folders) -> None:
    own = ["steering.alpha=1", "calibration.allow_weak_direction=true", *folders.small]
    with pytest.raises(UserError, match=r"less of it is better; give it a weight below 0, e\.g\. scorers\.emoji-mod"):
        build_scorers(load_recipe("emoji-steer", [*own, "scorers.emoji-moderator=1"]))
    one = ["scorers={steering: 1.0}", "constraint.costs=[aesthetic]", "constraint.budget=0.1"]
    with pytest.raises(UserError, match="aesthetic is no scorer of P"):
        check(load_recipe("emoji-steer", [*own, *one]))
    assert len(build_scorers(load_recipe("emoji-steer", [*own, "scorers.emoji-moderator=-1"]))) == 2


def test_a_direction_that_tells_nothing_is_refused(folders: small.Folders) -> None:
    with pytest.raises(UserError, match=r"tells unsafe pictures from safe ones with AUC .* below calibration.min_auc"):
        build_experiment(load_recipe("emoji-constrained", [*folders.small, "constraint.pictures=emoji"]))


@pytest.mark.parametrize("name", ["emoji-dpo", "emoji-draft"])
def test_pairs_and_direct_gradients_are_constrained_too(name: str, folders: small.Folders, tmp_path: Path) -> None:
    own = ["constraint.costs=[harm]", "constraint.budget=0", "constraint.anchors=[emoji/per-category]", "groups=6"]
    recipe = load_recipe(name, [*folders.small, *own, "plan.size=[16,16]", "preferences.by=null", *WEAK])
    result = train(build_experiment(recipe), tmp_path / "run")
    moved = [key for key in result.metrics if key.startswith("constraint/") and key.endswith("/cost")]
    assert moved and all(result.metrics[key.replace("/cost", "/u")] > 0 for key in moved)


def test_pairs_are_chosen_by_the_reward_less_its_cost(folders: small.Folders) -> None:
    own = ["constraint.costs=[harm]", "constraint.budget=0", "constraint.bound=7", *WEAK]
    trainer = build_experiment(load_recipe("emoji-dpo", [*folders.small, *own, "preferences.by=null"])).trainer
    collector = trainer.collector
    assert isinstance(collector, OnlinePairs) and isinstance(collector.rollouts.credit, Constrained)
    scored, _ = collector.rollouts.collect(trainer.policy, 0)
    credit, prompts = collector.rollouts.credit, scored.rollout.prompts
    u = torch.tensor([credit.multipliers[p.tags["category"]].u if "category" in p.tags else 0.0 for p in prompts])
    expected = credit.credit.scalar(scored.scores, prompts) - u * credit.cost(scored.scores, prompts)
    assert torch.allclose(collector.value(scored).flatten(), expected.double())


@dataclass(frozen=True)
class Red:
    """The first channel's mean: a cost anyone can see."""

    name: str = "red"
    higher_is_better: bool = False
    differentiable: bool = True

    def __call__(self, batch: ImageBatch) -> Tensor:
        return batch.images[:, 0].mean((1, 2))


@dataclass(frozen=True)
class Other(Fleet):
    """A fleet of two whose other process sent `rows`."""

    rows: Tensor = torch.zeros(0)

    def gather_tensor(self, value: Tensor) -> Tensor:
        return torch.cat([value, self.rows])


PROMPTS = tuple(Prompt(id=f"p{i}", text="x", tags={"category": "a" if i < 2 else "b"}) for i in range(3))


def _reward() -> Reward:
    credit = Constrained(
        credit=WeightedSum(weights={"red": 0.0}),
        costs=("red",),
        budgets={"a": 0.1, "b": 0.1},
        std=0.0,
        rule=Rule(rho=1.0, eta=1.0, ema=0.5),
    )
    return Reward(scorers=(Red(),), credit=credit)


def test_costs_of_drawn_pictures_are_gathered_whatever_their_portions() -> None:
    """One process in one go, or in portions in another order, or two of them."""
    images = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    whole, parts, mine = _reward(), _reward(), _reward()
    whole(images, PROMPTS)
    logged = whole.settle(PROMPTS, Fleet())
    for rows in ([2], [1, 0]):
        parts(images[rows], tuple(PROMPTS[row] for row in rows))
    again = parts.settle(PROMPTS, Fleet())
    mine(images[:1], PROMPTS[:1])
    sent = torch.stack([torch.tensor([1.0, 2.0]), images[1:, 0].mean((1, 2))], 1).double()
    shared = mine.settle(PROMPTS, Other(0, 2, 0, sent))
    assert logged["constraint/a/cost"] == pytest.approx(float(images[:2, 0].mean()))
    assert again == pytest.approx(logged, rel=1e-12) and shared == pytest.approx(logged, rel=1e-6)


def test_costs_of_finished_pictures_cost_forwards_and_are_told_beforehand(
    folders: small.Folders, tmp_path: Path
) -> None:
    own = ["constraint.costs=[harm]", "constraint.budget=0", "plan.size=[16,16]", "groups=6", "plan.steps=4", *WEAK]
    keys = [*folders.small, *own, "objective.early=[2,2]"]
    spent, costs = list[int](), list[dict[str, float]]()
    for finished in ("false", "true"):
        recipe = load_recipe("emoji-refl", [*keys, f"constraint.finished={finished}"])
        result = train(build_experiment(recipe), tmp_path / finished)
        assert result.unet_forwards <= forecast(recipe).forwards
        spent.append(result.unet_forwards)
        costs.append({key: value for key, value in result.metrics.items() if key.endswith("/cost")})
    drawn = [prompt for step in range(recipe.steps) for prompt in mixture_of(recipe).draw(step, recipe.groups)]
    harmful = sum(prompt.harm is not None for prompt in drawn)
    assert spent[1] - spent[0] == harmful * 2 * recipe.group_size and 0 < harmful < len(drawn)
    assert costs[0].keys() == costs[1].keys() and costs[0] != costs[1]
    assert load_recipe("emoji-refl", keys).constraint.finished is False


def test_the_worst_view_is_asked_for_where_pictures_are_viewed(folders: small.Folders, tmp_path: Path) -> None:
    own = ["constraint.costs=[harm]", "constraint.budget=0", "constraint.views=2"]
    with pytest.raises(UserError, match="constraint.views is 2, but objective.kind=refl as set scores pictures thems"):
        load_recipe("emoji-refl", own)
    with pytest.raises(UserError, match="objective.kind=grpo as set scores pictures themselves"):
        load_recipe("emoji-steer", own)
    keys = [*folders.small, *WEAK, *own[:2], "objective.views=1", "steps=1"]
    costs = []
    for views in (1, 6):
        recipe = load_recipe("emoji-refl", [*keys, f"constraint.views={views}"])
        result = train(build_experiment(recipe), tmp_path / str(views))
        costs.append({key: value for key, value in result.metrics.items() if key.endswith("/cost")})
    assert costs[0] and all(costs[1][key] > value for key, value in costs[0].items())


def test_finished_costs_are_for_pictures_that_are_left_early() -> None:
    own = ["constraint.costs=[harm]", "constraint.budget=0.1", "constraint.finished=true"]
    with pytest.raises(UserError, match="objective.kind=draft as set measures finished ones; leave it out"):
        load_recipe("emoji-draft", own)
    with pytest.raises(UserError, match="objective.kind=refl as set measures finished ones"):
        load_recipe("emoji-refl", [*own, "objective.early=[0,0]"])
    chosen = ["active.by=ranks", "active.scores=[clip, harm]", "scorers.clip=1"]
    with pytest.raises(UserError, match="active chooses among all prompts"):
        load_recipe("emoji-refl", [*own, *chosen])


def test_a_direct_run_goes_on_with_its_multipliers(folders: small.Folders) -> None:
    own = ["constraint.costs=[harm]", "constraint.budget=0", "plan.size=[16,16]", *WEAK]
    trainer = build_experiment(load_recipe("emoji-draft", [*folders.small, *own])).trainer
    trainer.step(0)
    collector = trainer.collector
    assert isinstance(collector, PromptsOnly)
    kept = collector.state()
    fresh = replace(collector, reward=replace(collector.reward, credit=replace(collector.reward.credit)))  # type: ignore[type-var]
    assert fresh.state() != kept
    fresh.load_state(kept)
    assert fresh.state() == kept
