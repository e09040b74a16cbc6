"""Every family trains through the one loop: ratio 1 at first, and stopping changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.amp import GradScaler

from safediffusion.collect.base import Scored
from safediffusion.diffusion.denoise import Plan
from safediffusion.objectives.grpo import Grpo, StepItems
from safediffusion.train.checkpoint import load_checkpoint, save_checkpoint
from safediffusion.train.loop import Trainer
from tests import families, tiny, training

ROUNDING = {torch.float32: 0.0, torch.float16: 1e-5, torch.bfloat16: 1e-3}
FULL = pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])


def trainer(family: str, *, full: bool, dtype: torch.dtype = torch.float32) -> Trainer[Scored, StepItems]:
    plan = Plan(steps=3, guidance=1.0, dynamics=families.noisy(family))
    return training.trainer(
        families.policy(family, full=full, dtype=dtype),
        training.collector((training.Brightness(),), plan=plan, size=2),
        Grpo(kl=0.1, anchor="recompute", clip=0.2),
        micro=3,
        ema=0.9,
        scaler=GradScaler("cpu", enabled=dtype is torch.float16),
    )


@FULL
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_ratio_is_exactly_one_and_the_weights_move(family: str, dtype: torch.dtype, full: bool) -> None:
    made = trainer(family, full=full, dtype=dtype)
    before = tiny.flat(made.policy)
    metrics = made.step(0)
    assert metrics["loss/ratio"] == 1.0 and metrics["loss/clipped"] == 0.0
    # the reference of full weights is a frozen copy: torch.matmul folds a batch by whether a weight requires gradients,
    # and some processors round half-precision products of the two forms otherwise
    assert metrics["loss/kl"] <= (ROUNDING[dtype] if full else 0.0)
    assert metrics["grad/norm"] > 0 and not torch.equal(tiny.flat(made.policy), before)
    assert made.step(1)["loss/kl"] > 0


@FULL
@pytest.mark.parametrize("family", families.FAMILIES)
def test_resumed_is_uninterrupted(family: str, full: bool, tmp_path: Path) -> None:
    straight, stopped, resumed = (trainer(family, full=full) for _ in range(3))
    for number in range(3):
        straight.step(number)
    stopped.step(0)
    for number in range(load_checkpoint(save_checkpoint(tmp_path, stopped, done=1), resumed), 3):
        resumed.step(number)
    assert torch.equal(tiny.flat(straight.policy), tiny.flat(resumed.policy))
