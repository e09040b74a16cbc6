"""DiffusionNFT against numbers worked out by hand, and what samples for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from safediffusion.core.errors import UserError
from safediffusion.core.types import expand
from safediffusion.diffusion.schedule import add_noise
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.forward import NoisedItems
from safediffusion.objectives.nft import DiffusionNft
from safediffusion.train.checkpoint import load_checkpoint, save_checkpoint
from tests import families, forward, tiny

FULL = pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])


def two(hold: float = 0.0) -> NoisedItems:
    """x0 = 1, noise = 0, t = 1/2, so x = 1/2; one image wholly good, one a quarter."""
    return forward.items(torch.ones(2, 1), torch.zeros(2, 1), [0.5, 0.5], [1.0, 0.25], hold=hold)


def test_two_items_by_hand() -> None:
    """x0 is 1/4 under LIVE and 1/2 under BEHAVIOR: x+ = 1/4 misses by 3/4, x- = 3/4 by 1/4."""
    policy = forward.line(1.0, behavior=0.0, reference=2.0)
    found = DiffusionNft(beta=1.0, advantage_max=2.0, kl=3.0).loss(policy, two(hold=3.0))
    assert found.terms["positive"].item() == pytest.approx(0.75)
    assert found.terms["negative"].item() == pytest.approx(0.25)
    assert found.terms["policy"].item() == pytest.approx(2 * (0.75 + (0.25 * 0.75 + 0.75 * 0.25)) / 2)
    assert found.terms["kl"].item() == pytest.approx(0.25**2)  # x0 is 0 under the reference
    assert found.terms["moved"].item() == pytest.approx(0.25**2)
    assert found.total.item() == pytest.approx(found.terms["policy"].item() + 3 * 0.25**2)


def test_beta_by_hand() -> None:
    """beta 2: x+ = 2/4 - 1/2 = 0 misses by 1, x- = 3/2 - 2/4 = 1 by nothing."""
    policy = forward.line(1.0, behavior=0.0)
    found = DiffusionNft(beta=2.0, advantage_max=2.0).loss(policy, two())
    assert found.terms["positive"].item() == pytest.approx(1.0)
    assert found.terms["negative"].item() == pytest.approx(0.0)
    assert found.total.item() == pytest.approx((1.0 + 0.25) / 2)
    assert "kl" in found.terms and found.terms["kl"].item() == 0.0


def test_the_gradient_by_finite_differences() -> None:
    """Of the loss whose adaptive weights are constants, those at the point."""
    policy, drawn, beta = forward.line(0.4, behavior=0.1, reference=-0.3), forward.random_items(hold=0.2), 0.7
    drawn = replace(drawn, weight=torch.tensor([0.9, 0.2, 0.5], dtype=torch.float64))
    objective = DiffusionNft(beta=beta, advantage_max=3.0, kl=0.2)
    x = add_noise(policy.schedule, drawn.x0, drawn.noise.at(0), drawn.t)

    def clean(theta: float) -> torch.Tensor:
        return x - drawn.t[:, None] * theta * x

    def errors(theta: float) -> list[torch.Tensor]:
        mixed = [(1 - beta) * clean(0.1) + beta * clean(theta), (1 + beta) * clean(0.1) - beta * clean(theta)]
        return [each - drawn.x0 for each in mixed]

    scales = [each.abs().mean(1) for each in errors(0.4)]

    def loss(theta: float) -> float:
        good, bad = ((each**2).mean(1) / scale for each, scale in zip(errors(theta), scales, strict=True))
        held = ((clean(theta) - clean(-0.3)) ** 2).mean()
        return float(3.0 / beta * (drawn.weight * good + (1 - drawn.weight) * bad).mean() + 0.2 * held)

    found = objective.loss(policy, drawn).total
    assert found.item() == pytest.approx(loss(0.4), rel=1e-9)
    expected = (loss(0.4 + 1e-5) - loss(0.4 - 1e-5)) / 2e-5
    assert forward.slope(policy, found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("beta", "most"), [(1.0, 5.0), (0.1, 2.5)])
def test_where_live_is_behavior_the_gradient_is_the_advantage_times_that_of_the_fit(beta: float, most: float) -> None:
    policy, drawn = forward.line(0.4, behavior=0.4), forward.random_items()
    advantage = drawn.weight
    good = replace(drawn, weight=advantage / most / 2 + 0.5)
    found = forward.slope(policy, DiffusionNft(beta=beta, advantage_max=most).loss(policy, good).total)
    x = add_noise(policy.schedule, drawn.x0, drawn.noise.at(0), drawn.t)
    error = x - drawn.t[:, None] * forward.theta(policy) * x - drawn.x0
    fit = (error**2).mean(1) / error.detach().abs().mean(1)
    assert found == pytest.approx(forward.slope(policy, (advantage * fit).mean()), rel=1e-9)


@pytest.mark.parametrize("family", families.OUTPUTS)
def test_every_family_mixes_its_own_output(family: str) -> None:
    """Mixed as epsilon, v or velocity, and then read as clean latents, the loss is the same."""
    policy, beta = families.policy(family), 0.7
    policy.allocate(frozenset({Weights.BEHAVIOR}))
    tiny.nudge(policy)
    objective = DiffusionNft(beta=beta, times="uniform", times_per_image=2)
    scored, _ = forward.collector(objective).collect(policy, 0)
    drawn = objective.prepare(policy, scored, torch.Generator().manual_seed(0))
    schedule, cond, x0 = policy.schedule, drawn.cond.take(drawn.row), drawn.x0[drawn.row]
    noise = drawn.noise.at(0)
    x = add_noise(schedule, x0, noise, drawn.t)
    with torch.no_grad():
        new = schedule.native(policy.predict(x, drawn.t, cond), drawn.t)
        with policy.using(Weights.BEHAVIOR):
            old = schedule.native(policy.predict(x, drawn.t, cond), drawn.t)
    assert float((new - old).abs().max()) > 1e-3
    parts = []
    for output in ((1 - beta) * old + beta * new, (1 + beta) * old - beta * new):
        error = schedule.read(output, x, drawn.t).x0 - x0
        parts.append((error**2 / expand(error.abs().flatten(1).mean(1), error)).flatten(1).mean(1))
    expected = 5.0 / beta * (drawn.weight * parts[0] + (1 - drawn.weight) * parts[1]).mean()
    assert objective.loss(policy, drawn).total.item() == pytest.approx(float(expected), rel=1e-3)


def test_an_advantage_becomes_a_share_of_good() -> None:
    policy = tiny.policy()
    objective = DiffusionNft(advantage_max=2.0, times_per_image=1)
    policy.allocate(frozenset({Weights.BEHAVIOR}))
    scored, _ = forward.collector(objective).collect(policy, 0)
    given = replace(scored, advantage=torch.tensor([-9.0, -2.0, -1.0, 0.0, 0.0, 1.0, 2.0, 9.0]))
    drawn = objective.prepare(policy, given, torch.Generator())
    assert drawn.weight.tolist() == [0.0, 0.0, 0.25, 0.5, 0.5, 0.75, 1.0, 1.0]
    with pytest.raises(UserError, match="set credit.gae_lambda to null"):
        objective.prepare(policy, replace(scored, advantage=torch.zeros(8, 4)), torch.Generator())


def test_lags_by_hand() -> None:
    assert [DiffusionNft().decay(step) for step in (0, 1, 250, 500, 9000)] == pytest.approx(
        [0.0, 0.001, 0.25, 0.5, 0.5]
    )
    second = DiffusionNft(lag=0.999, lag_rise=0.0075, lag_flat=75)
    assert [second.decay(step) for step in (0, 75, 76, 9000)] == pytest.approx([0.0, 0.0, 0.0075, 0.999])
    assert DiffusionNft(lag=0.0).decay(77) == 0.0


@FULL
def test_the_behavior_weights_lag_and_sample(full: bool) -> None:
    """After step 0 they are LIVE's to the bit, after step 1 a half of each; and they draw the pictures."""
    policy = tiny.policy(full=full)
    made = forward.trainer(policy, DiffusionNft(lag=0.5, lag_rise=0.5), micro=5)
    start = policy.state()
    made.step(0)
    first = policy.state()
    assert any(not torch.equal(first[name], value) for name, value in start.items())
    assert all(torch.equal(policy.state(Weights.BEHAVIOR)[name], value) for name, value in first.items())
    made.step(1)
    second, behavior = policy.state(), policy.state(Weights.BEHAVIOR)
    for name, value in behavior.items():
        torch.testing.assert_close(value, (first[name] + second[name]) / 2, atol=1e-7, rtol=1e-6)
    collector = forward.collector(DiffusionNft())
    drawn, _ = collector.collect(policy, 2)
    live, _ = replace(collector, behavior=Weights.LIVE).collect(policy, 2)
    assert not torch.equal(drawn.rollout.latents, live.rollout.latents)
    policy.load_state(behavior)
    live, _ = replace(collector, behavior=Weights.LIVE).collect(policy, 2)
    assert torch.equal(drawn.rollout.latents, live.rollout.latents)


