"""The Stable Diffusion backbone: text cache, precision, latents and pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from safediffusion.core.errors import UserError
from safediffusion.core.noise import Noise
from safediffusion.core.prompt import Prompt
from safediffusion.diffusion.denoise import Plan, denoise
from safediffusion.diffusion.dynamics import Ddim
from safediffusion.models.banks import FrozenBank
from safediffusion.models.policy import Policy
from safediffusion.models.sd1 import Sd1Backbone
from tests import tiny


def prompts(*texts: str) -> tuple[Prompt, ...]:
    return tuple(Prompt(id=str(i), text=text) for i, text in enumerate(texts))


def counted(backbone: Sd1Backbone) -> list[int]:
    """Grows by the batch size at every call of the text encoder."""
    calls: list[int] = []

    def count(module: nn.Module, args: tuple[Any, ...]) -> None:
        calls.append(len(args[0]))

    backbone.pipe.text_encoder.register_forward_pre_hook(count)
    return calls


def test_each_distinct_text_is_encoded_once() -> None:
    backbone = tiny.backbone()
    calls = counted(backbone)
    cond = backbone.encode(prompts("a cat", "a dog", "a cat", "a cat"))
    backbone.encode(prompts("a dog", "a red heart"))
    assert len(calls) == 3
    text = cond.tensors["text"]
    assert text.shape == (4, tiny.MAX_LENGTH, 16) and text.dtype is torch.float32
    assert torch.equal(text[0], text[2]) and not torch.equal(text[0], text[1])
    backbone.unconditional(3)
    assert torch.equal(backbone.unconditional(2).tensors["text"][1], backbone.encode(prompts("")).tensors["text"][0])
    assert len(calls) == 4


def test_embeddings_are_those_of_the_pipeline() -> None:
    backbone = tiny.backbone()
    theirs = backbone.pipe.encode_prompt(
        ["a cat", "a knife and blood"], device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )[0]
    torch.testing.assert_close(backbone.encode(prompts("a cat", "a knife and blood")).tensors["text"], theirs)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_picture_is_the_one_of_the_diffusers_pipeline(prediction: str, guidance: float) -> None:
    pipe = tiny.pipeline(prediction=prediction)
    pipe.set_progress_bar_config(disable=True)
    backbone = Sd1Backbone(pipe)
    policy = Policy(backbone, FrozenBank(backbone.network))
    asked = prompts("a cat", "a red heart")
    noise = Noise(((0, "x", 0), (0, "y", 0)), policy.latent_shape)
    plan = Plan(steps=5, guidance=guidance, dynamics=Ddim(0.0))
    latents, _ = denoise(policy, policy.encode(asked), noise, plan)
    theirs = pipe(
        prompt=[p.text for p in asked],
        latents=noise.at(0),
        num_inference_steps=5,
        guidance_scale=guidance,
        eta=0.0,
        output_type="pt",
    ).images
    torch.testing.assert_close(policy.decode(latents), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_are_float32_at_any_precision(dtype: torch.dtype) -> None:
    policy = tiny.policy(dtype=dtype)
    cond = policy.encode(tiny.PROMPTS)
    x = torch.randn(4, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    seen: list[torch.dtype] = []

    def kind(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
        seen.append(output.dtype)

    policy.backbone.network.conv_in.register_forward_hook(kind)  # type: ignore[union-attr]
    prediction = policy.predict(x, torch.full((4,), 500.0), cond)
    assert seen == [dtype]
    images = policy.decode(x)
    for value in (cond.tensors["text"], prediction.x0, prediction.noise, images, policy.backbone.to_latents(images)):
        assert value.dtype is torch.float32


def test_bf16_stays_close_to_float32() -> None:
    exact, quick = tiny.policy(trained=True), tiny.policy(trained=True, dtype=torch.bfloat16)
    x = torch.randn(4, *exact.latent_shape, generator=torch.Generator().manual_seed(0))
    t = torch.full((4,), 500.0)
    one = exact.predict(x, t, exact.encode(tiny.PROMPTS)).noise
    two = quick.predict(x, t, quick.encode(tiny.PROMPTS)).noise
    assert 0 < float((one - two).detach().abs().max()) < 0.05


def test_decode_gives_differentiable_pictures_between_0_and_1() -> None:
    backbone = tiny.backbone()
    latents = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    images = backbone.decode(latents)
    assert images.shape == (2, 3, 16, 16)
    assert float(images.detach().min()) >= 0 and float(images.detach().max()) <= 1
    (slope,) = torch.autograd.grad(images.mean(), latents)
    assert float(slope.norm()) > 0


def test_latents_honour_scale_and_shift_both_ways() -> None:
    plain, scaled = tiny.backbone(), tiny.backbone()
    scaled.pipe.vae.register_to_config(scaling_factor=0.5, shift_factor=0.25)
    plain.pipe.vae.register_to_config(scaling_factor=1.0, shift_factor=None)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(scaled.to_latents(images), (plain.to_latents(images) - 0.25) * 0.5)
    latents = plain.to_latents(images)
    torch.testing.assert_close(scaled.decode((latents - 0.25) * 0.5), plain.decode(latents))
    assert torch.equal(plain.to_latents(images), plain.to_latents(images))


def test_the_latent_shape_comes_from_the_unet() -> None:
    assert Sd1Backbone(tiny.pipeline(size=16)).latent_shape == (4, 16, 16)


def test_an_inpainting_unet_is_refused() -> None:
    pipe = tiny.pipeline()
    pipe.unet.register_to_config(in_channels=9)
    with pytest.raises(UserError, match="takes 9 channels and returns 4; inpainting"):
        Sd1Backbone(pipe)
