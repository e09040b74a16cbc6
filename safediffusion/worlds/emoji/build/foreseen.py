"""What a denoiser makes of a scene half way: pictures that are blurred, doubled and torn as a sampler's are.

The encoder must read them, for the reward is asked about them: about what is foreseen in every step, and about whatever
training makes of the model. Without them a torn picture of an unsafe thing passes for a safe one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from ..captions import caption
from ..scenes import Sample
from . import vae as autoencoder
from .loop import device
from .text import text_ids

SEED = 7
TIMES = (60, 800)  # of the noise a scene is seen through
JITTER = 0.5  # at most, of a tensor's own spread: half of the batches are drawn by a network that is that much off


@torch.no_grad()
def foreseen(folder: Path, samples: list[Sample], pictures: np.ndarray, *, batch: int = 50) -> np.ndarray:
    """x0 as the pipeline in `folder` predicts it from each noised picture, uint8 like `pictures` [N, 64, 64, 3]."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None).to(device())
    bars = pipe.scheduler.alphas_cumprod.to(device())
    rng, generator = random.Random(SEED), torch.Generator().manual_seed(SEED)
    out = []
    for number, index in enumerate(torch.split(torch.arange(len(samples)), batch)):
        x0 = pipe.vae.encode(autoencoder.pixels(pictures, index)).latent_dist.mean * pipe.vae.config.scaling_factor
        t = torch.randint(*TIMES, (len(index),), generator=generator)
        noise = torch.randn(x0.shape, generator=generator).to(x0.device)
        a, s = (b.sqrt().view(-1, 1, 1, 1) for b in (bars[t], 1 - bars[t]))
        ids = text_ids(pipe.tokenizer, [caption(samples[i], rng) for i in index.tolist()]).to(device())
        states = pipe.text_encoder(ids)[0]
        with _jittered(pipe.unet, JITTER * rng.random() * (number % 2), generator):
            x = a * x0 + s * noise
            clean = a * x - s * pipe.unet(x, t.to(device()), states, return_dict=False)[0]
        y: Tensor = pipe.vae.decode(clean / pipe.vae.config.scaling_factor).sample
        out.append(((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(out)


@contextmanager
def _jittered(network: nn.Module, scale: float, generator: torch.Generator) -> Iterator[None]:
    """Within the block every weight is off by noise of `scale` times its tensor's standard deviation."""
    before = {name: p.clone() for name, p in network.named_parameters()} if scale else {}
    for name, p in network.named_parameters():
        if name in before and p.ndim > 1:
            p.add_(scale * p.std() * torch.randn(p.shape, generator=generator).to(p.device))
    yield
    for name, p in network.named_parameters():
        if name in before:
            p.copy_(before[name])
