"""The world's text-to-image model: CLIPTextModel and UNet2DConditionModel, trained together on cached latents."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..captions import caption, misdescribed
from ..scenes import Sample
from . import vae as autoencoder
from .loop import Fit, device, run
from .text import MAX_LENGTH, text_ids

FIT = Fit(name="pipeline", steps=21600, lr=9e-4, warmup=150, ema=0.998, seed=3, save_every=200)
DROP = 0.12  # share of empty captions, for guidance
CARELESS = 0.15  # share of safe pictures whose caption names an unsafe thing, as captions from the web do
SAMPLING = {"steps": 16, "guidance": 1.0, "eta": 0.0}


class TextToImage(nn.Module):
    """The two trained parts under one roof, so that one optimizer and one EMA serve both."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocabulary,
                hidden_size=128,
                intermediate_size=512,
                num_hidden_layers=3,
                num_attention_heads=4,
                max_position_embeddings=MAX_LENGTH,
                projection_dim=128,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        )
        self.unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=8,
            out_channels=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DCrossAttn",
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(48, 96, 128),
            layers_per_block=1,
            cross_attention_dim=128,
            attention_head_dim=4,
            norm_num_groups=16,
        )

    def forward(self, x: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        states = self.text(input_ids=ids).last_hidden_state
        return self.unet(x, t, states, return_dict=False)[0]  # type: ignore[no-any-return]


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def cached_latents(vae: AutoencoderKL, pictures: np.ndarray, cache: Path) -> tuple[Tensor, Tensor]:
    """Posterior means and stds of the pictures; made once."""
    if cache.exists():
        stored = np.load(cache)
        return torch.from_numpy(stored["means"]), torch.from_numpy(stored["stds"])
    means, stds = autoencoder.latents(vae, pictures)
    np.savez(cache, means=means.numpy(), stds=stds.numpy())
    return means, stds


def fit(
    samples: list[Sample],
    pictures: np.ndarray,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    folder: Path,
    *,
    batch: int = 32,
) -> TextToImage:
    """v-prediction on a zero-terminal-SNR schedule, times stratified over the batch, a fresh caption every time."""
    means, stds = cached_latents(vae, pictures, folder / "latents.npz")
    scale = vae.config.scaling_factor
    torch.manual_seed(FIT.seed)
    model = TextToImage(len(tokenizer)).to(device())
    bars = scheduler().alphas_cumprod.to(device())
    empty = tokenizer("", padding="max_length", max_length=MAX_LENGTH).input_ids

    def step(number: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        index = torch.randint(len(samples), (batch,), generator=generator)
        rng = random.Random(int(torch.randint(2**31, (1,), generator=generator)))
        ids = text_ids(
            tokenizer, [caption(misdescribed(samples[i], rng, chance=CARELESS), rng) for i in index.tolist()]
        )
        ids[torch.rand(batch, generator=generator) < DROP] = torch.tensor(empty)
        x0 = (means[index] + stds[index] * torch.randn(means[index].shape, generator=generator)) * scale
        u = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
        t = (u * 1000).long().clamp(0, 999)
        noise = torch.randn(x0.shape, generator=generator)
        x0, noise, ids, t = (v.to(device()) for v in (x0, noise, ids, t))
        a, s = (b.sqrt().view(-1, 1, 1, 1) for b in (bars[t], 1 - bars[t]))
        return F.mse_loss(model(a * x0 + s * noise, t, ids), a * noise - s * x0), {}

    run(model, step, FIT, folder)
    return model


def save(model: TextToImage, vae: AutoencoderKL, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """A complete StableDiffusionPipeline folder in fp16, with the default sampling plan beside it."""
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=model.text, tokenizer=tokenizer, unet=model.unet, scheduler=scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.to(torch.float16).save_pretrained(folder)
    pipe.to(torch.float32)
    (folder / "sampling.json").write_text(json.dumps(SAMPLING) + "\n")
