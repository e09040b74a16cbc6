"""Multipliers and costs by hand, the gradient by finite differences, and a world whose answer is known."""

from __future__ import annotations

import json
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import FOUND, PARENT, Prompt
from safediffusion.credit.base import Among, Credit
from safediffusion.credit.constraint import Constrained, Multiplier, Rule
from safediffusion.credit.running import RunningStats
from safediffusion.credit.weighted import WeightedSum

REWARD = WeightedSum(weights={"quality": 1.0})
NORMAL = NormalDist()


def asked(*categories: str) -> tuple[Prompt, ...]:
    """One prompt each; "" has no category."""
    return tuple(
        Prompt(id=f"p{i}", text=f"{c} {i}", tags={"category": c} if c else {}) for i, c in enumerate(categories)
    )


def among(*categories: str) -> Among:
    """Pictures of one group."""
    return Among(group=torch.zeros(len(categories), dtype=torch.int64), prompts=asked(*categories))


def constrained(credit: Credit = REWARD, **options: float) -> Constrained:
    return Constrained(
        credit=credit,
        costs=("harm",),
        budgets={"sexual": 0.1, "violence": 0.2},
        std=options.pop("std", 0.0),
        rule=Rule(**{"rho": 2.0, "eta": 0.5, "ema": 0.0, **options}),
    )


def test_found_prompts_are_a_category_of_their_own() -> None:
    """Costs 0.5 and 0.3 of two found prompts, 0.9 of one whose category is known, 0.7 of one without any."""
    made = Constrained(
        credit=REWARD, costs=("harm",), budgets={"sexual": 0.1, FOUND: 0.2}, std=0.0, rule=Rule(rho=2.0, ema=0.0)
    )
    tags: tuple[dict[str, str], ...] = ({PARENT: "p"}, {PARENT: "p"}, {PARENT: "p", "category": "sexual"}, {})
    prompts = tuple(Prompt(id=f"p{i}", text=str(i), tags=each) for i, each in enumerate(tags))
    scores = {"quality": torch.zeros(4), "harm": torch.tensor([0.5, 0.3, 0.9, 0.7])}
    made.observe(scores, Among(group=torch.zeros(4, dtype=torch.int64), prompts=prompts))
    u = {name: multiplier.u for name, multiplier in made.multipliers.items()}
    assert u == pytest.approx({"sexual": 2 * 0.8, FOUND: 2 * 0.2})
    expected = [-0.4 * 0.5, -0.4 * 0.3, -1.6 * 0.9, 0.0]
    assert made.scalar(scores, prompts).tolist() == pytest.approx(expected)
    assert made.excess(scores, prompts) == pytest.approx(0.8 + 0.2)


def test_a_multiplier_by_hand() -> None:
    """Costs .5, .3, .1, .1 against a budget of .2 with rho 2, eta .5: u is taken before lambda moves."""
    multiplier = Multiplier(budget=0.2, rule=Rule(rho=2.0, eta=0.5, ema=0.0))
    found = []
    for cost in (0.5, 0.3, 0.1, 0.0):
        multiplier.move(cost)
        found.append((multiplier.u, multiplier.value))
    expected = [(0.6, 0.15), (0.35, 0.2), (0.0, 0.15), (0.0, 0.05)]
    assert [value for pair in found for value in pair] == pytest.approx(
        [v for pair in expected for v in pair], abs=1e-12
    )
    bounded = Multiplier(budget=0.0, rule=Rule(rho=10.0, eta=10.0, ema=0.0, bound=3.0))
    bounded.move(1.0)
    assert (bounded.u, bounded.value) == (3.0, 0.0)  # u is at its bound: nothing piles up in lambda
    bounded.move(0.2)
    assert (bounded.u, bounded.value) == (2.0, 1.0)  # lambda + rho (c - h) = 3 next time, where 2 was asked for
    bounded.move(0.25)
    assert (bounded.u, bounded.value) == (3.0, 1.0)
    bounded.move(0.0)
    assert (bounded.u, bounded.value) == (1.0, 1.0)


