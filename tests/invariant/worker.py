"""One process of `accelerate launch -m tests.invariant.worker FOLDER`: trains and writes down where it ended."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from safediffusion.core.fleet import Fleet
from safediffusion.core.prompt import Prompt
from safediffusion.models.policy import Weights
from safediffusion.objectives.grpo import Grpo
from safediffusion.train.contrast import start_from_contrast
from safediffusion.train.run import Experiment, train
from tests import tiny, training

STEPS = 3


def prompts(label: str) -> list[Prompt]:
    """Enough for a contrast that two processes share them."""
    return [replace(p, id=f"{p.id}/{i}") for i in range(8) for p in tiny.PROMPTS if p.tags["label"] == label]


def run(fleet: Fleet, folder: Path, *, sgd: bool) -> None:
    """Contrast, KL, EMA, step advantages, alpha auto, three updates: everything that has to agree between processes."""
    collector = replace(training.collector(fleet=fleet, groups=4, size=3), rollout_batch=5, gae_lambda=0.6)
    trainer = training.trainer(
        tiny.policy(trained=True),
        collector,
        Grpo(kl=0.1, kl_safe=0.3, anchor="recompute", clip=0.2, steps_per_image=3),
        lr=0.1 if sgd else 1e-4,
        sgd=sgd,
        updates=3,
        micro=4,
        ema=0.9,
        initialize=lambda policy: start_from_contrast(
            policy, (prompts("unsafe"), prompts("safe")), collector.plan, batch=4, seed=0, fleet=fleet
        ),
    )
    experiment = Experiment(trainer=trainer, steps=STEPS, checkpoint_every=STEPS, trackers=())
    name = f"{'sgd' if sgd else 'adam'}-{fleet.world}"
    train(experiment, folder / name)
    policy = trainer.policy
    weights = {f"live/{k}": v for k, v in policy.state().items()} | {
        f"ema/{k}": v for k, v in policy.state(Weights.EMA).items()
    }
    save_file(weights, folder / f"{name}-rank{fleet.rank}.safetensors")
    (folder / f"{name}-rank{fleet.rank}.json").write_text(json.dumps(trainer.state()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    training.encoder()  # transformers saves files on the first rank only once there is a process group
    ours = Fleet.current()
    for linear in (True, False):
        run(ours, Path(sys.argv[1]), sgd=linear)
    ours.close()
