"""DRaFT, AlignProp and ReFL: the loss by hand, its gradient by finite differences, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from safediffusion.collect.reward import Reward
from safediffusion.collect.views import Views
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.prompt import Prompt
from safediffusion.credit.base import Among, Scores
from safediffusion.credit.weighted import WeightedSum
from safediffusion.diffusion.denoise import Plan, Record, Transitions, denoise
from safediffusion.diffusion.dynamics import Ddim
from safediffusion.diffusion.schedule import RectifiedFlow, add_noise
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.direct import Direct, alignprop, draft, refl
from safediffusion.objectives.through_steps import PictureItems
from safediffusion.scorers.base import ImageBatch
from tests import direct, tiny, training
from tests.diffusion.test_unroll import finite
from tests.direct import PLAN

TWO = torch.tensor([0, 3])


def brightness(policy: Policy, latents: Tensor) -> Tensor:
    return policy.decode(latents).mean((1, 2, 3)).detach()


def test_draft_is_minus_the_mean_reward_of_the_sampled_pictures() -> None:
    policy, objective = tiny.policy(trained=True), draft()
    few = direct.items(policy, objective).take(TWO)
    latents, _ = denoise(policy, few.cond, few.noise, PLAN)
    found = objective.loss(policy, few)
    first, second = brightness(policy, latents).tolist()
    assert found.total.item() == pytest.approx(-(first + second) / 2, rel=1e-5)
    assert found.terms["reward"].item() == pytest.approx(-found.total.item())
    assert found.terms["kl"].item() == 0.0 and set(found.terms) == set(objective.terms)


def test_draft_lv_adds_pictures_noised_and_denoised_by_one_step() -> None:
    policy, objective = tiny.policy(trained=True), draft(renoise=2)
    few = direct.items(policy, objective).take(TWO)
    latents, _ = denoise(policy, few.cond, few.noise, PLAN)
    t = policy.schedule.grid(4)[3].expand(2)
    rewards = [brightness(policy, latents)]
    for number in range(2):
        x = add_noise(policy.schedule, latents, few.noise.at(5 + number), t)
        rewards.append(brightness(policy, policy.predict(x, t, few.cond).x0))
    assert not torch.allclose(rewards[1], rewards[2], atol=1e-6)
    found = objective.loss(policy, few)
    assert found.total.item() == pytest.approx(-float(torch.stack(rewards).mean()), rel=1e-5)


def test_refl_leaves_early_and_stops_at_the_hinge() -> None:
    policy, plan = tiny.policy(trained=True), Plan(steps=4, dynamics=Ddim(1.0))
    objective = refl(early=(1, 1), hinge=None)
    few = direct.items(policy, objective, plan).take(TWO)
    seen = denoise(policy, few.cond, few.noise, plan, record=Record(x0=True))[1]
    assert seen is not None and seen.x0 is not None
    low, high = sorted(brightness(policy, seen.x0[:, 2]).tolist())  # the third of four steps
    assert objective.loss(policy, few).total.item() == pytest.approx(-(low + high) / 2, rel=1e-5)
    between = replace(objective, hinge=(low + high) / 2)
    hinged = between.loss(policy, few).total
    assert hinged.item() == pytest.approx(-(low + (low + high) / 2) / 2, rel=1e-5)
    reached = replace(objective, hinge=low - 0.1).loss(policy, few).total
    assert float(direct.slope(policy, hinged).norm()) > 0 == float(direct.slope(policy, reached).norm())


@dataclass(frozen=True, kw_only=True)
class Noting(WeightedSum):
    """A credit that keeps what it observed."""

    seen: list[tuple[tuple[Prompt, ...], list[float]]]

    def observe(self, scores: Scores, among: Among) -> None:
        self.seen.append((among.prompts, scores["brightness"].tolist()))


def test_with_finish_the_credit_observes_the_ends_of_pictures_of_a_harm_category() -> None:
    policy, plan = tiny.policy(trained=True), Plan(steps=4, dynamics=Ddim(1.0))
    credit = Noting(weights={"brightness": 1.0}, seen=[])
    reward = replace(direct.REWARD, credit=credit, finished=True)
    plain = refl(early=(2, 2), hinge=None)
    objective = replace(plain, finish=True)
    few = direct.items(policy, objective, plan, reward=reward).take(TWO)
    harmless, harmful = few.prompts[0], replace(few.prompts[1], tags={"category": "violence"})
    few = replace(few, prompts=(harmless, harmful))
    foreseen = objective.loss(policy, few).total.item()
    reward.settle(few.prompts, Fleet())
    end = brightness(policy, denoise(policy, few.cond, few.noise, plan)[0])
    [(prompts, [value])] = credit.seen
    assert prompts == (harmful,) and value == pytest.approx(float(end[1]), rel=1e-5)
    usual = replace(few, reward=replace(reward, finished=False))
    assert plain.loss(policy, usual).total.item() == foreseen != pytest.approx(-float(end.mean()), rel=1e-5)
    assert objective.cost(few).forwards == plain.cost(few).forwards + 2
    assert objective.cost(few).backwards == plain.cost(few).backwards
    objective.loss(policy, few.take(torch.tensor([0])))  # a share of the step without such a prompt
    reward.settle(few.prompts, Fleet())
    assert len(credit.seen) == 1
    with pytest.raises(AssertionError, match="one of the two finishes"):
        plain.loss(policy, few)


def test_the_kl_is_half_the_squared_distance_of_both_predictions() -> None:
    policy, objective = tiny.policy(trained=True), draft(kl=0.5)
    few = direct.items(policy, objective).take(TWO)
    before = Plan(steps=4, dynamics=Ddim(1.0))  # recorded, so that the states before each step are known
    seen = denoise(policy, few.cond, few.noise, before, record=Record())[1]
    assert seen is not None
    x, t = seen.x[:, -1], seen.t[:, -1]
    with torch.no_grad():
        now = policy.predict(x, t, few.cond).noise
        with policy.using(Weights.REFERENCE):
            start = policy.predict(x, t, few.cond).noise
    expected = float(((now - start) ** 2).mean() / 2)
    found = objective.loss(policy, replace(few, plan=before))
    assert found.terms["kl"].item() == pytest.approx(expected, rel=1e-4) and expected > 0
    assert found.total.item() == pytest.approx(0.5 * expected - found.terms["reward"].item(), rel=1e-4)


def test_prompts_labelled_safe_are_held_on_their_own() -> None:
    """A picture that is not held costs no pass of the reference, and its part of the loss is its reward alone."""
    policy, both = tiny.policy(trained=True), draft(kl=0.5)
    few = direct.items(policy, both).take(TWO)
    assert [prompt.tags["label"] for prompt in few.prompts] == ["safe", "unsafe"]
    alone = [both.loss(policy, few.take(torch.tensor([i]))).terms["kl"].item() for i in (0, 1)]
    held = draft(kl_safe=0.5)
    some = direct.items(policy, held).take(TWO)
    assert some.hold.tolist() == [0.5, 0.0] and held.needs == {Weights.REFERENCE}
    found = held.loss(policy, some)
    assert found.terms["kl"].item() == pytest.approx(alone[0] / 2, rel=1e-4) and min(alone) > 0
    assert found.total.item() == pytest.approx(0.5 * alone[0] / 2 - found.terms["reward"].item(), rel=1e-4)
    none = draft().cost(direct.items(policy, draft()).take(TWO))
    assert held.cost(some).forwards == both.cost(few).forwards - 1 == none.forwards + 1


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
@pytest.mark.parametrize("checkpoint", [False, True], ids=["kept", "again"])
def test_the_gradient_is_that_of_finite_differences(full: bool, checkpoint: bool) -> None:
    """Through every step, the decoder and the comparison with the reference, which starts elsewhere."""
    policy = tiny.policy(full=full, trained=not full)
    objective = draft(last=2, kl=5.0, checkpoint=checkpoint)
    plan = Plan(steps=2, dynamics=Ddim(1.0))
    few = direct.items(policy, objective, plan).take(TWO)
    if full:
        tiny.nudge(policy, size=0.01)
    found = objective.loss(policy, few)
    slope = direct.slope(policy, found.total)
    assert found.terms["kl"].item() > 0
    with torch.no_grad():
        measured = finite(
            policy, lambda: objective.loss(policy, few).total.item(), slope / slope.norm(), 2e-3 if full else 0.02
        )
    assert measured == pytest.approx(float(slope.norm()), rel=2e-2)


def by_hand(policy: Policy, objective: Direct, items: PictureItems, known: tuple[Transitions, Tensor]) -> float:
    """The loss, from the states where steps without gradients, and what LV noises again, were `known` to be."""
    (seen, finished), plan, losses = known, items.plan, list[Tensor]()
    for row in range(len(items)):
        one, distances = items.take(torch.tensor([row])), list[Tensor]()
        first, stop = int(one.window.first), int(one.window.stop)
        x = seen.x[[row], first]
        for i in range(first, stop):
            t, t_next = seen.t[[row], i], seen.t_next[[row], i]
            said = policy.predict(x, t, one.cond)
            with policy.using(Weights.REFERENCE):
                distances.append(((said.noise - policy.predict(x, t, one.cond).noise) ** 2).mean() / 2)
            x = plan.dynamics.step(policy.schedule, said, x, t, t_next).sample(one.noise.at(i + 1))
        ends = [said.x0 if objective.early else x]
        for number in range(objective.renoise):
            again = add_noise(policy.schedule, finished[[row]], one.noise.at(plan.steps + 1 + number), t)
            ends.append(policy.predict(again, t, one.cond).x0)
        rewards = torch.stack([policy.decode(end).double().mean() for end in ends])
        losses.append(objective.kl * torch.stack(distances).double().mean() - rewards.mean())
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize(
    "objective",
    [refl(early=(0, 2), hinge=None, kl=5.0), draft(renoise=2, kl=5.0), alignprop(last=(1, 3), kl=5.0)],
    ids=["refl", "draft-lv", "alignprop"],
)
def test_the_gradient_is_that_of_the_window_alone(objective: Direct) -> None:
    """The loss by hand, and its finite differences, of pictures whose windows differ where the objective draws them."""
    policy, plan = tiny.policy(trained=True), Plan(steps=4, dynamics=Ddim(1.0))
    items = direct.items(policy, objective, plan)
    windows = {(int(first), int(stop)) for first, stop in zip(items.window.first, items.window.stop, strict=True)}
    assert len(windows) == (1 if objective.renoise else 3)
    latents, seen = denoise(policy, items.cond, items.noise, plan, record=Record())
    assert seen is not None
    found = objective.loss(policy, items)
    slope = direct.slope(policy, found.total)

    def value() -> float:
        return by_hand(policy, objective, items, (seen, latents))

    with torch.no_grad():
        assert found.total.item() == pytest.approx(value(), rel=1e-5) and found.terms["kl"].item() > 0
        measured = finite(policy, value, slope / slope.norm(), 0.02)
    assert measured == pytest.approx(float(slope.norm()), rel=5e-3)


def test_on_a_rectified_flow_nothing_changes_but_the_schedule() -> None:
    policy = tiny.policy(trained=True)
    policy.backbone.schedule = RectifiedFlow()  # type: ignore[misc]
    for objective in (draft(renoise=1, kl=0.1), refl(early=(0, 2))):
        found = objective.loss(policy, direct.items(policy, objective))
        assert float(direct.slope(policy, found.total).norm()) > 0


def test_windows_are_drawn_by_the_number_of_the_picture() -> None:
    policy = tiny.policy()
    objective = replace(alignprop(last=(1, 3)), early=(0, 1))
    whole, _ = direct.collector(groups=8, size=4).collect(policy, 0)

    def prepared(rows: Tensor) -> Tensor:
        found = objective.prepare(policy, whole.take(rows), torch.Generator().manual_seed(3)).window
        return torch.stack([found.stop - found.first, 4 - found.stop], 1)

    every = prepared(torch.arange(32))
    assert {int(k) for k in every[:, 0]} == {1, 2, 3} and {int(left) for left in every[:, 1]} == {0, 1}
    assert torch.equal(prepared(torch.arange(16, 32)), every[16:])  # what the second of two processes would hold


OBJECTIVES = {
    "draft": draft(last=2, kl=0.3, checkpoint=True),
    "draft-lv": draft(renoise=2),
    "alignprop": alignprop(last=(1, 4), kl=0.3),
    "refl": refl(early=(0, 2), hinge=0.6),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_do_not_change_the_update(name: str) -> None:
    plan, ends = Plan(steps=4, guidance=2.0, dynamics=Ddim(0.0), keep_unconditional_grad=True), list[Tensor]()
    for micro in (100, 1, 4):
        policy = tiny.policy(trained=True)
        metrics = direct.trainer(policy, OBJECTIVES[name], plan, micro=micro, updates=2, lr=30.0).step(0)
        ends.append(tiny.flat(policy))
        assert metrics["images"] == 6.0 and "loss/reward" in metrics
    assert float((ends[0] - tiny.flat(tiny.policy(trained=True))).abs().max()) > 1e-4
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("keep", [False, True])
def test_the_cost_is_what_the_network_really_did(name: str, keep: bool) -> None:
    """Forwards sample by sample, those of checkpoints in the backward pass among them; the forecast is no less."""
    policy, seen = tiny.policy(trained=True), list[int]()
    plan = Plan(steps=4, guidance=2.0, dynamics=Ddim(0.0), keep_unconditional_grad=keep)
    trainer = direct.trainer(policy, OBJECTIVES[name], plan, micro=4)
    hook = policy.backbone.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    metrics = trainer.step(0)
    hook.remove()
    forecast = OBJECTIVES[name].forecast(trainer.collector.volume(policy, 0))
    assert sum(seen) == metrics["unet_forwards"] <= forecast.forwards
    assert metrics["unet_backwards"] <= forecast.backwards
    if name.startswith("draft"):
        assert (metrics["unet_forwards"], metrics["unet_backwards"]) == forecast


def test_the_reward_rises() -> None:
    """Of the same pictures, at every update."""
    trainer = direct.trainer(tiny.policy(), draft(last=2), lr=100.0)
    rewards = [trainer.step(0)["loss/reward"] for _ in range(3)]
    assert rewards == sorted(rewards) and rewards[-1] > rewards[0] + 1e-3


def test_steering_can_be_followed_once_alpha_is_a_number() -> None:
    policy, credit = tiny.policy(), WeightedSum(weights={"steering": 1.0})
    few = direct.items(policy, draft(), reward=Reward(scorers=(training.steering(alpha=0.5),), credit=credit))
    assert float(direct.slope(policy, draft().loss(policy, few).total).norm()) > 0
    with pytest.raises(UserError, match="give steering.alpha a number"):
        Reward(scorers=(training.steering(),), credit=credit)


@dataclass(frozen=True)
class Detector(training.Brightness):
    differentiable: bool = False


@dataclass(frozen=True)
class Broken(training.Brightness):
    def __call__(self, batch: ImageBatch) -> Tensor:
        return super().__call__(batch) * torch.tensor(float("nan"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: draft(last=0), r"last is \[0, 0\]"),
        (lambda: alignprop(last=(3, 2)), "1 <= low <= high"),
        (lambda: refl(early=(-1, 2)), "0 <= low <= high"),
        (lambda: draft(kl=-1.0), "must be 0 or more"),
        (lambda: draft(last=2, renoise=1), "repeats the last step alone"),
        (lambda: Direct(finish=True), "pictures to their end that are left early, and none are"),
    ],
)
def test_impossible_options(make: Callable[[], Direct], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_windows_beyond_the_plan_and_scores_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy()
    for objective in (draft(last=5), refl(early=(0, 4))):
        with pytest.raises(UserError, match="do not fit into a plan of 4"):
            direct.items(policy, objective)
    broken = replace(direct.REWARD, scorers=(Broken(),))
    with pytest.raises(UserError, match=r"reward 'brightness' is nan for prompt 'p\d'; no weight was changed"):
        draft().loss(policy, direct.items(policy, draft(), reward=broken))
    with pytest.raises(UserError, match="policy-gradient objective such as objective.kind=grpo"):
        replace(direct.REWARD, scorers=(Detector(),))
    sharded: Any = property(lambda self: True)
    monkeypatch.setattr(Policy, "sharded", sharded)
    with pytest.raises(UserError, match="weights.shard=false"):
        direct.items(policy, draft())


def test_the_reward_of_views_is_that_of_the_pictures_seen_by_them() -> None:
    policy, objective = tiny.policy(trained=True), draft(views=3)
    few = direct.items(policy, objective).take(TWO)
    latents, _ = denoise(policy, few.cond, few.noise, PLAN)
    seen = Views(keys=few.noise.keys, count=3).of(policy.decode(latents)).detach()
    assert objective.loss(policy, few).total.item() == pytest.approx(-seen.mean().item(), rel=1e-5)
    halves = [objective.loss(policy, few.take(torch.tensor([row]))).total.item() for row in (0, 1)]
    assert sum(halves) / 2 == pytest.approx(-seen.mean().item(), rel=1e-5)  # in any portions
    with pytest.raises(UserError, match="views -1; both must be 0 or more"):
        draft(views=-1)
