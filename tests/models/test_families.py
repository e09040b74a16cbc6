"""Every family through the same contract: its pictures are those of its diffusers pipeline."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from safediffusion.core.errors import UserError
from safediffusion.core.noise import Noise
from safediffusion.core.prompt import Prompt
from safediffusion.diffusion.denoise import Plan, denoise
from safediffusion.diffusion.dynamics import Ddim
from safediffusion.models.banks import FrozenBank
from safediffusion.models.flux import FluxBackbone, pack, unpack
from safediffusion.models.policy import Drawing, Policy
from safediffusion.models.sd3 import Sd3Backbone
from safediffusion.models.sdxl import SdxlBackbone
from tests import families, tiny

ASKED = tiny.PROMPTS[1:3]


def ours(policy: Policy, *, guidance: float) -> torch.Tensor:
    noise = Noise(((0, "x", 0), (0, "y", 0)), policy.latent_shape)
    latents, _ = denoise(policy, policy.encode(ASKED), noise, Plan(steps=4, guidance=guidance, dynamics=Ddim(0.0)))
    return policy.decode(latents)


def theirs(pipe: Any, policy: Policy, latents: torch.Tensor, **options: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    side = policy.decode(torch.zeros(1, *policy.latent_shape)).shape[-2:]
    found: torch.Tensor = pipe(
        prompt=[p.text for p in ASKED],
        latents=latents,
        num_inference_steps=4,
        height=side[0],
        width=side[1],
        output_type="pt",
        **options,
    ).images
    return found


def start(policy: Policy) -> torch.Tensor:
    return Noise(((0, "x", 0), (0, "y", 0)), policy.latent_shape).at(0)


@pytest.mark.parametrize("size", [None, (16, 24)])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_sdxl_draws_what_its_pipeline_draws(guidance: float, size: tuple[int, int] | None) -> None:
    from diffusers import DDIMScheduler

    pipe = families.sdxl()
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False, set_alpha_to_one=False)
    backbone = SdxlBackbone(pipe, drawing=Drawing(size=size))
    policy = Policy(backbone, FrozenBank(backbone.network))
    expected = theirs(pipe, policy, start(policy), guidance_scale=guidance, eta=0.0)
    torch.testing.assert_close(ours(policy, guidance=guidance), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("t5", [True, False])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_sd3_draws_what_its_pipeline_draws(guidance: float, t5: bool) -> None:
    pipe = families.sd3(t5=t5)
    backbone = Sd3Backbone(pipe)
    policy = Policy(backbone, FrozenBank(backbone.network))
    expected = theirs(pipe, policy, start(policy), guidance_scale=guidance)
    torch.testing.assert_close(ours(policy, guidance=guidance), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
@pytest.mark.parametrize("dev", [True, False])
def test_flux_draws_what_its_pipeline_draws(dev: bool, size: tuple[int, int]) -> None:
    pipe = families.flux(guidance=dev)
    backbone = FluxBackbone(pipe, drawing=Drawing(size=size, embedded_guidance=2.5 if dev else None))
    policy = Policy(backbone, FrozenBank(backbone.network))
    expected = theirs(pipe, policy, pack(start(policy)), guidance_scale=2.5)
    torch.testing.assert_close(ours(policy, guidance=1.0), expected, atol=1e-4, rtol=1e-4)


def test_patches_are_packed_and_unpacked() -> None:
    x = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pack(x)[0, 1], x[0, :, :2, 2:4].flatten())
    assert torch.equal(unpack(pack(x), like=x), x)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_latents_and_pictures_have_the_size_asked_for(family: str) -> None:
    backbone = families.backbone(family, size=(32, 16))
    assert backbone.latent_shape[1:] == (16, 8)
    images = backbone.decode(torch.zeros(1, *backbone.latent_shape))
    assert images.shape == (1, 3, 32, 16)
    assert backbone.to_latents(images).shape == (1, *backbone.latent_shape)
    with pytest.raises(UserError, match=r"a picture of 33 x 16 pixels .* multiples of \d+, e.g. 32 x 16"):
        families.backbone(family, size=(33, 16))


@pytest.mark.parametrize("family", families.FAMILIES)
def test_what_a_family_says_is_float32_and_does_not_depend_on_its_neighbours(family: str) -> None:
    backbone = families.backbone(family, dtype=torch.bfloat16)
    both, one = backbone.encode(ASKED), backbone.encode(ASKED[:1])
    for name, value in both.tensors.items():
        assert value.dtype is torch.float32 and torch.equal(value[:1], one.tensors[name])
    policy = Policy(backbone, FrozenBank(backbone.network, frozen_dtype=torch.bfloat16))
    assert all(each.dtype is torch.float32 for each in policy.predict(start(policy), torch.full((2,), 0.5), both))


def test_sdxl_without_a_prompt_is_zeros_only_if_the_pipeline_says_so() -> None:
    pipe = families.sdxl()
    assert not SdxlBackbone(pipe).unconditional(2).tensors["text"].any()
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    backbone = SdxlBackbone(pipe)
    empty = backbone.encode([Prompt(id="e", text="")])
    assert torch.equal(backbone.unconditional(1).tensors["pooled"], empty.tensors["pooled"])


def test_the_refiner_is_refused() -> None:
    pipe = families.sdxl()
    pipe.text_encoder = None
    with pytest.raises(UserError, match="no SDXL base: it has no first text encoder"):
        SdxlBackbone(pipe)


def test_guidance_as_an_input_is_refused_where_there_is_none() -> None:
    asked, message = Drawing(embedded_guidance=3.0), "embedded_guidance is 3.0, but this network takes no guidance"
    with pytest.raises(UserError, match=message):
        SdxlBackbone(families.sdxl(), drawing=asked)
    with pytest.raises(UserError, match=message):
        FluxBackbone(families.flux(guidance=False), drawing=asked)


@pytest.mark.parametrize("upcast", [True, False])
def test_pictures_in_float16(upcast: bool) -> None:
    """As `load_policy` stores it: every part in half precision, the VAE too unless it says that it overflows."""
    pipe = families.sdxl().to(torch.float16)
    pipe.vae.register_to_config(force_upcast=upcast)
    backbone = SdxlBackbone(pipe, dtype=torch.float16)
    images = backbone.decode(torch.zeros(1, *backbone.latent_shape))
    assert images.dtype is torch.float32 and bool(images.isfinite().all())
    assert next(pipe.vae.parameters()).dtype is (torch.float32 if upcast else torch.float16)
