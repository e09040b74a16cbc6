"""The GRPO loss against numbers worked out by hand, and what it chooses to train on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from safediffusion.collect.base import Scored
from safediffusion.core.errors import UserError
from safediffusion.diffusion.denoise import Plan, reverse_step
from safediffusion.diffusion.dynamics import Ddim
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.grpo import Grpo, StepItems
from tests import tiny, training


@pytest.fixture(scope="module")
def collected() -> tuple[Policy, Scored, StepItems]:
    policy = tiny.policy(trained=True)
    return policy, *training.experience(policy, training.collector())


def shifted(policy: Policy, items: StepItems, log_ratio: list[float], advantage: list[float]) -> StepItems:
    """The first items with old log-probabilities such that log rho is `log_ratio`, and these advantages."""
    few = items.take(torch.arange(len(log_ratio)))
    few = Grpo(anchor="recompute").freeze(policy, few)
    step = replace(few.step, log_prob=few.step.log_prob - torch.tensor(log_ratio))
    return replace(few, step=step, advantage=torch.tensor(advantage))


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.1, 2.0, -2.2),  # inside the clip: -A rho
        (1.5, 2.0, -2.4),  # rewarded too far up: clipped at 1.2
        (0.5, 2.0, -1.0),  # rewarded and gone down: not clipped, max(-1, -1.6)
        (0.5, -2.0, 1.6),  # punished too far down: clipped at 0.8
        (1.5, -2.0, 3.0),  # punished and gone up: not clipped
    ],
)
def test_the_clipped_surrogate_by_hand(
    collected: tuple[Policy, Scored, StepItems], ratio: float, advantage: float, expected: float
) -> None:
    policy, _, items = collected
    found = Grpo(clip=0.2, anchor="rollout").loss(policy, shifted(policy, items, [math.log(ratio)], [advantage]))
    assert found.total.item() == pytest.approx(expected, rel=1e-4)
    assert found.terms["ratio"].item() == pytest.approx(ratio, rel=1e-4)
    assert found.terms["clipped"].item() == float(not 0.8 <= ratio <= 1.2)


def test_the_loss_is_a_mean_over_items(collected: tuple[Policy, Scored, StepItems]) -> None:
    policy, _, items = collected
    both = shifted(policy, items, [math.log(1.1), math.log(1.5)], [2.0, 2.0])
    assert Grpo(clip=0.2, anchor="rollout").loss(policy, both).total.item() == pytest.approx((-2.2 - 2.4) / 2, rel=1e-4)


def test_the_gradient_is_that_of_the_policy_gradient(collected: tuple[Policy, Scored, StepItems]) -> None:
    """At ratio 1 the gradient of the surrogate is -A grad log pi, also on the edge of the clip."""
    policy, _, items = collected
    few = items.take(torch.arange(3))
    Grpo(anchor="first_pass").loss(policy, few).total.backward()  # type: ignore[no-untyped-call]
    found = [p.grad.clone() for p in policy.parameters() if p.grad is not None]
    for p in policy.parameters():
        p.grad = None
    s = few.step
    now = reverse_step(policy, few.plan, few.cond.take(few.row), s)
    (-(few.advantage * now.log_prob(s.x_next)).mean()).backward()  # type: ignore[no-untyped-call]
    for parameter, gradient in zip(policy.parameters(), found, strict=True):
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-7, rtol=1e-4)
        parameter.grad = None


def test_kl_by_its_closed_form(collected: tuple[Policy, Scored, StepItems]) -> None:
    policy, _, items = collected
    few = replace(items.take(torch.arange(5)), hold=torch.full((5,), 0.5))
    loss = Grpo(kl=0.5, anchor="first_pass").loss(policy, few)
    s, cond = few.step, few.cond.take(few.row)
    with torch.no_grad():
        now = reverse_step(policy, few.plan, cond, s)
        with policy.using(Weights.REFERENCE):
            reference = reverse_step(policy, few.plan, cond, s)
    expected = ((now.mean - reference.mean) ** 2 / (2 * now.std**2)).mean()
    assert float(expected) > 0
    assert loss.terms["kl"].item() == pytest.approx(float(expected), rel=1e-5)
    assert loss.total.item() == pytest.approx(loss.terms["policy"].item() + 0.5 * float(expected), rel=1e-5)


def test_kl_is_zero_at_the_start() -> None:
    policy = tiny.policy()
    _, items = training.experience(policy, training.collector())
    held = replace(items, hold=torch.ones(len(items)))
    assert Grpo(kl=1.0).loss(policy, held).terms["kl"].item() == 0.0


def test_safe_prompts_can_be_held_to_the_reference_alone(collected: tuple[Policy, Scored, StepItems]) -> None:
    """hold is kl_safe for prompts labelled safe and kl for the others; only held items are compared."""
    policy, scored, _ = collected
    objective = Grpo(kl_safe=0.5, anchor="first_pass")
    items = objective.prepare(policy, scored, torch.Generator())
    safe = torch.tensor([scored.rollout.prompts[row].tags["label"] == "safe" for row in items.row.tolist()])
    assert bool(safe.any()) and not bool(safe.all())
    assert items.hold.tolist() == [0.5 if held else 0.0 for held in safe.tolist()]
    both = Grpo(kl=0.1, kl_safe=0.5).prepare(policy, scored, torch.Generator()).hold
    assert sorted(set(both.tolist())) == pytest.approx([0.1, 0.5])
    assert set(Grpo(kl=0.1).prepare(policy, scored, torch.Generator()).hold.tolist()) == {float(torch.tensor(0.1))}
    assert Weights.REFERENCE in objective.needs and Weights.REFERENCE not in Grpo(kl_safe=0.0).needs

    mixed, held = objective.loss(policy, items), items.take(safe.nonzero().flatten())
    alone = objective.loss(policy, held)
    share = len(held) / len(items)
    assert alone.terms["kl"].item() > 0
    assert mixed.terms["kl"].item() == pytest.approx(share * alone.terms["kl"].item(), rel=1e-4)
    penalty = mixed.total.item() - mixed.terms["policy"].item()
    assert penalty == pytest.approx(0.5 * mixed.terms["kl"].item(), rel=1e-3)
    assert objective.cost(items).forwards == len(items) + len(held)


def test_items_are_all_steps_of_all_images(collected: tuple[Policy, Scored, StepItems]) -> None:
    _, scored, items = collected
    assert scored.rollout.transitions is not None
    assert len(items) == 8 * 4 and items.row.tolist() == [i for i in range(8) for _ in range(4)]
    assert torch.equal(items.step.x[5], scored.rollout.transitions.x[1, 1])
    assert torch.equal(items.advantage[4:8], scored.advantage[1].expand(4))


def test_steps_per_image_is_a_random_subset_by_the_image_number(collected: tuple[Policy, Scored, StepItems]) -> None:
    policy, scored, _ = collected
    objective = Grpo(steps_per_image=2)

    def prepared(experience: Scored) -> StepItems:
        return objective.prepare(policy, experience, torch.Generator().manual_seed(3))

    whole = prepared(scored)
    assert len(whole) == 16 and whole.row.tolist() == [i for i in range(8) for _ in range(2)]
    times = whole.step.t.view(8, 2)
    assert bool((times[:, 0] > times[:, 1]).all())  # two different steps each, in order
    assert len({tuple(row) for row in times.tolist()}) > 1
    second = prepared(scored.take(torch.arange(4, 8)))  # what the second of two processes would hold
    assert torch.equal(second.step.t, whole.step.t[8:]) and torch.equal(second.step.x, whole.step.x[8:])


def test_images_per_group_keeps_both_ends(collected: tuple[Policy, Scored, StepItems]) -> None:
    policy, scored, _ = collected
    ranked = replace(scored, advantage=torch.tensor([0.1, -2.0, 1.0, 0.5, 3.0, 2.0, 1.0, 0.0]))
    items = Grpo(images_per_group=3).prepare(policy, ranked, torch.Generator())
    assert sorted(set(items.row.tolist())) == [1, 2, 3, 4, 5, 7]  # worst and two best of each four


def test_idle_items_are_those_without_a_gradient(collected: tuple[Policy, Scored, StepItems]) -> None:
    _, _, items = collected
    few = replace(items.take(torch.arange(3)), advantage=torch.tensor([0.0, 1.0, -0.0]))
    assert Grpo().idle(few).tolist() == [True, False, True]
    held = replace(few, hold=torch.tensor([0.1, 0.0, 0.0]))
    assert Grpo(kl=0.1).idle(held).tolist() == [False, False, True]
    assert Grpo(skip_idle=False).idle(few).tolist() == [False] * 3


@pytest.mark.parametrize(
    ("objective", "plan"),
    [
        (Grpo(), training.PLAN),
        (Grpo(kl=0.1, anchor="recompute"), Plan(steps=4, guidance=2.0)),
        (Grpo(steps_per_image=2, images_per_group=2), Plan(steps=4, window=(0, 3))),
        (Grpo(kl=0.1), Plan(steps=4, guidance=2.0, keep_unconditional_grad=True)),
    ],
)
def test_the_forecast_is_what_the_network_really_did(objective: Grpo, plan: Plan) -> None:
    """Forwards are counted at the network, sample by sample; the metrics and the forecast must agree with it."""
    policy = tiny.policy()
    collector = training.collector(plan=plan)
    trainer = training.trainer(policy, collector, replace(objective, skip_idle=False), updates=1, micro=5)
    seen: list[int] = []
    handle = policy.backbone.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    metrics = trainer.step(0)
    handle.remove()
    volume = collector.volume(policy, 0)
    forecast = objective.forecast(volume)
    assert sum(seen) == metrics["unet_forwards"] == volume.forwards + forecast.forwards
    assert metrics["unet_backwards"] == forecast.backwards


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Grpo(steps_per_image=0), "steps_per_image is 0"),
        (lambda: Grpo(images_per_group=0), "images_per_group is 0"),
        (lambda: Grpo(clip=0.0), "clip is 0.0; it must be above 0"),
        (lambda: Grpo(kl=-1.0), "kl is -1.0"),
        (lambda: Grpo(kl_safe=-1.0), "kl_safe -1.0"),
    ],
)
def test_impossible_options(make: Callable[[], Grpo], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_a_rollout_without_transitions_is_refused() -> None:
    policy = tiny.policy()
    scored, _ = replace(training.collector(), record=False).collect(policy, 0)
    with pytest.raises(UserError, match="learns from recorded steps: make the collector with record=True"):
        Grpo().prepare(policy, scored, torch.Generator())
    with pytest.raises(UserError, match="no stochastic step to record"):
        training.collector(plan=Plan(steps=4, dynamics=Ddim(0.0))).collect(policy, 0)


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_what_the_rollout_said_without_a_prompt_is_not_asked_again(full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One update under the weights that sampled: the same weights after it, a forward an item less."""
    plan = Plan(steps=3, guidance=3.0, dynamics=Ddim(1.0))
    asked: list[int] = []
    unconditional = Policy.unconditional

    def counted(self: Policy, x: Tensor, t: Tensor, *, keep_grad: bool = False) -> Tensor:
        asked.append(len(x))
        return unconditional(self, x, t, keep_grad=keep_grad)

    monkeypatch.setattr(Policy, "unconditional", counted)
    ends, forwards = [], []
    for kept in (False, True):
        policy = tiny.policy(full=full, trained=True)
        collector = replace(training.collector((training.Brightness(),), plan=plan), keep_bare=kept)
        trainer = training.trainer(policy, collector, Grpo(kl=0.1), lr=1e-2, sgd=True, micro=5)
        metrics = [trainer.step(number) for number in range(2)]
        ends.append(tiny.flat(policy))
        forwards.append(metrics[0]["unet_forwards"])
        assert all(each["loss/ratio"] == 1.0 for each in metrics)
    items = 8 * 3
    assert forwards[0] - forwards[1] == items
    # of each of two steps: for policy and reference; or in the rollout, and for the reference
    assert sum(asked) == 2 * (2 * items) + 2 * (items + items)
    torch.testing.assert_close(ends[1], ends[0], atol=1e-6, rtol=1e-5)


def test_only_a_single_update_uses_what_the_rollout_said() -> None:
    plan = Plan(steps=3, guidance=3.0, dynamics=Ddim(1.0))
    collector = replace(training.collector((training.Brightness(),), plan=plan), keep_bare=True)
    scored, _ = collector.collect(tiny.policy(trained=True), 0)
    generator = torch.Generator()
    for anchor, used in (("first_pass", True), ("recompute", False), ("rollout", False)):
        items = Grpo(anchor=anchor).prepare(tiny.policy(), scored, generator)  # type: ignore[arg-type]
        assert (items.step.bare is not None) is used
