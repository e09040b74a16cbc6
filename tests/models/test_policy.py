"""Guidance and the sets of weights of a policy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from safediffusion.core.types import Conditioning
from safediffusion.models.policy import Policy, Weights
from tests import tiny


def inputs(policy: Policy) -> tuple[Tensor, Tensor, Conditioning]:
    x = torch.randn(4, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([900.0, 500.0, 100.0, 1.0]), policy.encode(tiny.PROMPTS)


def slope(policy: Policy, value: Tensor) -> Tensor:
    """d mean(value) / d parameters, flattened."""
    pieces = torch.autograd.grad(value.mean(), policy.parameters())
    return torch.cat([piece.flatten() for piece in pieces])


@pytest.fixture(scope="module")
def policy() -> Policy:
    return tiny.policy(trained=True)


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("keep", [True, False])
def test_guidance_is_the_combination_of_both_branches(policy: Policy, joint: bool, keep: bool) -> None:
    x, t, cond = inputs(policy)
    raw = policy.backbone.forward(policy.backbone.network, x, t, cond)
    bare = policy.backbone.forward(policy.backbone.network, x, t, policy.backbone.unconditional(4))
    expected = policy.schedule.read(bare + 3 * (raw - bare), x, t)
    known = None if joint else policy.unconditional(x, t, keep_grad=keep)
    guided = policy.predict(x, t, cond, guidance=3.0, bare=known, keep_unconditional_grad=keep)
    torch.testing.assert_close(guided.x0, expected.x0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(guided.noise, expected.noise, atol=1e-5, rtol=1e-5)
    # detached, only w * raw carries the gradient; kept, the unconditional branch adds (1 - w) * bare
    carrier = policy.schedule.read(3 * raw + (-2 * bare if keep else 0), x, t).noise
    torch.testing.assert_close(slope(policy, guided.noise), slope(policy, carrier), atol=1e-7, rtol=1e-4)


def test_the_default_detaches_the_unconditional_branch(policy: Policy) -> None:
    x, t, cond = inputs(policy)
    default = slope(policy, policy.predict(x, t, cond, guidance=3.0).noise)
    kept = slope(policy, policy.predict(x, t, cond, guidance=3.0, keep_unconditional_grad=True).noise)
    assert float((default - kept).norm()) > 0.1 * float(kept.norm())


def test_guidance_one_asks_the_network_for_one_branch(policy: Policy) -> None:
    x, t, cond = inputs(policy)
    raw = policy.backbone.forward(policy.backbone.network, x, t, cond)
    assert torch.equal(policy.predict(x, t, cond).noise, policy.schedule.read(raw, x, t).noise)


@pytest.mark.parametrize("full", [False, True])
def test_each_set_of_weights_is_its_own(full: bool) -> None:
    policy = tiny.policy(full=full)
    x, t, cond = inputs(policy)
    start = policy.predict(x, t, cond).noise.detach()
    policy.allocate(frozenset({Weights.REFERENCE, Weights.EMA, Weights.BEHAVIOR}))
    tiny.nudge(policy, seed=1)
    live = policy.predict(x, t, cond).noise.detach()
    policy.refresh(Weights.BEHAVIOR, 0.0)
    tiny.nudge(policy, seed=2)
    moved = policy.predict(x, t, cond).noise.detach()
    with policy.using(Weights.REFERENCE):
        assert torch.equal(policy.predict(x, t, cond).noise, start)
        with policy.using(Weights.BEHAVIOR):
            assert torch.equal(policy.predict(x, t, cond).noise, live)
        with policy.using(Weights.LIVE):
            assert torch.equal(policy.predict(x, t, cond).noise, moved)
        assert torch.equal(policy.predict(x, t, cond).noise, start)
    with policy.using(Weights.EMA):
        assert torch.equal(policy.predict(x, t, cond).noise, start)
    assert torch.equal(policy.predict(x, t, cond).noise.detach(), moved)
    assert not torch.allclose(live, moved) and not torch.allclose(start, live)


@pytest.mark.parametrize("full", [False, True])
def test_the_average_follows_live_at_its_decay(full: bool) -> None:
    policy = tiny.policy(full=full)
    policy.allocate(frozenset({Weights.EMA}))
    before = policy.state(Weights.EMA)
    tiny.nudge(policy)
    policy.refresh(Weights.EMA, 0.75)
    live, after = policy.state(), policy.state(Weights.EMA)
    for name, value in after.items():
        torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * live[name])


@pytest.mark.parametrize("full", [False, True])
def test_a_backward_pass_survives_a_look_at_other_weights(full: bool) -> None:
    """GRPO evaluates the reference between its forward and its backward."""
    policy = tiny.policy(full=full, trained=True)
    policy.allocate(frozenset({Weights.REFERENCE, Weights.EMA}))
    tiny.nudge(policy, seed=3)
    x, t, cond = inputs(policy)
    expected = slope(policy, policy.predict(x, t, cond).noise.square())
    value = policy.predict(x, t, cond).noise.square()
    for which in (Weights.REFERENCE, Weights.EMA):
        with torch.no_grad(), policy.using(which):
            policy.predict(x, t, cond)
    torch.autograd.backward(value.mean())
    grown = [p.grad for p in policy.parameters() if p.grad is not None]
    assert len(grown) == len(policy.parameters())
    torch.testing.assert_close(torch.cat([g.flatten() for g in grown]), expected)


@pytest.mark.parametrize("full", [False, True])
def test_state_round_trip(full: bool) -> None:
    first, second = tiny.policy(full=full), tiny.policy(full=full)
    for policy in (first, second):
        policy.allocate(frozenset({Weights.EMA}))
    tiny.nudge(first)
    first.refresh(Weights.EMA, 0.5)
    second.load_state(first.state())
    second.load_state(first.state(Weights.EMA), Weights.EMA)
    x, t, cond = inputs(first)
    assert torch.equal(first.predict(x, t, cond).noise, second.predict(x, t, cond).noise)
    for which in (Weights.LIVE, Weights.EMA):
        ours, theirs = first.state(which), second.state(which)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    tiny.nudge(second)
    assert all(torch.equal(value, first.state()[name]) for name, value in first.state().items())
    assert not torch.equal(tiny.flat(first), tiny.flat(second))


def test_the_optimizer_moves_live_after_a_swap() -> None:
    policy = tiny.policy(trained=True)
    policy.allocate(frozenset({Weights.EMA}))
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    with policy.using(Weights.EMA):
        pass
    before, average = tiny.flat(policy), policy.state(Weights.EMA)
    x, t, cond = inputs(policy)
    torch.autograd.backward(policy.predict(x, t, cond).noise.square().mean())
    optimizer.step()
    assert not torch.equal(before, tiny.flat(policy))
    assert all(torch.equal(value, average[name]) for name, value in policy.state(Weights.EMA).items())


def test_weights_nobody_asked_for_are_our_own_bug() -> None:
    policy = tiny.policy()
    with pytest.raises(AssertionError, match="'ema' were not allocated"), policy.using(Weights.EMA):
        pass
