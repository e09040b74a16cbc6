"""PRDP: the regression by hand, its gradient by finite differences, its pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from safediffusion.collect.base import Scored
from safediffusion.core.errors import UserError
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.dynamics import Ddim
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.prdp import PairItems, Prdp
from safediffusion.train.loop import Trainer
from safediffusion.train.optim import LearningRate
from tests import direct, tiny, training
from tests.diffusion.test_unroll import finite

SCORERS = (training.Brightness(),)
PLAN = Plan(steps=3, dynamics=Ddim(1.0))


def experience(policy: Policy, plan: Plan = PLAN, size: int = 4) -> Scored:
    return training.collector(SCORERS, plan=plan, size=size).collect(policy, 0)[0]


def prepared(policy: Policy, objective: Prdp, plan: Plan = PLAN) -> PairItems:
    policy.allocate(objective.needs)
    return objective.freeze(policy, objective.prepare(policy, experience(policy, plan), torch.Generator()))


def trainer(policy: Policy, objective: Prdp, *, micro: int, updates: int = 1) -> Trainer[Scored, PairItems]:
    plan = Plan(steps=3, guidance=2.0, dynamics=Ddim(1.0))
    return Trainer(
        policy=policy,
        collector=training.collector(SCORERS, plan=plan),
        objective=objective,
        optimizer=torch.optim.SGD(policy.parameters(), lr=0.3),
        rate=LearningRate(peak=0.3),
        updates=updates,
        micro=micro,
        max_norm=None,
    )


def test_pairs_share_a_prompt_and_the_difference_is_that_of_their_rewards() -> None:
    policy = tiny.policy(trained=True)
    scored = experience(policy)
    items = Prdp().prepare(policy, scored, torch.Generator())
    assert scored.rollout.transitions is not None
    assert items.row.tolist() == [0, 2, 4, 6] and items.step.x.shape[:3] == (4, 2, 3)
    assert torch.equal(items.step.x[1, 1], scored.rollout.transitions.x[3])
    reward = scored.scores["brightness"]
    assert torch.equal(items.delta, reward[0::2] - reward[1::2]) and float(items.delta.abs().min()) > 0


def test_frozen_are_the_log_probabilities_before_and_those_of_the_reference() -> None:
    policy = tiny.policy(trained=True)
    items = prepared(policy, Prdp())
    recorded = experience(policy).rollout.transitions
    assert recorded is not None
    torch.testing.assert_close(items.step.log_prob, recorded.log_prob.view(4, 2, 3), atol=1e-5, rtol=0)
    with policy.using(Weights.REFERENCE):
        same = Prdp().freeze(policy, items)
    assert torch.equal(same.step.log_prob, same.reference)
    torch.testing.assert_close(same.reference, items.reference, atol=1e-6, rtol=0)
    assert not torch.allclose(items.reference, items.step.log_prob, atol=1e-4)


def test_the_regression_by_hand() -> None:
    """Two pairs of one step each with chosen log-probabilities: one inside the clip, one outside of it."""
    policy = tiny.policy(trained=True)
    objective = Prdp(beta=2.0, clip=0.1)
    items = prepared(policy, objective).take(torch.tensor([0, 1]))
    one = {name: getattr(items.step, name)[:, :, :1] for name in ("x", "x_next", "t", "t_next")}
    now = items.step.log_prob[:, :, :1]
    rho = torch.tensor([[0.05, -0.05], [0.30, 0.00]])[..., None]
    base = torch.tensor([[0.20, 0.10], [0.00, 0.40]])[..., None]  # log pi_old - log pi_ref
    few = replace(
        items,
        delta=torch.tensor([0.5, 1.0]),
        step=replace(items.step, **one, log_prob=now - rho),
        reference=now - rho - base,
    )
    found = objective.loss(policy, few)
    first = 2 * ((0.05 + 0.20) - (-0.05 + 0.10)) - 0.5  # -0.1
    second, bounded = 2 * (0.30 - 0.40) - 1.0, 2 * (0.10 - 0.40) - 1.0  # -1.2 and -1.6: the larger square counts
    assert found.total.item() == pytest.approx((first**2 + max(second**2, bounded**2)) / 2, rel=1e-3)
    assert found.terms["clipped"].item() == 0.25 and found.terms["agreement"].item() == 0.5


def test_at_the_reference_the_loss_is_the_squared_difference_of_rewards() -> None:
    policy, objective = tiny.policy(), Prdp()
    items = prepared(policy, objective)
    found = objective.loss(policy, items)
    assert found.total.item() == pytest.approx(float((items.delta**2).mean()), rel=1e-5)
    assert found.terms["clipped"].item() == 0.0


@pytest.mark.parametrize("checkpoint", [False, True], ids=["kept", "again"])
@pytest.mark.parametrize("clip", [1e-3, 10.0], ids=["clipped", "free"])
def test_the_gradient_is_that_of_finite_differences(clip: float, checkpoint: bool) -> None:
    """After weights have moved, so that some steps are outside of a narrow clip."""
    policy = tiny.policy(trained=True)
    objective = Prdp(beta=3.0, clip=clip, checkpoint=checkpoint)
    items = prepared(policy, objective)
    tiny.nudge(policy, seed=5, size=0.02)
    found = objective.loss(policy, items)
    slope = direct.slope(policy, found.total)
    assert (found.terms["clipped"].item() > 0) is (clip < 1)
    with torch.no_grad():
        measured = finite(policy, lambda: objective.loss(policy, items).total.item(), slope / slope.norm(), 1e-3)
    assert measured == pytest.approx(float(slope.norm()), rel=2e-2)


def test_its_step_is_that_of_the_policy_gradient_of_the_difference() -> None:
    """At the reference the gradient is -2 beta (r_a - r_b) grad (log p_a - log p_b)."""
    policy, objective = tiny.policy(), Prdp(beta=1.5)
    items = prepared(policy, objective)
    found = direct.slope(policy, objective.loss(policy, items).total)
    now = torch.stack([objective._log_prob(policy, items, k) for k in range(3)], -1).sum(-1)
    expected = direct.slope(policy, (-2 * 1.5 * items.delta * (now[:, 0] - now[:, 1])).mean())
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("updates", [1, 2])
def test_micro_batches_do_not_change_the_update(updates: int) -> None:
    ends: list[Tensor] = []
    for micro in (100, 1, 3):
        policy = tiny.policy(trained=True)
        trainer(policy, Prdp(beta=2.0), micro=micro, updates=updates).step(0)
        ends.append(tiny.flat(policy))
    assert float((ends[0] - tiny.flat(tiny.policy(trained=True))).abs().max()) > 1e-4
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_forecast_is_what_the_network_really_did(checkpoint: bool) -> None:
    policy, seen = tiny.policy(), list[int]()
    made = trainer(policy, Prdp(checkpoint=checkpoint), micro=3)
    hook = policy.backbone.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    metrics = made.step(0)
    hook.remove()
    volume = made.collector.volume(policy, 0)
    forecast = made.objective.forecast(volume)
    assert sum(seen) == metrics["unet_forwards"] == volume.forwards + forecast.forwards
    assert metrics["unet_backwards"] == forecast.backwards == 8 * 3


def test_what_it_cannot_learn_from_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, objective = tiny.policy(), Prdp()
    with pytest.raises(UserError, match="a group has 3; set group_size even"):
        objective.prepare(policy, experience(policy, size=3), torch.Generator())
    bare, _ = replace(training.collector(SCORERS), record=False).collect(policy, 0)
    with pytest.raises(UserError, match="learns from recorded steps: make the collector with record=True"):
        objective.prepare(policy, bare, torch.Generator())
    for beta, clip in ((0.0, 1.0), (1.0, -1.0)):
        with pytest.raises(UserError, match="both must be above 0"):
            Prdp(beta=beta, clip=clip)
    scored = experience(policy)
    monkeypatch.setattr(Policy, "sharded", property(lambda self: True))
    with pytest.raises(UserError, match="weights.shard=false"):
        objective.prepare(policy, scored, torch.Generator())
