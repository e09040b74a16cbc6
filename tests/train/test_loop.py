"""The trainer: it learns, it counts, and it stops before a bad update."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from safediffusion.core.errors import UserError
from safediffusion.models.policy import Weights
from safediffusion.objectives.grpo import Grpo
from safediffusion.train.optim import LearningRate, adamw
from tests import tiny, training


def test_grpo_learns_what_is_rewarded() -> None:
    """Brighter pictures on fresh seeds after 30 steps, by more than ten times the error of the mean."""
    policy = tiny.policy(full=True)
    bright = training.collector((training.Brightness(),), groups=2, size=8)
    held_out = replace(bright, seed=99, groups=4)
    before = held_out.collect(policy, 0)[0].scores["brightness"]
    trainer = training.trainer(policy, bright, Grpo(clip=0.2), lr=2e-3, micro=64)
    for number in range(30):
        trainer.step(number)
    gain = held_out.collect(policy, 0)[0].scores["brightness"] - before  # paired: same prompts, same noise
    error = float(gain.std() / len(gain) ** 0.5)
    assert float(gain.mean()) > 10 * error and float(gain.mean()) > 0.01


def test_the_parts_of_a_step_are_timed() -> None:
    metrics = training.trainer(tiny.policy()).step(0)
    parts = [metrics[f"time/{name}"] for name in ("rollout", "decode", "score", "backward")]
    assert all(part > 0 for part in parts) and sum(parts) <= metrics["time/step"]


def test_counters_add_up_over_the_run() -> None:
    trainer = training.trainer(tiny.policy(), objective=Grpo(kl=0.1))
    first, second = trainer.step(0), trainer.step(1)
    for name in ("images", "unet_forwards", "unet_backwards"):
        assert second[name] == 2 * first[name] > 0


def test_updates_divide_the_items_of_a_step() -> None:
    policy = tiny.policy()
    trainer = training.trainer(policy, objective=Grpo(anchor="recompute", clip=0.2), updates=5, micro=3)
    trainer.step(0)
    steps = {int(entry["step"]) for entry in trainer.optimizer.state_dict()["state"].values()}
    assert steps == {5}


def test_several_updates_need_an_anchor_that_stays() -> None:
    with pytest.raises(
        UserError, match=r"updates is 2, but Grpo as configured allows one.*anchor: recompute or rollout"
    ):
        training.trainer(tiny.policy(), objective=Grpo(anchor="first_pass"), updates=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"micro": 0}, "micro is 0"),
        ({"updates": 0}, "updates is 0"),
        ({"ema": 1.0}, "ema is 1.0; it is a decay between 0 and 1"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        training.trainer(tiny.policy(), objective=Grpo(anchor="rollout"), **options)


def test_more_updates_than_items_are_refused() -> None:
    with pytest.raises(UserError, match="a step of 32 items cannot feed 33 updates"):
        training.trainer(tiny.policy(), objective=Grpo(anchor="rollout"), updates=33).step(0)


def test_a_gradient_that_is_no_number_stops_before_the_optimizer() -> None:
    policy = tiny.policy(trained=True)
    trainer = training.trainer(policy)
    trainer.step(0)
    before, moments = tiny.flat(policy), str(trainer.optimizer.state_dict())
    policy.parameters()[0].register_hook(lambda gradient: gradient * float("nan"))  # type: ignore[no-untyped-call]
    with pytest.raises(UserError, match="step 1: the gradient norm is nan; the optimizer was not stepped"):
        trainer.step(1)
    assert torch.equal(tiny.flat(policy), before)
    assert str(trainer.optimizer.state_dict()) == moments


def test_the_gradient_is_clipped_and_its_norm_logged() -> None:
    def moved(max_norm: float | None) -> tuple[float, float]:
        policy = tiny.policy(trained=True)
        start = tiny.flat(policy)
        metrics = training.trainer(policy, lr=1.0, sgd=True, max_norm=max_norm).step(0)
        return float((tiny.flat(policy) - start).norm()), metrics["grad/norm"]

    free, norm = moved(None)
    assert free == pytest.approx(norm, rel=1e-3)
    clipped, same = moved(norm / 10)
    assert same == pytest.approx(norm, rel=1e-6) and clipped == pytest.approx(norm / 10, rel=1e-3)


def test_ema_follows_by_its_decay() -> None:
    policy = tiny.policy(trained=True)
    trainer = training.trainer(policy, ema=0.5)
    start = torch.cat([t.flatten() for t in policy.state(Weights.EMA).values()])
    assert torch.equal(start, tiny.flat(policy))
    trainer.step(0)
    after = torch.cat([t.flatten() for t in policy.state(Weights.EMA).values()])
    # the decay of update 0 is min(0.5, 1 / 10): early averages forget the start quickly
    torch.testing.assert_close(after, 0.1 * start + 0.9 * tiny.flat(policy))


def test_the_learning_rate_is_a_function_of_the_update() -> None:
    rate = LearningRate(peak=1.0, warmup=4)
    assert [rate.at(i) for i in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [LearningRate(peak=2.0, decay="linear", total=4).at(i) for i in range(5)] == [2.0, 1.5, 1.0, 0.5, 0.0]
    cosine = LearningRate(peak=2.0, warmup=2, decay="cosine", total=6)
    assert [round(cosine.at(i), 6) for i in (0, 1, 2, 4, 6, 9)] == [1.0, 2.0, 2.0, 1.0, 0.0, 0.0]
    held = LearningRate(peak=2.0, warmup=2, decay="linear", hold=0.5, total=10)
    assert [held.at(i) for i in (1, 2, 5, 6, 8, 10)] == [2.0, 2.0, 2.0, 2.0, 1.0, 0.0]
    with pytest.raises(UserError, match="hold is 1.0; it is a share from 0 to below 1"):
        LearningRate(peak=1.0, hold=1.0)
    for bad in ({"peak": 0.0}, {"peak": 1.0, "warmup": -1}):
        with pytest.raises(UserError, match="must be above 0"):
            LearningRate(**bad)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="needs the total number of updates"):
        LearningRate(peak=1.0, decay="cosine")


def test_warmup_counts_updates_not_steps() -> None:
    policy = tiny.policy()
    trainer = training.trainer(policy, objective=Grpo(anchor="rollout", clip=0.2), updates=2)
    trainer.rate = LearningRate(peak=1.0, warmup=8)
    seen: list[float] = []
    trainer.optimizer.register_step_pre_hook(lambda opt, *_: seen.append(opt.param_groups[0]["lr"]))
    trainer.step(0)
    trainer.step(1)
    assert seen == [1 / 8, 2 / 8, 3 / 8, 4 / 8]


def test_a_policy_without_parameters_cannot_be_trained() -> None:
    with pytest.raises(UserError, match="no trainable parameter"):
        adamw([])
