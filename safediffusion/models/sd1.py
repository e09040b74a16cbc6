"""Stable Diffusion 1.x and 2.x: a `StableDiffusionPipeline` as a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from safediffusion.core.errors import UserError
from safediffusion.core.types import Conditioning
from safediffusion.diffusion.schedule import DiscreteSchedule

from .parts import PipelineBackbone, latent_size, refuse_embedded_guidance, tokens
from .pipelines import StableDiffusionPipeline
from .policy import Drawing, Saving


class Sd1Backbone(PipelineBackbone):
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
        super().__init__(pipe, encoders=1, dtype=dtype, device=device, saving=saving)
        self.schedule = DiscreteSchedule.from_config(pipe.scheduler.config)
        self._fit(drawing.size)

    def _fit(self, size: tuple[int, int] | None) -> None:
        config, factor = self.pipe.unet.config, self._vae.factor
        self.latent_shape = (config.in_channels, *latent_size(size, config.sample_size, step=factor, factor=factor))

    def _tokens(self, text: str) -> list[Tensor]:
        return [tokens(self.pipe.tokenizer, text)]

    def _encode(self, ids: Sequence[Tensor]) -> dict[str, Tensor]:
        """{"text": [L, D]}"""
        states: Tensor = self.pipe.text_encoder(ids[0], attention_mask=None)[0]
        return {"text": states[0].float()}

    def forward(self, network: nn.Module, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        with self._frozen.autocast():
            raw: Tensor = network(x, t, encoder_hidden_states=cond.tensors["text"], return_dict=False)[0]
        return raw.float()