def test_the_measured_cost_is_an_average_without_the_start_s_bias() -> None:
    """ema .5: .4, then (.5 .4 .5 + .5 .8) / .75 = 2/3."""
    multiplier = Multiplier(budget=0.0, rule=Rule(rho=1.0, eta=0.0, ema=0.5))
    assert multiplier.cost is None
    multiplier.move(0.4)
    assert multiplier.cost == pytest.approx(0.4)
    multiplier.move(0.8)
    assert multiplier.cost == pytest.approx(2 / 3) and multiplier.u == pytest.approx(2 / 3)


def test_costs_by_category() -> None:
    """The mean over each category's pictures; a category without one, and pictures without one, are left alone."""
    credit = constrained()
    scores = {"quality": torch.zeros(4), "harm": torch.tensor([0.2, 0.4, 0.9, 0.7])}
    credit.observe(scores, among("sexual", "sexual", "", "unknown"))
    sexual, violence = credit.multipliers["sexual"], credit.multipliers["violence"]
    assert sexual.cost == pytest.approx(0.3) and (sexual.u, sexual.value) == pytest.approx((0.4, 0.1))
    assert violence.cost is None and violence.state() == {"lambda": 0, "u": 0, "total": 0, "weight": 0}
    logged = credit.metrics()
    assert logged["constraint/sexual/budget"] == 0.1 and "constraint/violence/cost" not in logged
    assert credit.scalar(scores, asked("sexual", "violence", "", "sexual")).tolist() == pytest.approx(
        [-0.4 * 0.2, 0.0, 0.0, -0.4 * 0.7]
    )


def test_the_cost_stays_outside_of_the_reward_s_normalisation() -> None:
    """u = .4 times the distance to the group's mean cost .3, whatever the spread of either."""
    credit = constrained()
    which = among("sexual", "sexual")
    scores = {"quality": torch.tensor([1.0, 3.0]), "harm": torch.tensor([0.2, 0.4])}
    credit.observe(scores, which)
    own = REWARD.advantage(scores, which)
    added = (credit.advantage(scores, which) - own).tolist()
    assert added == pytest.approx([0.4 * 0.1, -0.4 * 0.1], rel=1e-5)
    wider = {**scores, "harm": torch.tensor([0.1, 0.5])}
    assert (credit.advantage(wider, which) - own).tolist() == pytest.approx([2 * value for value in added], rel=1e-5)
    same = {**scores, "harm": torch.tensor([0.3, 0.3])}
    assert torch.equal(credit.advantage(same, which), own)


def test_the_ensemble_s_cost_is_its_mean_and_its_spread() -> None:
    """Members .2 and .6: mean .4, std .2. A scorer with terms is an ensemble of them, its own score is left out."""
    credit = constrained(std=1.0)
    prompts = asked("sexual")
    scores = {"harm": torch.tensor([0.9]), "harm/a": torch.tensor([0.2]), "harm/b": torch.tensor([0.6])}
    assert credit.cost(scores, prompts).tolist() == pytest.approx([0.6])
    alike = torch.tensor([0.3], requires_grad=True)
    credit.cost({"harm/a": alike, "harm/b": alike * 1}, prompts).sum().backward()  # type: ignore[no-untyped-call]
    assert alike.grad is not None and alike.grad.tolist() == pytest.approx([1.0])


def test_the_scalar_s_gradient_by_finite_differences() -> None:
    credit = constrained(std=0.5)
    prompts = asked("sexual", "violence", "")

    def total(x: Tensor) -> Tensor:
        scores = {"quality": x.sin(), "harm/a": x.sigmoid(), "harm/b": (2 * x + 1).sigmoid()}
        return credit.scalar(scores, prompts).sum()

    at = torch.tensor([0.3, -0.4, 1.1], dtype=torch.float64)
    harm = {"quality": at, "harm/a": at.sigmoid(), "harm/b": (2 * at + 1).sigmoid()}
    credit.observe(harm, Among(group=torch.tensor([0, 1, 2]), prompts=prompts))
    assert credit.multipliers["sexual"].u > 0 and credit.multipliers["violence"].u > 0
    x = at.clone().requires_grad_()
    (slope,) = torch.autograd.grad(total(x), x)
    for i in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[i] = 1e-5
        expected = float(total(at + step) - total(at - step)) / 2e-5
        assert float(slope[i]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.2])
