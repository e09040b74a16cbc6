"""Counted memory against what real tensors take."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import SiglipConfig, SiglipModel

from safediffusion.core.errors import UserError
from safediffusion.models.architecture import Architecture, published, read_architecture
from safediffusion.models.banks import LoraSpec
from safediffusion.models.footprint import Load, Memory, _Allocations, measure
from safediffusion.models.policy import Drawing, Saving
from safediffusion.train.optim import adamw
from tests import families, small, tiny


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
    assert full.rollout == 6 * ((3 * 2 + 1) * 4 * 8 * 8 + tiny.MAX_LENGTH * 16) * 4  # latents, and the text's states
    adapters = sum(p.numel() for p in tiny.policy(rank=4).parameters())
    assert lora.weights == 4 * (unet + vae + text + 2 * adapters)
    assert lora.optimizer == 4 * 3 * adapters


def test_what_saves_memory_is_counted(architecture: Architecture, full: Memory) -> None:
    eight = measure(architecture, replace(load(copies=1), moment_bits=8))
    policy = tiny.policy(full=True)
    optimizer = adamw(policy.parameters(), bits=8)
    for parameter in policy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    scales = {f"{name}{number}" for name in ("state", "absmax") for number in (1, 2)}
    held = sum(t.numel() * t.element_size() for s in optimizer.state.values() for n, t in s.items() if n in scales)
    assert eight.optimizer - 4 * sum(p.numel() for p in policy.parameters()) == held < full.optimizer / 2
    half = measure(architecture, replace(load(copies=1), shares=2))
    unet = 4 * sum(p.numel() for p in policy.parameters())
    assert full.weights - half.weights == unet and half.optimizer == full.optimizer / 2
    assert half.training == full.training and eight.weights == full.weights


def test_text_encoders_elsewhere_or_freed_are_no_weights_of_a_step(architecture: Architecture, full: Memory) -> None:
    text = 4 * sum(p.numel() for p in tiny.pipeline().text_encoder.parameters())
    freed, moved = (
        measure(architecture, replace(load(copies=1), saving=Saving(text_encoders=how))) for how in ("free", "cpu")
    )
    assert full.weights - freed.weights == full.weights - moved.weights == freed.encoding == text
    assert full.encoding == moved.encoding == 0


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
    with pytest.raises(UserError, match=r"has no model_index\.json, so it is no diffusers model"):
        read_architecture(str(tmp_path))
    index = json.loads((folders.model / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"has no scheduler/scheduler_config\.json, so it is no complete"):
        read_architecture(str(tmp_path))
    shutil.copytree(folders.model / "scheduler", tmp_path / "scheduler")
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{")
    with pytest.raises(UserError, match=r"scheduler_config\.json is damaged"):
        read_architecture(str(tmp_path))
    (tmp_path / "model_index.json").write_text('{"_class_name": "AuraFlowPipeline"}')
    with pytest.raises(UserError, match="unknown pipeline class 'AuraFlowPipeline'; .*known: FluxPipeline"):
        read_architecture(str(tmp_path))
    assert read_architecture("someone/a-model-nobody-has").assumed


@pytest.mark.parametrize(
    ("name", "kind", "trained"),
    [
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "StableDiffusionPipeline", 859_520_964),
        ("stabilityai/stable-diffusion-xl-base-1.0", "StableDiffusionXLPipeline", 2_567_463_684),
        ("stabilityai/stable-diffusion-3.5-medium", "StableDiffusion3Pipeline", 2_243_171_520),
        ("stabilityai/stable-diffusion-3.5-large", "StableDiffusion3Pipeline", 8_056_627_520),
        ("black-forest-labs/FLUX.1-dev", "FluxPipeline", 11_901_408_320),
    ],
)
def test_published_architectures_have_the_published_size(name: str, kind: str, trained: int) -> None:
    found = published(name)
    assert found.kind == kind and found.assumed
    networks = found.networks()
    network = networks["unet" if "unet" in networks else "transformer"]
    assert sum(parameter.numel() for parameter in network.parameters()) == trained


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_every_family_is_counted_from_its_folder(family: str, tmp_path: Path) -> None:
    pipe = {"sdxl": families.sdxl, "sd3": families.sd3, "flux": families.flux}[family]()
    pipe.save_pretrained(tmp_path)
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    spec = LoraSpec(rank=2, alpha=2)
    found = measure(read_architecture(str(tmp_path)), replace(load(weights=spec), drawing=Drawing(size=(16, 16))))
    adapters = found.optimizer // 12
    assert adapters > 0
    assert found.weights == 4 * (sum(p.numel() for part in parts for p in part.parameters()) + adapters)
    assert min(found.training, found.sampling, found.decoding) > 0


def test_the_encoder_is_counted_by_its_own_kind(architecture: Architecture, tmp_path: Path) -> None:
    text = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "projection_size": 16}
    vision = {"hidden_size": 16, "intermediate_size": 48, "num_hidden_layers": 2, "image_size": 16, "patch_size": 8}
    heads = {"num_attention_heads": 2}
    siglip = SiglipModel(SiglipConfig(text_config=text | heads, vision_config=vision | heads))
    without = measure(architecture, load())
    for name, model in (("clip", tiny.clip_model()), ("siglip", siglip)):
        model.config.save_pretrained(tmp_path / name)
        found = measure(architecture, replace(load(), encoder=str(tmp_path / name)))
        assert found.weights - without.weights == 4 * sum(p.numel() for p in model.parameters())
        assert not found.uncounted
    assert measure(architecture, replace(load(), encoder="nobody/nothing")).uncounted == ("nobody/nothing",)
