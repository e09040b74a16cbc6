"""Reward-weighted likelihood against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from safediffusion.collect.base import Scored
from safediffusion.core.errors import UserError
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.forward import noise_again
from safediffusion.objectives.rwr import RewardWeighted
from tests import families, forward, tiny


@pytest.fixture(scope="module")
def collected() -> tuple[Policy, Scored]:
    policy = tiny.policy(trained=True)
    return policy, forward.collector(RewardWeighted()).collect(policy, 0)[0]


def weights(collected: tuple[Policy, Scored], objective: RewardWeighted, advantage: list[float]) -> list[float]:
    """Of two groups of four images."""
    policy, scored = collected
    given = replace(scored, advantage=torch.tensor(advantage))
    return objective.prepare(policy, given, torch.Generator().manual_seed(0)).weight.tolist()


def test_two_items_by_hand() -> None:
    """x0 = 1, noise = 0, t = 1/2: the velocity is -1; LIVE says 1/2, the reference 1."""
    drawn = forward.items(torch.ones(2, 1), torch.zeros(2, 1), [0.5, 0.5], [2.0, 0.5], hold=3.0)
    found = RewardWeighted(kl=3.0).loss(forward.line(1.0, reference=2.0), drawn)
    assert found.terms["matching"].item() == pytest.approx(2.25)
    assert found.terms["weight"].item() == pytest.approx(1.25)
    assert found.terms["policy"].item() == pytest.approx((2 * 2.25 + 0.5 * 2.25) / 2)
    assert found.terms["kl"].item() == pytest.approx(0.25)
    assert found.total.item() == pytest.approx(1.25 * 2.25 + 3 * 0.25)


def test_the_gradient_by_finite_differences() -> None:
    objective, drawn = RewardWeighted(kl=0.3), forward.random_items(hold=0.3)

    def at(theta: float) -> tuple[float, float]:
        policy = forward.line(theta, reference=-0.2)
        loss = objective.loss(policy, drawn).total
        return loss.item(), forward.slope(policy, loss)

    assert at(0.4)[1] == pytest.approx((at(0.4 + 1e-5)[0] - at(0.4 - 1e-5)[0]) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("family", families.OUTPUTS)
def test_every_family_matches_its_own_output(family: str) -> None:
    """The error is that of epsilon, v or velocity, and so is the distance to the reference."""
    policy, objective = families.policy(family), RewardWeighted(kl=0.3, times="uniform", times_per_image=2)
    policy.allocate(objective.needs)
    tiny.nudge(policy)
    scored, _ = forward.collector(objective).collect(policy, 0)
    drawn = objective.prepare(policy, scored, torch.Generator().manual_seed(0))
    batch = noise_again(policy, drawn)
    error = families.missed(family, policy, (batch.x0, batch.noise), batch.t, batch.cond)
    now = families.output(policy, batch.x, batch.t, batch.cond)
    with policy.using(Weights.REFERENCE):
        apart = ((now - families.output(policy, batch.x, batch.t, batch.cond)) ** 2).mean()
    found = objective.loss(policy, drawn)
    assert found.terms["matching"].item() == pytest.approx(float(error.mean()), rel=1e-4)
    assert found.terms["kl"].item() == pytest.approx(float(apart), rel=1e-3) and float(apart) > 1e-5
    assert found.total.item() == pytest.approx(float((drawn.weight * error).mean() + 0.3 * apart), rel=1e-4)


def test_exponential_weights(collected: tuple[Policy, Scored]) -> None:
    advantage = [1.0, 0.0, -1.0, 0.0, 2.0, -2.0, 0.5, -0.5]
    found = weights(collected, RewardWeighted(temperature=2.0, times_per_image=1), advantage)
    assert found == pytest.approx([math.exp(each / 2) for each in advantage])


@pytest.mark.parametrize(
    ("share", "advantage", "best"),
    [
        (0.25, [1.0, 0.0, -1.0, 2.0, 0.5, -2.0, 0.1, 0.2], [3, 4]),
        (0.5, [1.0, 0.0, -1.0, 2.0, 0.5, -2.0, 0.1, 0.2], [0, 3, 4, 7]),
        (0.01, [1.0, 0.0, -1.0, 2.0, 0.5, -2.0, 0.1, 0.2], [3, 4]),  # at least one
        (0.25, [1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0, 1]),  # those that tie count, equal ones teach nothing
    ],
)
def test_sparse_weights(
    collected: tuple[Policy, Scored], share: float, advantage: list[float], best: list[int]
) -> None:
    objective = RewardWeighted(weighting="top", share=share, times_per_image=1)
    found = weights(collected, objective, advantage)
    assert [number for number, weight in enumerate(found) if weight] == best and set(found) == {0.0, 1.0}


def test_images_that_weigh_nothing_are_idle_unless_they_are_held() -> None:
    drawn = forward.items(torch.ones(2, 1), torch.zeros(2, 1), [0.5, 0.5], [0.0, 1.0])
    assert RewardWeighted(weighting="top").idle(drawn).tolist() == [True, False]
    held = forward.items(torch.ones(2, 1), torch.zeros(2, 1), [0.5, 0.5], [0.0, 1.0], hold=0.1)
    assert RewardWeighted(weighting="top", kl=0.1).idle(held).tolist() == [False, False]


def test_any_number_of_updates_raises_the_likelihood_of_the_best() -> None:
    policy = tiny.policy(full=True)
    objective = RewardWeighted(weighting="top", times="uniform", times_per_image=2)
    made = forward.trainer(policy, objective, updates=4, lr=0.1)
    scored, _ = made.collector.collect(policy, 0)
    drawn = objective.prepare(policy, scored, torch.Generator().manual_seed(0))
    before = objective.loss(policy, drawn).total.item()
    made.step(0)
    assert objective.loss(policy, drawn).total.item() < before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RewardWeighted(temperature=0.0), "temperature must be above 0"),
        (lambda: RewardWeighted(share=1.0), "share between 0 and 1"),
        (lambda: RewardWeighted(kl=-1.0), "kl is -1.0"),
        (lambda: RewardWeighted(weighting="best"), "it is exp or top"),  # type: ignore[arg-type]
    ],
)
def test_impossible_options(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