def test_a_cost_is_a_probability(value: float) -> None:
    with pytest.raises(UserError, match=r"cost 'harm' is .* for a picture of prompt 'p1'; a cost is the probability"):
        constrained().observe(
            {"quality": torch.zeros(2), "harm": torch.tensor([0.5, value])}, among("sexual", "sexual")
        )
    with pytest.raises(UserError, match="names 'harm', but the scorers produce"):
        constrained().cost({"quality": torch.zeros(1)}, asked("sexual"))
    with pytest.raises(UserError, match="ema 1.0"):
        Rule(ema=1.0)


def test_a_resumed_credit_goes_on_exactly() -> None:
    """Together with a credit that keeps rewards of its own."""

    def fresh() -> Constrained:
        return constrained(RunningStats(weights={"quality": 1.0}, memory=4, least=2), ema=0.7)

    def step(credit: Constrained, number: int) -> list[float]:
        draw = torch.rand(2, 4, generator=torch.Generator().manual_seed(number))
        scores, which = {"quality": draw[0], "harm": draw[1]}, among("sexual", "sexual", "violence", "")
        credit.observe(scores, which)
        found: list[float] = credit.advantage(scores, which).tolist()
        return found

    through = fresh()
    for number in range(3):
        step(through, number)
    resumed = fresh()
    resumed.load_state(json.loads(json.dumps(through.state())))
    assert resumed.state() == through.state()
    assert step(resumed, 3) == step(through, 3) and resumed.metrics() == through.metrics()


def _trained(budget: float) -> float:
    """Mean of a policy N(m, 1) that wants x high, where x > 0 is harmful; by its score-function gradient."""
    credit = Constrained(
        credit=WeightedSum(weights={"quality": 1.0}, std="none", clip=1e6),
        costs=("harm",),
        budgets={"harm": budget},
        rule=Rule(rho=10.0, eta=1.0, ema=0.9),
    )
    generator = torch.Generator().manual_seed(0)
    prompts = (Prompt(id="p", text="p", tags={"category": "harm"}),) * 512
    which = Among(group=torch.zeros(512, dtype=torch.int64), prompts=prompts)
    m, tail = 0.0, []
    for number in range(600):
        x = m + torch.randn(512, dtype=torch.float64, generator=generator)
        scores = {"quality": x, "harm": (x > 0).double()}
        credit.observe(scores, which)
        m += 0.05 * float((credit.advantage(scores, which).double() * (x - m)).mean())
        tail += [m] if number >= 400 else []
    return sum(tail) / len(tail)


def test_budgets_are_kept_and_quality_falls_as_they_tighten() -> None:
    """The best m under P(x > 0) <= h is the normal's quantile of h; without a budget m rises without end."""
    found = [_trained(budget) for budget in (0.3, 0.1, 0.03)]
    assert found[0] > found[1] > found[2]
    for m, budget in zip(found, (0.3, 0.1, 0.03), strict=True):
        assert NORMAL.cdf(m) == pytest.approx(budget, abs=0.02)
        assert m == pytest.approx(NORMAL.inv_cdf(budget), abs=0.15)


def test_the_excess_is_of_categories_by_their_mean_cost() -> None:
    prompts = asked("sexual", "sexual", "violence", "")
    scores = {"harm": torch.tensor([0.5, 0.3, 0.1, 1.0])}  # .4 against .1; .1 against .2
    assert constrained().excess(scores, prompts) == pytest.approx(0.3)
    assert constrained().excess({"harm": torch.tensor([1.0])}, asked("")) == 0.0
