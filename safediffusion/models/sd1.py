"""Stable Diffusion 1.x and 2.x: a `StableDiffusionPipeline` as a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.core.types import Conditioning
from safediffusion.diffusion.schedule import DiscreteSchedule

from .parts import Frozen, Vae, latent_size, refuse_embedded_guidance, tokens
from .pipelines import StableDiffusionPipeline
from .policy import Drawing, Saving
from .texts import Texts


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
        drawing: Drawing = Drawing(),  # noqa: B008
        saving: Saving = Saving(),  # noqa: B008
    ) -> None:
        config = pipe.unet.config
        if config.in_channels != config.out_channels:
            raise UserError(
                f"this UNet takes {config.in_channels} channels and returns {config.out_channels}; "
                "inpainting and upscaling models cannot be aligned from text alone, use a text-to-image checkpoint"
            )
        refuse_embedded_guidance(drawing)
        self.pipe = pipe
        self._frozen = Frozen(pipe.unet, pipe.vae, dtype=dtype, device=device)
        self._encoders = Frozen.texts(pipe.text_encoder, main=self._frozen, saving=saving)
        self._vae, self._texts = Vae(pipe.vae, self._frozen), Texts(self._encode, device=device)
        self.schedule = DiscreteSchedule.from_config(pipe.scheduler.config)
        side = latent_size(drawing, config.sample_size, step=self._vae.factor, factor=self._vae.factor)
        self.latent_shape: tuple[int, ...] = (config.in_channels, *side)

    @property
    def device(self) -> torch.device:
        return self._frozen.device

    @property
    def network(self) -> nn.Module:
        unet: nn.Module = self.pipe.unet
        return unet

    def encode(self, prompts: Sequence[Prompt]) -> Conditioning:
        """{"text": [B, L, D]}; a text beyond the encoder's length is cut, as everywhere with CLIP."""
        return self._texts.conditioning([prompt.text for prompt in prompts])

    def unconditional(self, count: int) -> Conditioning:
        return self._texts.repeated("", count)

    def _encode(self, text: str) -> dict[str, Tensor]:
        ids = tokens(self.pipe.tokenizer, text).to(self._encoders.device)
        with self._encoders.autocast():
            states: Tensor = self.pipe.text_encoder(ids, attention_mask=None)[0]
        return {"text": states[0].float()}

    def forward(self, network: nn.Module, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        with self._frozen.autocast():
            raw: Tensor = network(x, t, encoder_hidden_states=cond.tensors["text"], return_dict=False)[0]
        return raw.float()

    def decode(self, latents: Tensor) -> Tensor:
        return self._vae.decode(latents)

    def to_latents(self, images: Tensor) -> Tensor:
        return self._vae.encode(images)
