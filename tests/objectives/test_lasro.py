"""LaSRO: the surrogate's gradient on latents, the policy at rest, and a run that goes on where it stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from safediffusion.collect.base import Learning
from safediffusion.collect.latent_reward import rank_accuracy
from safediffusion.collect.prompts_only import Prompted
from safediffusion.collect.surrogate import Surrogate
from safediffusion.core.errors import UserError
from safediffusion.diffusion.denoise import denoise
from safediffusion.models.policy import Policy
from safediffusion.objectives.direct import draft
from safediffusion.objectives.lasro import Lasro, lasro
from safediffusion.objectives.through_steps import PictureItems
from safediffusion.train.checkpoint import COLLECTOR, load_checkpoint, save_checkpoint
from safediffusion.train.loop import Trainer
from tests import direct, surrogate, tiny
from tests.diffusion.test_unroll import finite

TWO = torch.tensor([0, 3])


def test_the_loss_by_hand_on_two_pictures_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, objective = tiny.policy(trained=True), lasro(kl=0.0)
    few = surrogate.items(policy, objective).take(TWO)
    latents, _ = denoise(policy, few.cond, few.noise, few.plan)
    reward = few.reward
    assert isinstance(reward, Surrogate)
    text = few.cond.tensors["text"].mean(1)
    one, two = (float(reward.network(latents[i : i + 1], text[i : i + 1])) for i in range(2))

    def refuse(self: Policy, latents: Tensor) -> Tensor:
        raise AssertionError("nothing is decoded")

    monkeypatch.setattr(Policy, "decode", refuse)
    found = objective.loss(policy, few)
    assert found.total.item() == pytest.approx(-(one + two) / 2 / reward.scale, rel=1e-4)
    slope = direct.slope(policy, found.total)
    assert float(slope.norm()) > 0 and all(weight.grad is None for weight in reward.network.parameters())


def test_the_gradient_is_that_of_finite_differences() -> None:
    """Through every step: what comes before the window would be a constant to the one and not to the other."""
    policy, objective = tiny.policy(trained=True), lasro(last=4, kl=1.0)
    few = surrogate.items(policy, objective).take(TWO)
    slope = direct.slope(policy, objective.loss(policy, few).total)
    with torch.no_grad():
        measured = finite(policy, lambda: objective.loss(policy, few).total.item(), slope / slope.norm(), 0.02)
    assert measured == pytest.approx(float(slope.norm()), rel=2e-2)


def test_the_error_is_that_of_pictures_before_they_are_learned_from() -> None:
    policy, collect = tiny.policy(trained=True), surrogate.collector()
    collect.collect(policy, 0)
    tensors = collect.tensors()
    prompted, measured = collect.collect(policy, 1)
    again = surrogate.collector()
    again.load_tensors(tensors)
    fresh = again._everywhere(again.rollouts.collect(policy, 1)[0])
    expected = rank_accuracy(again._made(fresh, policy.device).values(fresh), fresh.reward)
    assert measured["surrogate/error"] == pytest.approx(1 - expected)
    assert isinstance(prompted.reward, Surrogate) and prompted.reward.accuracy == pytest.approx(expected)
    assert measured["surrogate/replay"] == 12.0 and measured["images"] == 6.0
    drawn = collect.rollouts.draw(policy, 1)
    assert not set(prompted.noise.keys) & set(drawn.noise.keys) and len(set(prompted.noise.keys)) == 6
    assert prompted.prompts == drawn.every


def test_while_the_surrogate_cannot_tell_the_policy_rests() -> None:
    """No update, and no momentum of earlier ones either."""
    policy, collect = tiny.policy(trained=True), surrogate.collector()
    trainer = surrogate.trainer(policy, lasro(min_accuracy=0.0), collect, lr=1e-3, sgd=False)
    moved = trainer.step(0)
    assert moved["policy/rests"] == 0.0 and "loss/reward" in moved
    before, network = tiny.flat(policy), collect.tensors()
    trainer.objective = Lasro(min_accuracy=0.999)
    rested = trainer.step(1)
    assert rested["policy/rests"] == 1.0 and rested["unet_backwards"] == moved["unet_backwards"]
    assert rested["unet_forwards"] - moved["unet_forwards"] == 6 * 4  # the rollout alone
    assert torch.equal(tiny.flat(policy), before)
    assert not torch.equal(collect.tensors()["network/look.0.weight"], network["network/look.0.weight"])


def test_micro_batches_do_not_change_the_update_and_the_cost_is_what_was_done() -> None:
    objective, ends = lasro(last=2, kl=0.3, min_accuracy=0.0), list[Tensor]()
    for micro in (100, 1, 4):
        policy, seen = tiny.policy(trained=True), list[int]()
        trainer = surrogate.trainer(policy, objective, surrogate.collector(), lr=0.05, micro=micro)
        hook = policy.backbone.network.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(len(given[0])))
        metrics = trainer.step(0)
        hook.remove()
        volume = trainer.collector.volume(policy, 0)
        forecast = objective.forecast(volume)
        assert sum(seen) == trainer.totals["unet_forwards"] == forecast.forwards + volume.forwards
        assert metrics["unet_backwards"] == forecast.backwards
        ends.append(tiny.flat(policy))
    assert float((ends[0] - tiny.flat(tiny.policy(trained=True))).abs().max()) > 1e-4
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], atol=2e-6, rtol=1e-4)


def tensors(trainer: Trainer[Prompted, PictureItems]) -> dict[str, Tensor]:
    assert isinstance(trainer.collector, Learning)
    return trainer.collector.tensors()


def test_a_resumed_run_is_one_that_never_stopped(tmp_path: Path) -> None:
    def trainer() -> Trainer[Prompted, PictureItems]:
        policy = tiny.policy(trained=True)
        return surrogate.trainer(policy, lasro(min_accuracy=0.0), surrogate.collector(), lr=1e-3, sgd=False)

    straight, stopped, resumed = (trainer() for _ in range(3))
    for number in range(4):
        straight.step(number)
    for number in range(2):
        stopped.step(number)
    saved = save_checkpoint(tmp_path, stopped, done=2)
    assert (saved / COLLECTOR).is_file() and load_checkpoint(saved, resumed) == 2
    assert tensors(resumed).keys() == tensors(stopped).keys()  # before its first step, too
    for number in range(2, 4):
        resumed.step(number)
    assert torch.equal(tiny.flat(straight.policy), tiny.flat(resumed.policy))
    before, after = tensors(straight), tensors(resumed)
    assert before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())
    other = direct.trainer(tiny.policy(trained=True), draft())
    with pytest.raises(UserError, match="holds collector.safetensors"):
        load_checkpoint(saved, other)


def test_impossible_options() -> None:
    for wrong in (-0.1, 1.0):
        with pytest.raises(UserError, match="share of pairs from 0"):
            lasro(min_accuracy=wrong)
    collect = surrogate.collector()
    with pytest.raises(UserError, match="group_size to 2 or more"):
        replace(collect, rollouts=replace(collect.rollouts, group_size=1))
