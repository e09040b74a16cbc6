"""LoRA adapters: what they touch, how they start, and that the base stays the base."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from safediffusion.core.errors import UserError
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.dynamics import Ddim
from safediffusion.models.banks import FrozenBank, FullBank, LoraBank, LoraSpec
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.grpo import Grpo
from tests import tiny, training


def lora(*targets: str, rank: int = 4, seed: int = 0, network_seed: int = 0) -> LoraBank:
    return LoraBank(tiny.pipeline(network_seed).unet, LoraSpec(rank=rank, alpha=rank, targets=targets, seed=seed))


def adapted(bank: LoraBank) -> set[str]:
    return {name.split(".lora_")[0] for name in bank.state(Weights.LIVE)}


def test_attention_is_the_default_target() -> None:
    layers = adapted(lora("attention"))
    assert LoraSpec().targets == ("attention",)
    assert {layer.split("attn")[1][2:] for layer in layers} == {"to_q", "to_k", "to_v", "to_out.0"}
    assert len(layers) == 4 * 2 * len({layer.split(".attn")[0] for layer in layers})


def test_groups_and_single_layers_can_be_added() -> None:
    layers = adapted(lora("attention", "conv", "ff", "proj"))
    for end in ("conv1", "conv2", "time_emb_proj", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "to_q"):
        assert any(layer.endswith(end) for layer in layers), end
    assert adapted(lora("conv_in")) == {"conv_in"}


def test_a_target_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="LoRA target 'to_qq' matches no layer of this model; did you mean 'to_q'"):
        lora("attention", "to_qq")
    with pytest.raises(UserError, match="rank and alpha must be above 0"):
        LoraSpec(rank=0)


def test_adapters_can_be_kept_to_a_part_of_the_network() -> None:
    unet = tiny.pipeline().unet
    bank = LoraBank(unet, LoraSpec(rank=2, targets=("attention", "ff"), within=("up_blocks.0",)))
    layers = adapted(bank)
    assert layers and all(layer.startswith("up_blocks.0.") for layer in layers)
    tracked: dict[str, bool] = {}
    for name in ("mid_block", "up_blocks.0"):
        module = unet.get_submodule(name)
        module.register_forward_hook(lambda _, __, out, name=name: tracked.update({name: out.requires_grad}))
    unet(torch.randn(2, 4, 8, 8), torch.tensor([3.0, 700.0]), torch.randn(2, 16, 16)).sample.sum().backward()
    assert tracked == {"mid_block": False, "up_blocks.0": True}  # no backward pass before the first adapter
    assert all(p.grad is not None for p in bank.parameters())
    assert bank.describe()["within"] == "up_blocks.0"
    with pytest.raises(UserError, match="LoRA within 'up_block' is no part of this model; did you mean 'up_blocks"):
        LoraBank(tiny.pipeline().unet, LoraSpec(within=("up_block",)))
    with pytest.raises(UserError, match="LoRA target 'conv_in' matches no layer within up_blocks.0"):
        LoraBank(tiny.pipeline().unet, LoraSpec(targets=("conv_in",), within=("up_blocks.0",)))


def test_adapters_start_as_nothing_and_only_they_are_trained() -> None:
    base, bank = tiny.pipeline().unet, lora("attention", "conv")
    x, t, text = torch.randn(2, 4, 8, 8), torch.tensor([3.0, 700.0]), torch.randn(2, 16, 16)
    network = bank.activate(Weights.LIVE)
    with torch.no_grad():
        expected = base(x, t, text).sample
        assert torch.equal(network(x, t, text).sample, expected)
        trained = [p for p in network.parameters() if p.requires_grad]
        assert {id(p) for p in trained} == {id(p) for p in bank.parameters()}
        for parameter in bank.parameters():
            parameter.add_(0.1)
        assert not torch.allclose(network(x, t, text).sample, expected)
        assert torch.equal(bank.activate(Weights.REFERENCE)(x, t, text).sample, expected)
    bank.activate(Weights.LIVE)
    assert all(p.requires_grad for p in bank.parameters())


def test_the_start_is_seeded_and_draws_nothing_from_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    one, same, other = lora("attention"), lora("attention"), lora("attention", seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    name = next(name for name in one.state(Weights.LIVE) if ".lora_A." in name)
    assert torch.equal(one.state(Weights.LIVE)[name], same.state(Weights.LIVE)[name])
    assert not torch.equal(one.state(Weights.LIVE)[name], other.state(Weights.LIVE)[name])
    # Kaiming-uniform with a = sqrt 5: uniform within 1 / sqrt(fan in), variance 1 / (3 fan in)
    values = torch.cat([(v * v.shape[1] ** 0.5).flatten() for n, v in one.state(Weights.LIVE).items() if "_A." in n])
    assert float(values.abs().max()) <= 1.0
    assert float(values.var()) == pytest.approx(1 / 3, abs=0.03)


def test_alpha_over_rank_scales_the_adapter() -> None:
    linear = nn.Linear(3, 2, bias=False)
    network = nn.Sequential(OrderedDict(to_q=linear))
    bank = LoraBank(network, LoraSpec(rank=2, alpha=6.0, targets=("to_q",)))
    down, up = bank.parameters()
    with torch.no_grad():
        up.copy_(torch.tensor([[1.0, 0.0], [2.0, 1.0]]))
    x = torch.tensor([[1.0, -1.0, 0.5]])
    torch.testing.assert_close(network(x), x @ (linear.weight + 3.0 * up @ down).T)


def test_frozen_weights_can_be_stored_small_while_adapters_stay_float32() -> None:
    bank = LoraBank(tiny.pipeline().unet, LoraSpec(), frozen_dtype=torch.bfloat16)
    kinds = {p.dtype for p in bank.network.parameters() if not p.requires_grad}
    assert kinds == {torch.bfloat16}
    assert {p.dtype for p in bank.parameters()} == {torch.float32}


def test_states_that_do_not_fit_are_named() -> None:
    bank, wider = lora("attention"), lora("attention", rank=8)
    with pytest.raises(UserError, match=r"has shape \[8, 32\], this model wants \[4, 32\].*another rank"):
        bank.load_state(wider.state(Weights.LIVE), Weights.LIVE)
    state = bank.state(Weights.LIVE)
    name, value = state.popitem()
    with pytest.raises(UserError, match=f"tensor '{name}' is missing from the saved weights"):
        bank.load_state(state, Weights.LIVE)
    with pytest.raises(UserError, match="tensor 'more' is not a trained tensor of this model"):
        bank.load_state(state | {name: value, "more": value}, Weights.LIVE)


def test_full_and_frozen_banks() -> None:
    full = FullBank(tiny.pipeline().unet)
    assert len(full.parameters()) == len(list(tiny.pipeline().unet.parameters()))
    frozen = FrozenBank(tiny.pipeline().unet)
    assert frozen.parameters() == [] and frozen.state(Weights.LIVE) == {}
    assert not any(p.requires_grad for p in frozen.network.parameters())
    policy = Policy(tiny.backbone(), frozen)
    with policy.using(Weights.EMA):
        assert policy.allocated == {Weights.LIVE, Weights.REFERENCE, Weights.EMA}


def test_a_reference_in_main_memory_says_the_same() -> None:
    """Its layers hold nothing between two calls; LIVE moves on without it."""
    banks = [FullBank(tiny.pipeline().unet, reference_on_cpu=offloaded) for offloaded in (False, True)]
    policies = [Policy(tiny.backbone(), bank) for bank in banks]
    x, t = torch.randn(2, *policies[0].latent_shape), torch.tensor([500.0, 20.0])
    said = []
    for policy in policies:
        policy.allocate(frozenset({Weights.REFERENCE}))
        tiny.nudge(policy)
        with torch.no_grad(), policy.using(Weights.REFERENCE):
            said.append(policy.predict(x, t, policy.encode(tiny.PROMPTS[:2])).x0)
        assert not torch.equal(policy.predict(x, t, policy.encode(tiny.PROMPTS[:2])).x0, said[-1])
    assert torch.equal(*said)
    places = [{p.device.type for p in bank.activate(Weights.REFERENCE).parameters()} for bank in banks]
    assert places == [{"cpu"}, {"meta"}]


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_compiled_networks_train_the_same(full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters that go on and off, swapped sets of weights, guidance: traced, and run without generated code."""
    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled(module, backend="eager"))
    plan = Plan(steps=2, guidance=2.0, dynamics=Ddim(1.0))
    ends = []
    for asked in (False, True):
        policy = tiny.policy(full=full)
        trainer = training.trainer(
            policy, training.collector((training.Brightness(),), plan=plan), Grpo(kl=0.1), ema=0.9
        )
        if asked:
            policy.compile()
        metrics = [trainer.step(number) for number in range(2)]
        ends.append((tiny.flat(policy), metrics[1]["loss/kl"], policy.state(Weights.EMA).keys()))
    (plain, kl, names), (traced, traced_kl, traced_names) = ends
    torch.testing.assert_close(traced, plain, atol=1e-6, rtol=1e-5)
    assert traced_kl == pytest.approx(kl, rel=1e-4) and kl > 0 and names == traced_names