@FULL
def test_resumed_is_uninterrupted(full: bool, tmp_path: Path) -> None:
    def made() -> tuple[Policy, DiffusionNft]:
        return tiny.policy(full=full), DiffusionNft(kl=0.1, lag_flat=1, lag_rise=0.2)

    straight, stopped, resumed = (forward.trainer(*made(), adam=True, micro=8, updates=2) for _ in range(3))
    for number in range(4):
        straight.step(number)
    for number in range(2):
        stopped.step(number)
    saved = save_checkpoint(tmp_path, stopped, done=2)
    assert (saved / "behavior.safetensors").is_file()
    for number in range(load_checkpoint(saved, resumed), 4):
        resumed.step(number)
    assert resumed.objective.state() == straight.objective.state() == {"steps": 4}
    for which in (Weights.LIVE, Weights.BEHAVIOR):
        ours, theirs = resumed.policy.state(which), straight.policy.state(which)
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    live = straight.policy.state()
    assert any(not torch.equal(straight.policy.state(Weights.BEHAVIOR)[name], value) for name, value in live.items())


def test_who_samples_has_to_agree_with_who_is_compared() -> None:
    objective = DiffusionNft()
    on_policy = replace(forward.collector(objective), behavior=Weights.LIVE)
    with pytest.raises(UserError, match="set the collector's behavior to Weights.BEHAVIOR"):
        forward.trainer(tiny.policy(), objective, on_policy)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiffusionNft(beta=0.0), "beta is 0.0"),
        (lambda: DiffusionNft(advantage_max=-1.0), "advantage_max -1.0"),
        (lambda: DiffusionNft(kl=-1.0), "kl is -1.0"),
        (lambda: DiffusionNft(lag=1.0), "lag lies from 0 to below 1"),
        (lambda: DiffusionNft(lag_flat=-1), "lag_flat -1"),
        (lambda: DiffusionNft(times_per_image=0), "times_per_image is 0"),
    ],
)
def test_impossible_options(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
