"""One process of `torchrun -m tests.invariant.sharded_worker FOLDER STEPS`: trains all weights and an adapter."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from safediffusion.collect.base import Scored
from safediffusion.core.fleet import Fleet
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.dynamics import Ddim
from safediffusion.models.banks import FullBank, FullSpec, LoraBank, LoraSpec
from safediffusion.models.policy import Policy, Saving, Weights
from safediffusion.models.sd1 import Sd1Backbone
from safediffusion.models.source import save_memory
from safediffusion.objectives.grpo import Grpo, StepItems
from safediffusion.train.loop import Trainer
from safediffusion.train.run import Experiment, train
from tests import tiny, training

KINDS = ("full", "lora")
PLAN = Plan(steps=3, guidance=2.0, dynamics=Ddim(1.0), keep_unconditional_grad=True)  # two forwards a backward


def policy(kind: str, fleet: Fleet) -> Policy:
    """Full weights divided among the processes, gradient checkpointing on; or an adapter."""
    pipe = tiny.pipeline()
    save_memory(pipe, Saving(checkpointing=kind == "full"))
    base = Sd1Backbone(pipe)
    if kind == "full":
        return Policy(base, FullBank(base.network, FullSpec(fleet=fleet)))
    return Policy(base, LoraBank(base.network, LoraSpec(rank=2, alpha=2)))


def trainer(kind: str, fleet: Fleet) -> Trainer[Scored, StepItems]:
    """KL to a reference on some prompts, EMA, two updates of portions that the processes have unequally many of."""
    return training.trainer(
        policy(kind, fleet),
        training.collector((training.Brightness(),), plan=PLAN, fleet=fleet, groups=6, size=2),
        Grpo(kl=0.0, kl_safe=0.3, anchor="recompute", clip=0.2),
        lr=5e-5,
        updates=2,
        micro=5,
        ema=0.9,
    )


def run(kind: str, fleet: Fleet, folder: Path, steps: int) -> None:
    """Train to `steps`, from the last checkpoint where there is one; write down this process's weights."""
    made = trainer(kind, fleet)
    experiment = Experiment(trainer=made, steps=steps, checkpoint_every=2, checkpoints_kept=None, trackers=())
    train(experiment, folder / kind, resume=(folder / kind / "run.json").exists())
    ended = {
        f"{which}/{name}": value
        for which in (Weights.LIVE, Weights.EMA)
        for name, value in made.policy.state(which).items()
    }
    held = sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in made.policy.parameters())
    save_file(ended | {"held": torch.tensor(held)}, folder / f"{kind}-{fleet.world}-rank{fleet.rank}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    ours = Fleet.current()
    for each in KINDS:
        run(each, ours, Path(sys.argv[1]), int(sys.argv[2]))
    ours.close()
