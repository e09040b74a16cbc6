"""One process of `torchrun -m tests.invariant.methods_worker FOLDER`: the methods and credits that no other one has."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from safediffusion.collect.budgeted import Budgeted
from safediffusion.collect.on_policy import OnPolicy
from safediffusion.collect.prompts_only import PromptsOnly
from safediffusion.collect.reward import Reward
from safediffusion.collect.wording import WordingPairs
from safediffusion.core.fleet import Fleet
from safediffusion.credit.base import Credit
from safediffusion.credit.constraint import Constrained, Rule
from safediffusion.credit.decoupled import Decoupled
from safediffusion.credit.leave_one_out import LeaveOneOut
from safediffusion.credit.running import RunningStats
from safediffusion.credit.weighted import WeightedSum
from safediffusion.data.mixture import Mixture, Source
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.dynamics import Ddim
from safediffusion.objectives.direct import Direct, alignprop, draft, refl
from safediffusion.objectives.dpo import DiffusionDpo
from safediffusion.objectives.flow_dppo import FlowDppo
from safediffusion.objectives.grpo import Grpo, PolicyGradient
from safediffusion.objectives.grpo_guard import GrpoGuard
from safediffusion.objectives.prdp import Prdp
from safediffusion.train.loop import Trainer
from safediffusion.train.optim import LearningRate
from tests import tiny, training

STEPS = 2
PLAN = Plan(steps=3, dynamics=Ddim(1.0))
REFL = refl(early=(1, 2), hinge=None, views=2, kl_safe=50.0)  # as in emoji-steer-direct
DIRECT: dict[str, Direct] = {
    "refl": REFL,
    "refl-finished": replace(REFL, finish=True),
    "draft": draft(last=2, kl=10.0),
    "draft-lv": draft(renoise=2),
    "alignprop": alignprop(last=(1, 2), kl=10.0),
}
SAMPLED: dict[str, PolicyGradient | Prdp] = {
    "prdp": Prdp(clip=1e-3),
    "guard-running": GrpoGuard(clip=4e-4, kl=0.1),
    "dppo-leave-one-out": FlowDppo(divergence=3e-6),
    "grpo-decoupled": Grpo(clip=1e-3, anchor="recompute"),
    "grpo-constrained": Grpo(clip=1e-3, anchor="recompute"),
}
GIVEN = {"dpo-budgeted": DiffusionDpo(beta=50.0)}
KINDS = (*DIRECT, *SAMPLED, *GIVEN)
CONSTRAINED = ("refl", "refl-finished", "grpo-constrained", "dpo-budgeted")
RATES = {
    "grpo-constrained": 1.0,
    "prdp": 1.0,
    "guard-running": 30.0,
    "dppo-leave-one-out": 30.0,
    "grpo-decoupled": 1.0,
}  # 10 for the others
WEIGHTS = {"steering": 1.0, "brightness": 0.5}


def prompts() -> Mixture:
    """Every unsafe prompt is a harm category."""
    unsafe = tuple(replace(each, tags={**each.tags, "category": each.id}) for each in tiny.PROMPTS[2:])
    safe = Source(name="safe", prompts=tiny.PROMPTS[:2])
    return Mixture(sources=(safe, Source(name="unsafe", prompts=unsafe)), seed=0)


def credit(kind: str) -> Credit:
    """Of some what a picture is worth under budgets of harm, here of brightness."""
    if kind in CONSTRAINED:
        return constrained(WeightedSum(weights={} if kind in GIVEN else {"steering": 1.0}))
    made: dict[str, Credit] = {
        "guard-running": RunningStats(weights=WEIGHTS, memory=6, least=6),
        "dppo-leave-one-out": LeaveOneOut(weights=WEIGHTS),
        "grpo-decoupled": Decoupled(weights=WEIGHTS),
    }
    return made.get(kind, WeightedSum(weights=WEIGHTS))


def constrained(worth: WeightedSum) -> Constrained:
    rule = Rule(rho=1.0, eta=0.5, bound=50.0)
    return Constrained(credit=worth, costs=("brightness",), budgets={"p2": 0.1, "p3": 0.3}, rule=rule)


def given(fleet: Fleet) -> Budgeted:
    """Pairs of two wordings, and six pictures a step in which their costs are measured."""
    unsafe = tuple(replace(p, tags={**p.tags, "safe": "a red apple"}) for p in prompts().sources[1].prompts)
    source = Mixture(sources=(Source(name="unsafe", prompts=unsafe, balance="category"),))
    return Budgeted(
        pairs=WordingPairs(prompts=source, plan=PLAN, groups=4, rollout_batch=3, fleet=fleet),
        constraint=constrained(WeightedSum(weights={})),
        scorers=(training.Brightness(),),
        prompts=source,
        count=6,
        plan=PLAN,
        batch=2,
        fleet=fleet,
    )


def collector(kind: str, fleet: Fleet) -> PromptsOnly | OnPolicy | Budgeted:
    """Four prompts a step; of those that draw in the loss three pictures each, of the others four."""
    scorers = (training.steering(alpha=0.5), training.Brightness())
    if kind in GIVEN:
        return given(fleet)
    if kind in DIRECT:
        reward = Reward(scorers=scorers, credit=credit(kind), finished=kind == "refl-finished")
        return PromptsOnly(prompts=prompts(), reward=reward, plan=PLAN, groups=4, group_size=3, fleet=fleet)
    made = training.collector(scorers, plan=PLAN, fleet=fleet, groups=4)
    return replace(made, prompts=prompts(), credit=credit(kind), rollout_batch=5)


def made(kind: str, fleet: Fleet) -> Trainer[Any, Any]:
    """Two updates a step in proportion to the gradient."""
    policy, lr = tiny.policy(trained=True), RATES.get(kind, 10.0)
    return Trainer(
        policy=policy,
        collector=collector(kind, fleet),
        objective={**DIRECT, **SAMPLED, **GIVEN}[kind],
        optimizer=torch.optim.SGD(policy.parameters(), lr=lr),
        rate=LearningRate(peak=lr),
        max_norm=None,
        updates=2,
        micro=8,
        fleet=fleet,
    )


def run(kind: str, fleet: Fleet, folder: Path) -> None:
    """Writes down the weights this process ends with, what it logged and what its credit then knows."""
    trainer, told = made(kind, fleet), dict[str, float]()
    for number in range(STEPS):
        metrics = trainer.step(number)
        told |= {f"{number}/{name}": value for name, value in metrics.items() if not name.startswith("time/")}
    state = trainer.collector.state()
    told |= state.get("credit", {}) | state.get("budgets", {})
    name = f"{kind}-{fleet.world}-rank{fleet.rank}"
    save_file(trainer.policy.state(), folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    training.encoder()  # transformers saves files on the first rank only once there is a process group
    ours = Fleet.current()
    for each in KINDS:
        run(each, ours, Path(sys.argv[1]))
    ours.close()
