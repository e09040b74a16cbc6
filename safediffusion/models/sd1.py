"""Stable Diffusion 1.x and 2.x: a `StableDiffusionPipeline` as a backbone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.core.types import Conditioning
from safediffusion.diffusion.schedule import DiscreteSchedule

from .files import read_pipeline
from .pipelines import StableDiffusionPipeline

CACHED_TEXTS = 1024


class Sd1Backbone:
    """The UNet, VAE and text encoder of a pipeline, frozen, on one device.

    With a `dtype` below float32 the networks run under autocast; latents, predictions and images stay float32.
    """

    def __init__(
        self,
        pipe: StableDiffusionPipeline,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        config = pipe.unet.config
        if config.in_channels != config.out_channels:
            raise UserError(
                f"this UNet takes {config.in_channels} channels and returns {config.out_channels}; "
                "inpainting and upscaling models cannot be aligned from text alone, use a text-to-image checkpoint"
            )
        self.pipe, self.dtype, self.device = pipe, dtype, torch.device(device)
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.requires_grad_(False).eval().to(self.device)
        self.schedule = DiscreteSchedule.from_config(pipe.scheduler.config)
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        self.latent_shape: tuple[int, ...] = (config.in_channels, height, width)
        self._texts: OrderedDict[str, Tensor] = OrderedDict()

    @classmethod
    def from_folder(
        cls, path: Path | str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Sd1Backbone:
        """The model in a diffusers folder or under a hub id."""
        return cls(read_pipeline(path), dtype=dtype, device=device)

    @property
    def network(self) -> nn.Module:
        unet: nn.Module = self.pipe.unet
        return unet

    def encode(self, prompts: Sequence[Prompt]) -> Conditioning:
        """{"text": [B, L, D]}; a text beyond the encoder's length is cut, as everywhere with CLIP.

        Texts are encoded one at a time, so that an embedding does not depend on its neighbours in the batch.
        """
        distinct = {text: self._text(text) for text in dict.fromkeys(prompt.text for prompt in prompts)}
        return Conditioning({"text": torch.stack([distinct[prompt.text] for prompt in prompts])})

    def unconditional(self, count: int) -> Conditioning:
        return Conditioning({"text": self._text("").expand(count, -1, -1)})

    def _text(self, text: str) -> Tensor:
        """[L, D] float32, from the cache of the texts used last."""
        if text not in self._texts:
            self._texts[text] = self._encode(text)
            if len(self._texts) > CACHED_TEXTS:
                self._texts.popitem(last=False)
        self._texts.move_to_end(text)
        return self._texts[text]

    @torch.no_grad()
    def _encode(self, text: str) -> Tensor:
        tokenizer = self.pipe.tokenizer
        tokens = tokenizer(
            [text], padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
        with self._autocast():
            states: Tensor = self.pipe.text_encoder(tokens.input_ids.to(self.device), attention_mask=None)[0]
        return states[0].float()

    def forward(self, network: nn.Module, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        with self._autocast():
            raw: Tensor = network(x, t, encoder_hidden_states=cond.tensors["text"], return_dict=False)[0]
        return raw.float()

    def decode(self, latents: Tensor) -> Tensor:
        config = self.pipe.vae.config
        with self._autocast():
            pixels: Tensor = self.pipe.vae.decode(
                latents / config.scaling_factor + (config.shift_factor or 0.0), return_dict=False
            )[0]
        return (pixels.float() / 2 + 0.5).clamp(0, 1)

    def to_latents(self, images: Tensor) -> Tensor:
        config = self.pipe.vae.config
        with self._autocast():
            latents: Tensor = self.pipe.vae.encode(images * 2 - 1).latent_dist.mode()
        return (latents.float() - (config.shift_factor or 0.0)) * float(config.scaling_factor)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32)
