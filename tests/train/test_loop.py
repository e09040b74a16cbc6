"""The trainer: it learns, it counts, and it stops before a bad update."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.amp import GradScaler

from safediffusion.collect.base import Scored
from safediffusion.core.errors import UserError
from safediffusion.models.policy import Weights
from safediffusion.objectives.grpo import Grpo, StepItems
from safediffusion.train.checkpoint import load_checkpoint, save_checkpoint
from safediffusion.train.loop import SMALLEST, Trainer
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


@pytest.mark.parametrize("ema", [None, 0.5])
def test_a_loss_scale_changes_nothing_but_the_room_for_small_gradients(ema: float | None) -> None:
    ends = []
    for enabled in (False, True):
        policy = tiny.policy(trained=True)
        trainer = training.trainer(policy, ema=ema, scaler=GradScaler("cpu", enabled=enabled))
        metrics = [trainer.step(number) for number in range(2)]
        ends.append((tiny.flat(policy), metrics[-1]))
    (plain, before), (scaled, after) = ends
    torch.testing.assert_close(scaled, plain, atol=1e-7, rtol=1e-5)
    assert after["grad/norm"] == pytest.approx(before["grad/norm"], rel=1e-5)
    assert (after["grad/scale"], after["grad/skipped"]) == (65536.0, 0.0) and "grad/scale" not in before


def test_an_update_that_overflows_is_left_out_and_the_scale_halved(tmp_path: Path) -> None:
    policy = tiny.policy(trained=True)
    trainer = training.trainer(policy, ema=0.5, scaler=GradScaler("cpu", init_scale=2.0**15))
    infinite = policy.parameters()[0].register_hook(lambda gradient: gradient * math.inf)  # type: ignore[no-untyped-call]
    before, average = tiny.flat(policy), policy.state(Weights.EMA)
    metrics = trainer.step(0)
    assert (metrics["grad/scale"], metrics["grad/skipped"]) == (2.0**14, 1.0) and "grad/norm" not in metrics
    assert torch.equal(tiny.flat(policy), before) and not trainer.optimizer.state
    assert all(torch.equal(value, average[name]) for name, value in policy.state(Weights.EMA).items())
    infinite.remove()
    assert trainer.step(1)["grad/norm"] > 0 and not torch.equal(tiny.flat(policy), before)
    again = training.trainer(tiny.policy(), ema=0.5, scaler=GradScaler("cpu"))
    load_checkpoint(save_checkpoint(tmp_path, trainer, done=2), again)
    assert again.scaler.get_scale() == 2.0**14 and again.scaler.state_dict() == trainer.scaler.state_dict()


def test_gradients_that_overflow_at_any_scale_stop_the_run() -> None:
    policy = tiny.policy(trained=True)
    trainer = training.trainer(policy, scaler=GradScaler("cpu", init_scale=SMALLEST))
    policy.parameters()[0].register_hook(lambda gradient: gradient * math.nan)  # type: ignore[no-untyped-call]
    with pytest.raises(UserError, match="step 0: the gradient norm is nan; the optimizer was not stepped"):
        trainer.step(0)


def test_eight_bit_moments_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    """Full weights, of which the large ones have moments of a byte a number."""

    def made() -> Trainer[Scored, StepItems]:
        policy = tiny.policy(full=True)
        return replace(training.trainer(policy), optimizer=adamw(policy.parameters(), bits=8))

    straight, stopped, resumed = made(), made(), made()
    start = tiny.flat(straight.policy)
    for number in range(3):
        straight.step(number)
    stopped.step(0)
    assert load_checkpoint(save_checkpoint(tmp_path, stopped, done=1), resumed) == 1
    for number in range(1, 3):
        resumed.step(number)
    assert torch.equal(tiny.flat(straight.policy), tiny.flat(resumed.policy))
    assert not torch.equal(tiny.flat(straight.policy), start)
    kept = load_file(tmp_path / "step-000001" / "optimizer.safetensors")
    assert {value.dtype for name, value in kept.items() if name.endswith((".state1", ".state2"))} == {
        torch.uint8,
        torch.float32,
    }


def test_eight_bits_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(UserError, match=r"pip install 'safediffusion\[8bit\]'"):
        adamw(tiny.policy().parameters(), bits=8)


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
