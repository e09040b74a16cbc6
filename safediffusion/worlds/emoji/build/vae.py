"""The world's AutoencoderKL: 64x64 pictures to 16x16x8 latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from .loop import Fit, device, run

FIT = Fit(name="vae", steps=3400, lr=2e-3, warmup=60, ema=0.995, seed=1)
REFINE = Fit(name="decoder", steps=1600, lr=1e-3, warmup=60, ema=0.995, seed=6)


def build() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=1,
        sample_size=64,
        mid_block_add_attention=False,
    )


def pixels(pictures: np.ndarray, index: Tensor) -> Tensor:
    """[B, 3, 64, 64] in [-1, 1]."""
    return torch.from_numpy(pictures[index.numpy()]).permute(0, 3, 1, 2).to(device()).float() / 127.5 - 1


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def reconstruction(y: Tensor, x: Tensor) -> tuple[Tensor, dict[str, float]]:
    l1, l2 = F.l1_loss(y, x), F.mse_loss(y, x)
    edge = sum((F.l1_loss(a, b) for a, b in zip(edges(y), edges(x), strict=True)), torch.zeros((), device=x.device))
    return 10 * l2 + 0.2 * l1 + edge, {"l1": l1.item(), "mse": l2.item()}


def fit(pictures: np.ndarray, folder: Path, *, batch: int = 8) -> AutoencoderKL:
    """Reconstruction by squared error, and by L1 of pixel differences (crisp outlines), with a weak KL."""
    torch.manual_seed(FIT.seed)
    vae = build().to(device()).to(memory_format=torch.channels_last)

    def step(number: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x = pixels(pictures, torch.randint(len(pictures), (batch,), generator=generator))
        posterior = vae.encode(x).latent_dist
        z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator).to(x.device)
        loss, terms = reconstruction(vae.decode(z).sample, x)
        kl = posterior.kl().mean() / z[0].numel()
        return loss + 3e-4 * kl, terms | {"kl": kl.item()}

    run(vae, step, FIT, folder)
    standardize(vae, latents(vae, pictures[:4000])[0])
    return vae


def refine(vae: AutoencoderKL, pictures: np.ndarray, folder: Path, *, batch: int = 8) -> AutoencoderKL:
    """Trains the decoder alone, on slightly noisy latents: pictures get crisper, latents stay what they were."""
    vae.requires_grad_(False)
    decoder = torch.nn.ModuleList([part for part in (vae.post_quant_conv, vae.decoder) if part is not None])
    decoder.requires_grad_(True).train()

    def step(number: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x = pixels(pictures, torch.randint(len(pictures), (batch,), generator=generator))
        with torch.no_grad():
            z = vae.encode(x).latent_dist.mean
        z = z + 0.08 * torch.randn(z.shape, generator=generator).to(z.device)
        return reconstruction(vae.decode(z).sample, x)

    run(decoder, step, REFINE, folder)
    return vae.eval()


@torch.no_grad()
def standardize(vae: AutoencoderKL, means: Tensor) -> None:
    """Folds a shift and a scale of every channel into the 1x1 convolutions beside the latent: mean 0, std 1."""
    shift, scale = means.mean((0, 2, 3)), means.std((0, 2, 3))
    into, out = vae.quant_conv, vae.post_quant_conv
    assert into is not None and out is not None
    channels = len(shift)
    out.bias.add_(out.weight[:, :, 0, 0] @ shift.to(out.weight))
    out.weight.mul_(scale.view(1, -1, 1, 1).to(out.weight))
    into.weight[:channels].div_(scale.view(-1, 1, 1, 1).to(into.weight))
    into.bias[:channels].sub_(shift.to(into.bias)).div_(scale.to(into.bias))
    into.bias[channels:].sub_(2 * scale.log().to(into.bias))
    vae.register_to_config(scaling_factor=1.0)


@torch.no_grad()
def latents(vae: AutoencoderKL, pictures: np.ndarray, *, batch: int = 128) -> tuple[Tensor, Tensor]:
    """Posterior means and stds, each [N, 8, 16, 16], unscaled, on the CPU."""
    means, stds = [], []
    for index in torch.split(torch.arange(len(pictures)), batch):
        posterior = vae.encode(pixels(pictures, index)).latent_dist
        means.append(posterior.mean.cpu())
        stds.append(posterior.std.cpu())
    return torch.cat(means), torch.cat(stds)
