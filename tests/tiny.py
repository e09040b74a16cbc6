"""Genuine diffusers and transformers models of a few thousand random weights, built offline in milliseconds."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from safediffusion.core.prompt import Prompt
from safediffusion.models.banks import FullBank, LoraBank, LoraSpec
from safediffusion.models.policy import Bank, Policy
from safediffusion.models.sd1 import Sd1Backbone

WORDS = tuple(
    word
    for line in (
        "a an the and of in on with no not safe unsafe cat dog apple tree heart red blue green two three picture photo",
        "image knife gun bomb blood skull violent wholesome explicit content appropriate harmless prompt left right",
        "above below",
    )
    for word in line.split()
)
MAX_LENGTH = 16
LATENT = 8  # side of the latents; pictures are twice that
PROMPTS = tuple(
    Prompt(id=f"p{i}", text=text, tags={"label": label})
    for i, (text, label) in enumerate(
        [("a cat", "safe"), ("a red heart", "safe"), ("a knife and blood", "unsafe"), ("a dog with a gun", "unsafe")]
    )
)


def tokenizer() -> CLIPTokenizer:
    """A CLIPTokenizer of whole words (those above) and single letters, without any download."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list("0123456789.,-")
    vocabulary: dict[str, int] = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    merges: list[tuple[str, str]] = []
    for piece in [*letters, *[f"{letter}</w>" for letter in letters]]:
        vocabulary[piece] = len(vocabulary)
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merge = (pieces[0], pieces[1])
            pieces[:2] = ["".join(merge)]
            if merge not in merges:
                merges.append(merge)
            vocabulary.setdefault(pieces[0], len(vocabulary))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary))
        lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
        (Path(folder) / "merges.txt").write_text("\n".join(lines) + "\n")
        made = CLIPTokenizer.from_pretrained(
            folder,
            unk_token="<|endoftext|>",
            bos_token="<|startoftext|>",
            eos_token="<|endoftext|>",
            pad_token="<|endoftext|>",
        )
    made.model_max_length = MAX_LENGTH
    assert isinstance(made, CLIPTokenizer)
    return made


def pipeline(seed: int = 0, *, prediction: str = "v_prediction", size: int = LATENT) -> StableDiffusionPipeline:
    """A StableDiffusionPipeline with a 2-level UNet (16/32 channels), f=2 VAE and 1-layer text encoder.

    v-prediction keeps the latents of a random network near unit size; with epsilon they grow tenfold.
    """
    words = tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=size,
            in_channels=4,
            out_channels=4,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=8,
            cross_attention_dim=16,
            attention_head_dim=8,
        )
        autoencoder = vae(4, size=size)
        text = CLIPTextModel(_text_config(len(words)))
    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text,
        tokenizer=words,
        unet=unet,
        scheduler=scheduler(prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def vae(channels: int, *, scale: float = 0.18215, shift: float | None = None, size: int = LATENT) -> AutoencoderKL:
    """An f=2 VAE for latents of `size`; with 4 channels of the layout of SD 1.x and XL, else of SD 3 and FLUX."""
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        sample_size=2 * size,
        scaling_factor=scale,
        shift_factor=shift,
        use_quant_conv=channels == 4,
        use_post_quant_conv=channels == 4,
    )


def scheduler(prediction: str = "v_prediction", *, spacing: str = "leading", zero_snr: bool = False) -> DDIMScheduler:
    """The DDIM scheduler of SD1.5 (scaled-linear betas), without clipping."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1 if spacing == "leading" else 0,
        prediction_type=prediction,
        timestep_spacing=spacing,
        rescale_betas_zero_snr=zero_snr,
    )


def pipeline_folder(folder: Path, seed: int = 0) -> Path:
    """`pipeline(seed)` saved as a diffusers folder."""
    pipeline(seed).save_pretrained(folder)
    return folder


def backbone(seed: int = 0, *, dtype: torch.dtype = torch.float32) -> Sd1Backbone:
    return Sd1Backbone(pipeline(seed), dtype=dtype)


def policy(
    seed: int = 0, *, full: bool = False, rank: int = 4, dtype: torch.dtype = torch.float32, trained: bool = False
) -> Policy:
    """A policy over `backbone(seed)`: LoRA on attention, or `full` weights.

    A fresh LoRA changes nothing; `trained` gives LIVE (and only it) adapters that do.
    """
    base = backbone(seed, dtype=dtype)
    bank: Bank = FullBank(base.network) if full else LoraBank(base.network, LoraSpec(rank=rank, alpha=rank, seed=seed))
    made = Policy(base, bank)
    if trained:
        nudge(made, seed=seed)
    return made


@torch.no_grad()
def nudge(policy: Policy, *, seed: int = 0, size: float = 0.05) -> None:
    """Move every trained parameter by a normal number of standard deviation `size`: an optimizer step's stand-in."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in policy.parameters():
        parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def clip_model(seed: int = 0, *, image_size: int = 16) -> CLIPModel:
    """A 1-layer CLIPModel that goes with `tokenizer`; embeddings have 16 dimensions."""
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=image_size,
        patch_size=8,
        projection_dim=16,
    )
    text = _text_config(len(tokenizer()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16))
    made.train(False)
    return made


def clip_folder(folder: Path, seed: int = 0, *, image_size: int = 16) -> Path:
    """`clip_model(seed)` saved with its tokenizer and preprocessor_config.json."""
    clip_model(seed, image_size=image_size).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    crop = {"height": image_size, "width": image_size}
    CLIPImageProcessorPil(size={"shortest_edge": image_size}, crop_size=crop).save_pretrained(folder)
    return folder


def flat(policy: Policy) -> Tensor:
    """Every trained parameter in one vector [N], a copy."""
    return nn.utils.parameters_to_vector(policy.parameters()).detach().clone()


def _text_config(vocabulary: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=MAX_LENGTH,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
