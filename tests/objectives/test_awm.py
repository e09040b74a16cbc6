"""Advantage-weighted matching against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from safediffusion.core.errors import UserError
from safediffusion.models.policy import Weights
from safediffusion.objectives.awm import AdvantageMatching
from safediffusion.objectives.forward import NoisedItems, noise_again
from tests import families, forward, tiny


def two(advantage: float, other: float, *, hold: float = 0.0) -> NoisedItems:
    """x0 = 1, noise = 0, t = 1/2: the velocity is -1 and theta x = theta / 2, so e = (theta / 2 + 1)^2."""
    return forward.items(torch.ones(2, 1), torch.zeros(2, 1), [0.5, 0.5], [advantage, other], hold=hold)


@pytest.mark.parametrize(
    ("power", "huber", "expected"),
    [
        (0.0, 1.0, -2.25),
        (1.0, 1.0, -1.125),
        (2.0, 1.0, -0.5625),
        (1.0, 0.5, -(0.5 / 0.5) * 1.5),
        (1.0, 0.25, -(0.5 / 0.25) * (math.sqrt(1.5) - 1e-10**0.25)),
    ],
)
def test_the_likelihood_by_hand(power: float, huber: float, expected: float) -> None:
    """e is 1.5^2 = 2.25, sigma 1/2."""
    objective = AdvantageMatching(sigma_power=power, huber=huber, anchor="recompute")
    frozen = objective.freeze(forward.line(1.0), two(1.0, 1.0))
    assert frozen.old is not None and not frozen.old.requires_grad
    assert frozen.old.tolist() == pytest.approx([expected] * 2, rel=1e-4)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [(1.1, 2.0, -2.2), (1.5, 2.0, -2.4), (0.5, 2.0, -1.0), (0.5, -2.0, 1.6), (1.5, -2.0, 3.0)],
)
def test_the_clipped_surrogate_by_hand(ratio: float, advantage: float, expected: float) -> None:
    policy, objective = forward.line(1.0), AdvantageMatching(clip=0.2, huber=1.0, anchor="recompute")
    drawn = replace(two(advantage, advantage), old=torch.full((2,), -1.125 - math.log(ratio)).double())
    found = objective.loss(policy, drawn)
    assert found.total.item() == pytest.approx(expected, rel=1e-5)
    assert found.terms["ratio"].item() == pytest.approx(ratio, rel=1e-5)
    assert found.terms["clipped"].item() == float(not 0.8 <= ratio <= 1.2)
    assert found.terms["matching"].item() == pytest.approx(2.25)


def test_two_items_and_both_distances_by_hand() -> None:
    """At ratio 1 the surrogate is minus the mean advantage; the velocities are 1/2, 1 and 1/4."""
    policy = forward.line(1.0, reference=2.0, ema=0.5)
    found = AdvantageMatching(kl=3.0, kl_ema=5.0).loss(policy, two(2.0, -1.0, hold=3.0))
    assert found.terms["policy"].item() == pytest.approx(-0.5)
    assert found.terms["kl"].item() == pytest.approx(0.25) and found.terms["kl_ema"].item() == pytest.approx(0.0625)
    assert found.total.item() == pytest.approx(-0.5 + 3 * 0.25 + 5 * 0.0625)


@pytest.mark.parametrize("huber", [1.0, 0.25])
def test_the_gradient_by_finite_differences(huber: float) -> None:
    """Of L against a fixed old log-probability, inside the clip; at ratio 1 it is -A grad log p."""
    objective = AdvantageMatching(clip=10.0, kl=0.3, kl_ema=0.2, huber=huber, anchor="recompute")
    drawn = forward.random_items(hold=0.3)

    def at(theta: float) -> tuple[float, float]:
        policy = forward.line(theta, reference=-0.2, ema=0.3)
        loss = objective.loss(policy, frozen).total
        return loss.item(), forward.slope(policy, loss)

    frozen = objective.freeze(forward.line(0.4), drawn)
    for theta in (0.4, 0.45):
        expected = (at(theta + 1e-5)[0] - at(theta - 1e-5)[0]) / 2e-5
        assert at(theta)[1] == pytest.approx(expected, rel=1e-6)
    first = replace(objective, anchor="first_pass")
    policy = forward.line(0.4, reference=-0.2, ema=0.3)
    assert forward.slope(policy, first.loss(policy, drawn).total) == pytest.approx(at(0.4)[1], rel=1e-9)


@pytest.mark.parametrize("family", families.OUTPUTS)
def test_every_family_matches_its_own_output(family: str) -> None:
    """The likelihood is that of the error of epsilon, v or velocity, before the policy moves and after."""
    policy, objective = families.policy(family), AdvantageMatching(clip=0.01, anchor="recompute", huber=1.0)
    scored, _ = forward.collector(objective).collect(policy, 0)
    drawn = objective.freeze(policy, objective.prepare(policy, scored, torch.Generator().manual_seed(0)))
    batch = noise_again(policy, drawn)

    def log_prob() -> torch.Tensor:
        error = families.missed(family, policy, (batch.x0, batch.noise), batch.t, batch.cond)
        return -policy.schedule.alpha_sigma(batch.t)[1] * error

    before = log_prob()
    assert drawn.old is not None
    torch.testing.assert_close(drawn.old, before, atol=0, rtol=1e-4)
    tiny.nudge(policy, size=0.3)
    ratio = (log_prob() - before).exp()
    assert 0 < int(((ratio - 1).abs() > 0.01).sum()) < len(ratio)
    expected = torch.maximum(-drawn.weight * ratio, -drawn.weight * ratio.clamp(0.99, 1.01)).mean()
    found = objective.loss(policy, drawn)
    assert found.terms["ratio"].item() == pytest.approx(float(ratio.mean()), rel=1e-5)
    assert found.total.item() == pytest.approx(float(expected), rel=1e-3)


def test_the_ratio_is_exactly_one_before_the_first_update() -> None:
    objective = AdvantageMatching(anchor="recompute", times_per_image=2)
    metrics = forward.trainer(tiny.policy(trained=True), objective, micro=3).step(0)
    assert metrics["loss/ratio"] == 1.0 and metrics["loss/clipped"] == 0.0
    moved = forward.trainer(tiny.policy(trained=True), objective, micro=3, updates=2, lr=1.0).step(0)
    assert moved["loss/ratio"] != 1.0


def test_items_without_an_advantage_are_idle_unless_they_are_held() -> None:
    drawn = two(0.0, 1.0)
    assert AdvantageMatching().idle(drawn).tolist() == [True, False]
    assert AdvantageMatching(kl=0.1).idle(two(0.0, 1.0, hold=0.1)).tolist() == [False, False]
    assert AdvantageMatching(kl_ema=0.1).idle(drawn).tolist() == [False, False]


def test_what_it_asks_of_the_trainer() -> None:
    assert AdvantageMatching().needs == frozenset()
    assert AdvantageMatching(kl=1.0, kl_ema=1.0).needs == {Weights.REFERENCE, Weights.EMA}
    with pytest.raises(UserError, match="compares with averaged weights, but there are none; set ema"):
        forward.trainer(tiny.policy(), AdvantageMatching(kl_ema=1.0), ema=None)
    with pytest.raises(UserError, match="AdvantageMatching as configured allows one update"):
        forward.trainer(tiny.policy(), AdvantageMatching(), updates=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdvantageMatching(clip=0.0), "clip must be above 0"),
        (lambda: AdvantageMatching(kl=-1.0), "kl is -1.0"),
        (lambda: AdvantageMatching(kl_ema=-1.0), "kl_ema -1.0"),
        (lambda: AdvantageMatching(sigma_power=-1.0), "sigma_power -1.0"),
        (lambda: AdvantageMatching(huber=1.5), "huber above 0 and at most 1"),
        (lambda: AdvantageMatching(anchor="rollout"), "has first_pass and recompute"),  # type: ignore[arg-type]
    ],
)
def test_impossible_options(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
