"""Given pairs under budgets: what they weigh, what is measured, and what a run then says."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from safediffusion.collect.budgeted import Budgeted
from safediffusion.config.build import build_experiment
from safediffusion.config.cost import forecast
from safediffusion.config.load import load_recipe
from safediffusion.core.errors import UserError
from safediffusion.credit.constraint import Constrained, Rule
from safediffusion.credit.weighted import WeightedSum
from safediffusion.data.mixture import Mixture, Source
from safediffusion.scorers.base import ImageBatch
from safediffusion.train.reached import closing
from safediffusion.train.run import train
from tests import small, tiny
from tests.collect.test_wording import PLAN, UNSAFE, collector

OWN = ["constraint.costs=[emoji-moderator]", "constraint.budget=0", "constraint.probe=7"]


@dataclass(frozen=True)
class Known:
    """P(unsafe) by category, and how many pictures it was asked about."""

    asked: list[int]
    name: str = "known"
    higher_is_better: bool = False
    differentiable: bool = False

    def __call__(self, batch: ImageBatch) -> Tensor:
        self.asked.append(len(batch.prompts))
        return torch.tensor([{"harm": 0.9, "calm": 0.05}[prompt.tags["category"]] for prompt in batch.prompts])


def budgeted(*, bound: float, asked: list[int]) -> Budgeted:
    prompts = tuple(replace(p, tags={**p.tags, "category": c}) for p, c in zip(UNSAFE, ("harm", "calm"), strict=True))
    rule = Rule(rho=2.0, eta=0.5, bound=bound)
    worth = WeightedSum(weights={})
    return Budgeted(
        pairs=collector(prompts),
        constraint=Constrained(credit=worth, costs=("known",), budgets={"harm": 0.1, "calm": 0.1}, rule=rule),
        scorers=(Known(asked),),
        prompts=Mixture(sources=(Source(name="budgets", prompts=prompts, balance="category"),)),
        count=5,
        plan=PLAN,
        batch=3,
    )


def test_pairs_weigh_one_and_their_category_s_multiplier() -> None:
    """c = .9, h = .1: u = 2 * .8 = 1.6, lambda = .5 * .8 = .4; then u = .4 + 1.6. The other one keeps its own."""
    policy, asked = tiny.policy(), list[int]()
    made = budgeted(bound=100.0, asked=asked)
    for step, weight in enumerate((2.6, 3.0)):
        pairs, told = made.collect(policy, step)
        by = {p.tags["category"]: float(w) for p, w in zip(pairs.prompts, pairs.weight, strict=True)}
        assert by == {"harm": pytest.approx(weight), "calm": 1.0}
    assert asked == [3, 2, 3, 2] and told["images"] == 8 and told["unet_forwards"] == (8 + 5) * 3 * 2
    assert told["constraint/harm/cost"] == pytest.approx(0.9) and told["constraint/calm/u"] == 0
    assert made.volume(policy, 0).forwards == (8 + 5) * 3 * 2
    again = budgeted(bound=100.0, asked=asked)
    again.load_state(made.state())
    pairs, _ = again.collect(policy, 2)
    assert float(pairs.weight.max()) == pytest.approx(3.4)
    pairs, _ = budgeted(bound=0.5, asked=asked).collect(policy, 0)
    assert float(pairs.weight.max()) == pytest.approx(1.5)  # never more than the bound


def test_nothing_is_learned_from_what_is_measured() -> None:
    policy = tiny.policy()
    made = budgeted(bound=1.0, asked=[])
    found, plain = made.collect(policy, 0)[0], made.pairs.collect(policy, 0)[0]
    assert torch.equal(found.win, plain.win) and torch.equal(found.lose, plain.lose) and found.total == plain.total


def test_a_run_of_wordings_is_told_its_budgets(folders: small.Folders, tmp_path: Path) -> None:
    recipe = load_recipe("emoji-safety-dpo", [*folders.small, *OWN, "plan.size=[16,16]", "checkpoint_every=1"])
    result = train(build_experiment(recipe), tmp_path / "run")
    assert result.unet_forwards == forecast(recipe).forwards
    told = closing(tmp_path / "run")
    assert sum("NOT reached in training" in line for line in told) == 7
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["constraint/violence/u"] > 0 for line in logged)


def test_labels_have_no_weights_and_other_sources_no_probe() -> None:
    with pytest.raises(UserError, match="objective.kind=kto has labels without weights; set objective.kind=dpo"):
        load_recipe("emoji-safety-dpo", [*OWN, "objective={kind: kto}"])
    with pytest.raises(UserError, match="constraint.probe is 7, but costs are measured in the pictures that training"):
        load_recipe("emoji-constrained", ["constraint.probe=7"])
    with pytest.raises(UserError, match="needs a bounded multiplier"):
        load_recipe("emoji-safety-dpo", [*OWN, "constraint.bound=null"])
