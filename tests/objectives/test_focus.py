"""Focus-N-Fix: the loss by hand, its gradient, and a picture that stays as it was outside its region."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from safediffusion.collect.reward import Reward
from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.diffusion.denoise import Plan, denoise
from safediffusion.diffusion.dynamics import Ddim
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.focus import FocusNFix, distance_outside, focus_n_fix
from safediffusion.objectives.through_steps import PictureItems
from tests import direct, tiny
from tests.diffusion.test_unroll import finite
from tests.direct import PLAN

TWO = torch.tensor([0, 3])


@dataclass(frozen=True, slots=True)
class Half:
    """The left half of every picture."""

    def __call__(self, images: Tensor, prompts: tuple[Prompt, ...], reward: Reward) -> Tensor:
        mask = torch.zeros(len(images), 1, *images.shape[-2:])
        mask[..., : images.shape[-1] // 2] = 1
        return mask


def pictures(policy: Policy, items: PictureItems, which: Weights) -> Tensor:
    with torch.no_grad(), policy.using(which):
        return policy.decode(denoise(policy, items.cond, items.noise, items.plan)[0])


def test_the_distance_by_hand() -> None:
    start, mask = torch.zeros(2, 3, 2, 2), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]).expand(2, 1, 2, 2)
    images = start.clone()
    images[0, 0, 0, 0] = 0.9  # inside
    images[0, 1, 1, 1], images[0, 2, 0, 1] = 0.3, -0.4  # outside
    found = distance_outside(images.requires_grad_(), start, mask)
    assert found.tolist() == pytest.approx([0.5 / 12**0.5, 0.0])
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None and bool(images.grad.isfinite().all())
    assert images.grad[0, 0, 0, 0] == 0 and float(images.grad[1].abs().max()) == 0  # none inside, none where equal


def test_the_loss_by_hand_on_two_pictures() -> None:
    policy, objective = tiny.policy(trained=True), focus_n_fix(region=Half(), beta=3.0)
    few = direct.items(policy, objective).take(TWO)
    now, start = (pictures(policy, few, which) for which in (Weights.LIVE, Weights.REFERENCE))
    side = now.shape[-1]
    change = (now - start)[..., side // 2 :].double()
    outside = ((change**2).sum((1, 2, 3)) / (3 * side * side)).sqrt().mean().item()
    found = objective.loss(policy, few)
    assert outside > 1e-3 and found.terms["outside"].item() == pytest.approx(outside, rel=1e-4)
    assert found.total.item() == pytest.approx(-now.mean().item() + 3 * outside, rel=1e-4)
    assert found.terms["region/share"].item() == 0.5 and set(found.terms) == set(objective.terms)


def test_a_picture_that_does_not_change_costs_nothing() -> None:
    policy, objective = tiny.policy(), focus_n_fix(region=Half(), beta=1e6)
    found = objective.loss(policy, direct.items(policy, objective))
    assert found.terms["outside"].item() == 0.0 and bool(direct.slope(policy, found.total).isfinite().all())


@pytest.mark.parametrize("checkpoint", [False, True], ids=["kept", "again"])
def test_the_gradient_is_that_of_finite_differences(checkpoint: bool) -> None:
    policy, plan = tiny.policy(trained=True), Plan(steps=2, dynamics=Ddim(1.0))
    objective = focus_n_fix(region=Half(), beta=2.0, last=2, kl=1.0, checkpoint=checkpoint)
    few = direct.items(policy, objective, plan).take(TWO)
    slope = direct.slope(policy, objective.loss(policy, few).total)
    with torch.no_grad():
        measured = finite(policy, lambda: objective.loss(policy, few).total.item(), slope / slope.norm(), 0.02)
    assert measured == pytest.approx(float(slope.norm()), rel=2e-2)


def changes(beta: float) -> tuple[float, float]:
    """Root mean square changes inside and outside the region after a few updates on the same pictures."""
    policy, objective = tiny.policy(full=True), focus_n_fix(region=Half(), beta=beta, last=4)
    few, optimizer = direct.items(policy, objective), torch.optim.Adam(policy.parameters(), lr=2e-4)
    before = pictures(policy, few, Weights.LIVE)
    for _ in range(10):
        optimizer.zero_grad()
        objective.loss(policy, few).total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    moved = (pictures(policy, few, Weights.LIVE) - before) ** 2
    half = moved.shape[-1] // 2
    return moved[..., :half].mean().sqrt().item(), moved[..., half:].mean().sqrt().item()


def test_with_a_large_beta_the_outside_stays_while_the_inside_moves() -> None:
    free, held = changes(0.0), changes(3.0)
    assert free[0] < 1.5 * free[1]  # nothing holds one half more than the other
    assert held[1] < free[1] / 4 and held[0] > 1.5 * held[1] and held[0] > 5e-3


def test_micro_batches_do_not_change_the_update_and_the_cost_is_what_was_done() -> None:
    plan = Plan(steps=4, guidance=2.0, dynamics=Ddim(0.0))
    objective, ends = focus_n_fix(region=Half(), beta=0.5, last=2, kl=0.3, checkpoint=True), list[Tensor]()
    for micro in (100, 1, 4):
        policy, seen = tiny.policy(trained=True), list[int]()
        trainer = direct.trainer(policy, objective, plan, micro=micro, updates=2, lr=3.0)
        hook = policy.backbone.network.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(len(given[0])))
        metrics = trainer.step(0)
        hook.remove()
        forecast = objective.forecast(trainer.collector.volume(policy, 0))
        assert (sum(seen), metrics["unet_backwards"]) == forecast and metrics["unet_forwards"] == forecast.forwards
        assert metrics["region/share"] == 0.5 and metrics["loss/outside"] > 0
        ends.append(tiny.flat(policy))
    assert float((ends[0] - tiny.flat(tiny.policy(trained=True))).abs().max()) > 1e-4
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], atol=2e-6, rtol=1e-4)


def test_a_weight_below_zero_is_refused() -> None:
    with pytest.raises(UserError, match="must weigh 0 or more"):
        focus_n_fix(region=Half(), beta=-1.0)


def test_pictures_that_are_left_early_are_compared_where_they_are_left() -> None:
    policy, plan = tiny.policy(), replace(PLAN, dynamics=Ddim(1.0))
    objective = FocusNFix(region=Half(), early=(1, 2))
    assert objective.loss(policy, direct.items(policy, objective, plan)).terms["outside"].item() == 0.0
