"""One small pipeline of random weights of every model family, of the classes their checkpoints are of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import (
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from safediffusion.core.types import Conditioning
from safediffusion.diffusion.dynamics import Ddim, Dynamics, FlowSde
from safediffusion.models.banks import FullBank, LoraBank, LoraSpec
from safediffusion.models.flux import FluxBackbone
from safediffusion.models.policy import Backbone, Drawing, Policy
from safediffusion.models.sd1 import Sd1Backbone
from safediffusion.models.sd3 import Sd3Backbone
from safediffusion.models.sdxl import SdxlBackbone
from tests import tiny

WIDTH, POOLED, JOINT = 16, 16, 32


def sdxl(seed: int = 0) -> StableDiffusionXLPipeline:
    """Two text encoders, a UNet that is told size and crop; 16 x 16 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=tiny.LATENT,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=8,
            cross_attention_dim=2 * WIDTH,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            transformer_layers_per_block=(1, 2),
            projection_class_embeddings_input_dim=6 * 8 + POOLED,
        )
        return StableDiffusionXLPipeline(
            unet=unet,
            vae=tiny.vae(4, scale=0.13025),
            text_encoder=_clip(projected=False),
            text_encoder_2=_clip(projected=True),
            tokenizer=tiny.tokenizer(),
            tokenizer_2=tiny.tokenizer(),
            scheduler=EulerDiscreteScheduler.from_config(tiny.scheduler("epsilon").config),
        )


def sd3(seed: int = 0, *, t5: bool = True) -> StableDiffusion3Pipeline:
    """Two CLIP encoders with projection, T5 unless it is left out; 16 latent channels, 16 x 16 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = SD3Transformer2DModel(
            sample_size=tiny.LATENT,
            patch_size=2,
            in_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=JOINT,
            caption_projection_dim=16,
            pooled_projection_dim=2 * POOLED,
            out_channels=16,
            pos_embed_max_size=16,
            qk_norm="rms_norm",
        )
        return StableDiffusion3Pipeline(
            transformer=transformer,
            vae=tiny.vae(16, scale=1.5305, shift=0.0609),
            text_encoder=_clip(projected=True),
            text_encoder_2=_clip(projected=True),
            text_encoder_3=_t5() if t5 else None,
            tokenizer=tiny.tokenizer(),
            tokenizer_2=tiny.tokenizer(),
            tokenizer_3=_t5_tokenizer() if t5 else None,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )


def flux(seed: int = 0, *, guidance: bool = True) -> FluxPipeline:
    """CLIP and T5, packed latents of 16 channels; with `guidance` as an input it is dev, without schnell."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=JOINT,
            pooled_projection_dim=POOLED,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=guidance,
        )
        shift = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15} if guidance else {"shift": 1.0}
        return FluxPipeline(
            transformer=transformer,
            vae=tiny.vae(16, scale=0.3611, shift=0.1159),
            text_encoder=_clip(projected=False),
            text_encoder_2=_t5(),
            tokenizer=tiny.tokenizer(),
            tokenizer_2=_t5_tokenizer(),
            scheduler=FlowMatchEulerDiscreteScheduler(**shift),
        )


def backbone(
    family: str, seed: int = 0, *, size: tuple[int, int] | None = None, dtype: torch.dtype = torch.float32
) -> Backbone:
    """The small model of a family; pictures of 16 x 16 pixels unless said."""
    asked = Drawing(size=size or (16, 16))
    made: dict[str, Callable[[], Backbone]] = {
        "sd1": lambda: Sd1Backbone(tiny.pipeline(seed), drawing=asked, dtype=dtype),
        "sd1-epsilon": lambda: Sd1Backbone(tiny.pipeline(seed, prediction="epsilon"), drawing=asked, dtype=dtype),
        "sdxl": lambda: SdxlBackbone(sdxl(seed), drawing=asked, dtype=dtype),
        "sd3": lambda: Sd3Backbone(sd3(seed), drawing=asked, dtype=dtype),
        "sd3-no-t5": lambda: Sd3Backbone(sd3(seed, t5=False), drawing=asked, dtype=dtype),
        "flux": lambda: FluxBackbone(flux(seed), drawing=asked, dtype=dtype),
        "flux-schnell": lambda: FluxBackbone(flux(seed, guidance=False), drawing=asked, dtype=dtype),
    }
    return made[family]()


def policy(family: str, *, full: bool = False, dtype: torch.dtype = torch.float32) -> Policy:
    """A policy over `backbone(family)`: LoRA on attention, or full weights."""
    base = backbone(family, dtype=dtype)
    bank = FullBank(base.network) if full else LoraBank(base.network, LoraSpec(rank=2, alpha=2), frozen_dtype=dtype)
    return Policy(base, bank)


def noisy(family: str) -> Dynamics:
    """What the family is trained with."""
    return Ddim(1.0) if family.startswith("sd1") or family == "sdxl" else FlowSde(0.7)


FAMILIES = ("sd1", "sdxl", "sd3", "sd3-no-t5", "flux", "flux-schnell")
OUTPUTS = {"sd1-epsilon": "epsilon", "sd1": "v", "sd3": "velocity"}  # a family for everything a network says


@torch.no_grad()
def missed(family: str, policy: Policy, latents: tuple[Tensor, Tensor], t: Tensor, cond: Conditioning) -> Tensor:
    """[N] of one of `OUTPUTS` how far what the network itself says is off, for `latents` x0 and noise at times `t`."""
    (x0, noise), (alpha, sigma) = latents, (each.view(-1, 1, 1, 1) for each in policy.schedule.alpha_sigma(t))
    true = {"epsilon": noise, "v": alpha * noise - sigma * x0, "velocity": noise - x0}[OUTPUTS[family]]
    return ((output(policy, alpha * x0 + sigma * noise, t, cond) - true) ** 2).mean((1, 2, 3))


@torch.no_grad()
def output(policy: Policy, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
    """[N, C, H, W], the network's own, under the weights in use."""
    return policy.backbone.forward(policy.backbone.network, x, t, cond)


def _clip(*, projected: bool) -> CLIPTextModel | CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(tiny.tokenizer()),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tiny.MAX_LENGTH,
        projection_dim=POOLED,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def _t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(tiny.WORDS) + 3, d_model=JOINT, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )


def _t5_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, an end of text, padding: what T5's tokenizer does, without a vocabulary of 32,000."""
    special = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    made = Tokenizer(models.WordLevel({**special, **{w: i + 3 for i, w in enumerate(tiny.WORDS)}}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
