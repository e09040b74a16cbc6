"""Counted memory against what real tensors take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from safediffusion.core.errors import UserError
from safediffusion.models.banks import LoraSpec
from safediffusion.models.footprint import Architecture, Load, Memory, _Allocations, measure, read_architecture
from tests import small, tiny


def load(*, weights: LoraSpec | None = None, copies: int = 0, micro: int = 2) -> Load:
    return Load(
        weights=weights,
        copies=copies,
        precision="fp32",
        micro=micro,
        further_passes=0,
        images=6,
        recorded=3,
        rollout_batch=4,
        guided=False,
        encoder=None,
    )


@pytest.fixture(scope="module")
def architecture(folders: small.Folders) -> Architecture:
    return read_architecture(str(folders.model))


@pytest.fixture(scope="module")
def full(architecture: Architecture) -> Memory:
    return measure(architecture, load(copies=1))


@pytest.fixture(scope="module")
def lora(architecture: Architecture) -> Memory:
    return measure(architecture, load(weights=LoraSpec(rank=4, alpha=4), copies=1, micro=6))


def test_weights_are_counted_to_the_byte(full: Memory, lora: Memory) -> None:
    pipe = tiny.pipeline()
    unet, vae, text = (sum(p.numel() for p in part.parameters()) for part in (pipe.unet, pipe.vae, pipe.text_encoder))
    assert full.weights == 4 * (2 * unet + vae + text)
    assert full.optimizer == 4 * 3 * unet
    assert full.rollout == 6 * (3 * 2 + 1) * 4 * 8 * 8 * 4
    adapters = sum(p.numel() for p in tiny.policy(rank=4).parameters())
    assert lora.weights == 4 * (unet + vae + text + 2 * adapters)
    assert lora.optimizer == 4 * 3 * adapters


def test_activations_are_those_of_a_real_forward_and_backward(full: Memory, lora: Memory) -> None:
    policy = tiny.policy(full=True)
    unet = policy.backbone.network
    real = _Allocations()
    with real:
        x, t, cond = torch.zeros(2, 4, 8, 8), torch.zeros(2), torch.zeros(2, tiny.MAX_LENGTH, 16)
        unet(x, t, encoder_hidden_states=cond, return_dict=False)[0].float().sum().backward()
    gradients = 4 * sum(p.numel() for p in policy.parameters())
    assert full.training == pytest.approx(real.peak - gradients, rel=0.02)
    assert lora.training > 2 * full.training  # 6 items, not 2
    assert lora.decoding == full.decoding


def test_a_model_that_is_not_there_or_not_whole_is_named(folders: small.Folders, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no model at nowhere"):
        read_architecture("nowhere")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no vae/config\.json, so it is no complete diffusers model"):
        read_architecture(str(tmp_path))
    (tmp_path / "unet" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"unet/config\.json is damaged"):
        read_architecture(str(tmp_path))
    assert read_architecture("someone/a-model-nobody-has").assumed
