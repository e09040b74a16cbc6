"""Published configurations of well-known checkpoints, for what can be said before anything is downloaded.

By what the names of their repositories have in common, the more special first. From the config.json files of
stable-diffusion-v1-5, stable-diffusion-xl-base-1.0, stable-diffusion-3.5-medium and -large, FLUX.1-dev and -schnell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]
Parts = Mapping[str, tuple[str, str, Config]]  # name -> library, class, configuration

CLIP_L: Config = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
CLIP_G: Config = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
T5_XXL: Config = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}


def _vae(side: int, own: Config, *, channels: int = 4) -> tuple[str, str, Config]:
    return (
        "diffusers",
        "AutoencoderKL",
        {
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
            "latent_channels": channels,
            "sample_size": side,
            "use_quant_conv": channels == 4,
            "use_post_quant_conv": channels == 4,
            **own,
        },
    )


DDIM: Config = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
CLIPS: Parts = {
    "text_encoder": ("transformers", "CLIPTextModelWithProjection", CLIP_L),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", CLIP_G),
}
SD1: Parts = {
    "unet": (
        "diffusers",
        "UNet2DConditionModel",
        {
            "sample_size": 64,
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
            "block_out_channels": (320, 640, 1280, 1280),
        },
    ),
    "vae": _vae(512, {}),
    "text_encoder": ("transformers", "CLIPTextModel", CLIP_L),
    "scheduler": ("diffusers", "DDIMScheduler", DDIM),
}
SDXL: Parts = {
    "unet": (
        "diffusers",
        "UNet2DConditionModel",
        {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    ),
    "vae": _vae(1024, {"scaling_factor": 0.13025, "force_upcast": True}),
    "text_encoder": ("transformers", "CLIPTextModel", CLIP_L),
    "text_encoder_2": CLIPS["text_encoder_2"],
    "scheduler": ("diffusers", "EulerDiscreteScheduler", DDIM),
}


def _sd3(layers: int, positions: int, *, dual: int = 0, norm: str | None = "rms_norm") -> Parts:
    return {
        "transformer": (
            "diffusers",
            "SD3Transformer2DModel",
            {
                "sample_size": 128,
                "patch_size": 2,
                "in_channels": 16,
                "num_layers": layers,
                "attention_head_dim": 64,
                "num_attention_heads": layers,
                "joint_attention_dim": 4096,
                "caption_projection_dim": 64 * layers,
                "pooled_projection_dim": 2048,
                "out_channels": 16,
                "pos_embed_max_size": positions,
                "dual_attention_layers": tuple(range(dual)),
                "qk_norm": norm,
            },
        ),
        "vae": _vae(1024, {"scaling_factor": 1.5305, "shift_factor": 0.0609}, channels=16),
        **CLIPS,
        "text_encoder_3": ("transformers", "T5EncoderModel", T5_XXL),
        "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    }


def _flux(scheduler: Config, *, dev: bool) -> Parts:
    return {
        "transformer": (
            "diffusers",
            "FluxTransformer2DModel",
            {
                "patch_size": 1,
                "in_channels": 64,
                "num_layers": 19,
                "num_single_layers": 38,
                "attention_head_dim": 128,
                "num_attention_heads": 24,
                "joint_attention_dim": 4096,
                "pooled_projection_dim": 768,
                "guidance_embeds": dev,
            },
        ),
        "vae": _vae(1024, {"scaling_factor": 0.3611, "shift_factor": 0.1159}, channels=16),
        "text_encoder": ("transformers", "CLIPTextModel", CLIP_L),
        "text_encoder_2": ("transformers", "T5EncoderModel", T5_XXL),
        "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler", scheduler),
    }


PUBLISHED: Mapping[str, tuple[str, Parts]] = {
    "stable-diffusion-xl": ("StableDiffusionXLPipeline", SDXL),
    "sdxl": ("StableDiffusionXLPipeline", SDXL),
    "3.5-large": ("StableDiffusion3Pipeline", _sd3(38, 192)),
    "3.5-medium": ("StableDiffusion3Pipeline", _sd3(24, 384, dual=13)),
    "stable-diffusion-3": ("StableDiffusion3Pipeline", _sd3(24, 192, norm=None)),
    "schnell": ("FluxPipeline", _flux({"shift": 1.0}, dev=False)),
    "flux": (
        "FluxPipeline",
        _flux({"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "shift": 3.0}, dev=True),
    ),
    "stable-diffusion-v1": ("StableDiffusionPipeline", SD1),
}
