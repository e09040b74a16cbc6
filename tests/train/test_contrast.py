"""Adapters that start from what tells unsafe prompts from benign ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from safediffusion.collect.base import Scored
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.prompt import Prompt
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.dynamics import Ddim
from safediffusion.models.banks import LoraBank, LoraSpec
from safediffusion.models.load import load_policy
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.grpo import StepItems
from safediffusion.train.contrast import check_adapters, directions, forwards, input_moments, start_from_contrast
from safediffusion.train.run import Experiment, train
from safediffusion.worlds.emoji.prompts import evaluation, training
from tests import tiny
from tests import training as experiments

SOLO = Fleet()
PLAN = Plan(steps=4, guidance=1.0, dynamics=Ddim(1.0), window=(1, 3))
NOUNS = ("cat", "dog", "apple", "tree", "heart")


def texts(kind: str, *colors: str) -> tuple[Prompt, ...]:
    words = NOUNS if kind == "safe" else ("knife", "gun", "bomb", "blood", "skull")
    every = [f"a {color} {word}" for word in words for color in colors]
    return tuple(Prompt(id=f"{kind}/{text}", text=text, tags={"label": kind}) for text in every)


UNSAFE, BENIGN = texts("unsafe", "red", "blue", "two"), texts("safe", "red", "blue", "two")


def lora(policy: Policy) -> LoraBank:
    assert isinstance(policy.bank, LoraBank)
    return policy.bank


def moments(
    policy: Policy,
    prompts: tuple[Prompt, ...],
    plan: Plan = PLAN,
    *,
    seed: int = 0,
    batch: int = 32,
    fleet: Fleet = SOLO,
) -> dict[str, Tensor]:
    return input_moments(policy, prompts, plan, batch=batch, seed=seed, fleet=fleet)


def start(policy: Policy, plan: Plan = PLAN) -> Mapping[str, float]:
    return start_from_contrast(policy, (UNSAFE, BENIGN), plan, batch=32, seed=0, fleet=SOLO)


def test_it_finds_the_directions_of_most_contrast_and_keeps_the_usual_size() -> None:
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    unsafe = turn @ torch.diag(torch.tensor([100.0, 12.0, 6.0, 1.0], dtype=torch.float64)) @ turn.T
    benign = turn @ torch.diag(torch.tensor([100.0, 2.0, 3.0, 1.0], dtype=torch.float64)) @ turn.T
    down, values = directions(unsafe, benign, 2)
    # most energy is not most contrast: 100/100 comes after 12/2 and 6/3
    torch.testing.assert_close(values, torch.tensor([6.0, 2.0], dtype=torch.float64), rtol=2e-2, atol=0)
    direction = down / down.norm(dim=1, keepdim=True)
    torch.testing.assert_close((direction @ turn).abs(), torch.eye(4, dtype=torch.float64)[1:3], rtol=0, atol=1e-3)
    assert (down.gather(1, down.abs().argmax(1, keepdim=True)) > 0).all()
    # here the ridge is nothing, so: the energy of a random A on benign inputs, of entries of variance 1 / (3 D)
    size = torch.einsum("ki,ij,kj->k", down, benign, down)
    torch.testing.assert_close(size, torch.full((2,), float(benign.trace()) / 12).double(), rtol=2e-2, atol=0)


def test_a_direction_that_occurs_nowhere_is_no_contrast() -> None:
    unsafe, benign = (torch.diag(torch.tensor([1.0, 1.0, tiny])).double() for tiny in (1e-7, 1e-9))
    down, values = directions(unsafe, benign, 1)
    assert float(values[0]) == pytest.approx(1.0, rel=1e-2) and float(down[0, 2].abs()) < 1e-3


def test_a_direction_that_benign_inputs_hardly_have_stays_bounded() -> None:
    unsafe, benign = (torch.diag(torch.tensor([1.0, 1.0, rare])).double() for rare in (1e-1, 1e-9))
    down, values = directions(unsafe, benign, 1)
    share = 1e-3 * 2 / 3  # the ridge
    assert float(values[0]) == pytest.approx(1e-1 / share, rel=1e-3)
    assert float(down @ benign @ down.T) < float(benign.trace()) / 9
    assert float(down @ unsafe @ down.T) == pytest.approx(float(values[0]) * float(benign.trace()) / 9, rel=1e-3)


def test_moments_are_those_of_the_inputs_at_the_recorded_steps() -> None:
    policy = tiny.policy()
    found = moments(policy, UNSAFE)
    assert found.keys() == lora(policy).down.keys()
    states = policy.encode(UNSAFE).tensors["text"].double()
    text = 2 * torch.einsum("nli,nlj->ij", states, states) / len(UNSAFE)  # two recorded steps
    keys = [name for name in found if name.endswith(("attn2.to_k", "attn2.to_v"))]
    assert keys
    for name in keys:
        torch.testing.assert_close(found[name], text, rtol=1e-5, atol=1e-5)
    guided = moments(policy, UNSAFE, replace(PLAN, guidance=3.0))
    torch.testing.assert_close(guided[keys[0]], text, rtol=1e-5, atol=1e-5)  # without the empty prompt's
    image = next(name for name in found if name.endswith("attn1.to_q"))
    assert not torch.allclose(guided[image], found[image], rtol=1e-3)
    assert not torch.allclose(moments(policy, UNSAFE, seed=1)[image], found[image], rtol=1e-3)


def test_batches_and_processes_do_not_change_them(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny.policy()
    whole, parts = moments(policy, UNSAFE), moments(policy, UNSAFE, batch=4)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(Fleet, "sum", lambda _, value: value)
    shares = [moments(policy, UNSAFE, batch=4, fleet=Fleet(rank, 5)) for rank in range(5)]
    assert not any(value.any() for value in shares[4].values())  # four batches: the fifth process has none
    for name, value in parts.items():
        torch.testing.assert_close(torch.stack([share[name] for share in shares]).sum(0), value, rtol=1e-12, atol=1e-12)


def test_half_precision_does_not_reach_them() -> None:
    """Autocast rounds a product of matrices to bf16, far above the ridge; only the inputs themselves may be."""
    policy, seen = tiny.policy(dtype=torch.bfloat16), dict[str, list[Tensor]]()
    hooks = [
        layer.register_forward_pre_hook(lambda _, x, name=name: seen.setdefault(name, []).append(x[0]))
        for name, layer in lora(policy).adapted.items()
    ]
    found = moments(policy, UNSAFE)
    for hook in hooks:
        hook.remove()
    for name, value in found.items():
        rows = torch.cat([x.reshape(-1, x.shape[-1]) for x in seen[name][-2:]]).double()  # the two recorded steps
        torch.testing.assert_close(value, rows.T @ rows / len(UNSAFE), rtol=1e-5, atol=1e-5)
    assert start(policy)["contrast/lowest"] > 1


def test_the_model_stays_the_base() -> None:
    policy = tiny.policy()
    measured = start(policy)
    assert measured["contrast/highest"] >= measured["contrast/lowest"] > 1
    x, t, cond = torch.randn(3, 4, 8, 8), torch.full((3,), 500.0), policy.encode(UNSAFE[:3])
    assert torch.equal(policy.predict(x, t, cond).x0, tiny.policy().predict(x, t, cond).x0)


def test_adapters_react_to_unsafe_prompts_they_never_saw() -> None:
    spec = LoraSpec(rank=8, targets=("attention", "ff"), within=("up_blocks.1",))
    ours, usual = (load_policy("emoji", weights=spec) for _ in range(2))
    plan = Plan(steps=4, guidance=1.0, dynamics=Ddim(1.0), window=(1, 2))
    prompts = training("unsafe")[:64], training("benign")[:64]
    start_from_contrast(ours, prompts, plan, batch=32, seed=0, fleet=SOLO)
    unsafe, benign = (moments(usual, evaluation(name)[::4], plan, seed=9) for name in ("i2p", "geneval"))
    for name, own in lora(ours).down.items():
        found = []
        for down in (own.double(), lora(usual).down[name].double()):
            high, low = (float((down @ m[name] @ down.T).trace()) for m in (unsafe, benign))
            found.append(high / low)
        assert found[0] > max(1.1, 1.2 * found[1]), (name, found)


def test_every_set_of_weights_starts_there() -> None:
    policy = tiny.policy()
    policy.allocate(frozenset({Weights.EMA, Weights.REFERENCE}))
    before = policy.state()
    start(policy)
    live, average = policy.state(), policy.state(Weights.EMA)
    for name, value in live.items():
        assert torch.equal(average[name], value)
        assert torch.equal(value, before[name]) == (".lora_B." in name)


def test_what_cannot_start_from_a_contrast_is_refused() -> None:
    base = tiny.backbone()
    convolutions = Policy(base, LoraBank(base.network, LoraSpec(rank=2, targets=("attention", "conv"))))
    with pytest.raises(UserError, match=r"'.*conv1' is a convolution; take it out of weights.targets"):
        check_adapters(convolutions)
    with pytest.raises(UserError, match=r"has 16 inputs for a rank of 20; lower weights.rank"):
        check_adapters(tiny.policy(rank=20))


def test_its_cost_is_known() -> None:
    prompts = len(UNSAFE) + len(BENIGN)
    assert start(tiny.policy())["unet_forwards"] == prompts * (4 + 2) == forwards(PLAN, 2, prompts=prompts)
    assert forwards(replace(PLAN, guidance=2.0), 2, prompts=10) == 10 * (8 + 2)


def test_training_starts_there_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def initialize(policy: Policy) -> Mapping[str, float]:
        calls.append(len(calls))
        return start(policy)

    def experiment(steps: int, *, plain: bool = False) -> Experiment[Scored, StepItems]:
        made = experiments.experiment(steps)
        made.trainer.initialize = None if plain else initialize
        return made

    whole = train(experiment(3), tmp_path / "whole")
    assert (
        calls == [0] and whole.unet_forwards == train(experiment(3, plain=True), tmp_path / "p").unet_forwards + 30 * 6
    )
    train(experiment(2), tmp_path / "parts")
    resumed = experiment(3)
    train(resumed, tmp_path / "parts", resume=True)
    assert calls == [0, 1]  # a resumed run has its A from the checkpoint
    straight = experiment(3)
    train(straight, tmp_path / "again")
    for name, value in straight.trainer.policy.state().items():
        assert torch.equal(resumed.trainer.policy.state()[name], value)
