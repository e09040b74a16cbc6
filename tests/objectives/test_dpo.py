"""The loss of Diffusion-DPO against numbers worked out by hand, and its gradient."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from safediffusion.collect.preferences import Pairs
from safediffusion.core.errors import UserError
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.dpo import DiffusionDpo, PairItems
from tests import families, preferences, tiny


@pytest.fixture(scope="module")
def policy() -> Policy:
    return tiny.policy(trained=True)


def prepared(policy: Policy, pairs: Pairs, objective: DiffusionDpo) -> PairItems:
    return objective.prepare(policy, pairs, torch.Generator().manual_seed(2))


def error(family: str, policy: Policy, items: PairItems, x0: torch.Tensor, number: int) -> float:
    """The error of one picture, alone."""
    one = slice(number, number + 1)
    cond = items.cond.take(items.row[one])
    return float(families.missed(family, policy, (x0[one], items.noise[one]), items.t[one], cond))


@pytest.mark.parametrize("family", families.OUTPUTS)
def test_the_loss_of_two_pairs_by_hand(family: str) -> None:
    """For everything a network puts out: epsilon, v and velocity."""
    policy = families.policy(family)
    tiny.nudge(policy, size=0.1)
    items = prepared(policy, preferences.pairs(policy, (1.0, 0.5)), DiffusionDpo())
    margins = []
    for number in range(2):
        live = [error(family, policy, items, x0, number) for x0 in (items.win, items.lose)]
        with policy.using(Weights.REFERENCE):
            base = [error(family, policy, items, x0, number) for x0 in (items.win, items.lose)]
        margins.append(0.5 * 40.0 * ((base[0] - live[0]) - (base[1] - live[1])))
    assert min(abs(margin) for margin in margins) > 1e-3  # the reference tells them apart
    expected = sum(w * math.log(1 + math.exp(-m)) for w, m in zip((1.0, 0.5), margins, strict=True)) / 2
    found = DiffusionDpo(beta=40.0).loss(policy, items)
    assert found.total.item() == pytest.approx(expected, rel=1e-4)
    assert found.terms["margin"].item() == pytest.approx(sum(margins) / 2, rel=1e-3)
    assert found.terms["accuracy"].item() == sum(margin > 0 for margin in margins) / 2
    assert set(found.terms) == set(DiffusionDpo().terms)


def test_a_fresh_adapter_is_the_reference() -> None:
    fresh = tiny.policy()
    items = prepared(fresh, preferences.pairs(fresh), DiffusionDpo())
    found = DiffusionDpo().loss(fresh, items)
    assert found.total.item() == pytest.approx(math.log(2))
    assert found.terms["accuracy"].item() == 0.5 and found.terms["margin"].item() == 0.0


@pytest.mark.parametrize("family", [*families.FAMILIES])
def test_the_gradient_is_that_of_finite_differences(family: str) -> None:
    """For every family, whatever its network outputs."""
    policy = families.policy(family)
    tiny.nudge(policy)
    objective = DiffusionDpo(beta=50.0)
    items = prepared(policy, preferences.pairs(policy), objective)
    slope, difference = preferences.slopes(policy, lambda: objective.loss(policy, items))
    assert abs(slope) > 1e-5
    assert slope == pytest.approx(difference, rel=2e-2)


def test_both_pictures_of_a_pair_share_time_and_noise_and_every_draw_has_its_own(policy: Policy) -> None:
    items = prepared(policy, preferences.pairs(policy), DiffusionDpo(draws=3))
    assert items.row.tolist() == [0, 0, 0, 1, 1, 1] and items.t.shape == (6,)
    assert items.noise.shape == items.win.shape == items.lose.shape
    assert len({float(noise.sum()) for noise in items.noise}) == 6
    swapped = replace(items, win=items.lose, lose=items.win)
    margins = [DiffusionDpo().loss(policy, each).terms["margin"].item() for each in (items, swapped)]
    assert margins[0] == pytest.approx(-margins[1], rel=1e-4)


def test_what_is_drawn_belongs_to_the_pair_not_to_its_process(policy: Policy) -> None:
    whole = preferences.pairs(policy, (1.0,) * 4)
    objective = DiffusionDpo(draws=2)
    everything = prepared(policy, whole, objective)
    second = prepared(policy, whole.take(torch.arange(2, 4)), objective)
    assert torch.equal(second.t, everything.t[4:]) and torch.equal(second.noise, everything.noise[4:])


def test_a_mean_over_items_in_any_slices(policy: Policy) -> None:
    objective = DiffusionDpo(beta=50.0)
    items = prepared(policy, preferences.pairs(policy, (1.0, 0.0, 2.0)), objective)
    parts = [objective.loss(policy, items.take(torch.tensor([i]))).total.item() for i in range(3)]
    assert objective.loss(policy, items).total.item() == pytest.approx(sum(parts) / 3, rel=1e-5)
    assert objective.idle(items).tolist() == [False, True, False] and parts[1] == 0.0


@pytest.mark.parametrize("wrong", [{"beta": 0.0}, {"draws": 0}])
def test_impossible_options(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match="beta must be above 0, draws 1 or more"):
        DiffusionDpo(**wrong)
