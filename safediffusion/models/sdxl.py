"""Stable Diffusion XL: a `StableDiffusionXLPipeline` as a backbone. Its refiner is another model and takes no part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from safediffusion.core.errors import UserError
from safediffusion.core.types import Conditioning
from safediffusion.diffusion.schedule import DiscreteSchedule

from .parts import PipelineBackbone, clip_states, latent_size, refuse_embedded_guidance, tokens
from .pipelines import StableDiffusionXLPipeline
from .policy import Drawing, Saving


class SdxlBackbone(PipelineBackbone):
    """The UNet, VAE and both text encoders of a pipeline, frozen, on one device.

    The size and crop that SDXL's UNet is told are those of a picture that was never cropped.
    """

    def __init__(
        self,
        pipe: StableDiffusionXLPipeline,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        drawing: Drawing = Drawing(),  # noqa: B008
        saving: Saving = Saving(),  # noqa: B008
    ) -> None:
        config = pipe.unet.config
        if config.in_channels != config.out_channels or pipe.text_encoder is None:
            raise UserError(
                "this is no SDXL base: it has no first text encoder (the refiner) or other inputs than latents "
                "(inpainting); align the base, whose pictures the refiner then polishes"
            )
        refuse_embedded_guidance(drawing)
        super().__init__(pipe, encoders=2, dtype=dtype, device=device, saving=saving)
        self.schedule = DiscreteSchedule.from_config(pipe.scheduler.config)
        self._fit(drawing.size)

    def _fit(self, size: tuple[int, int] | None) -> None:
        config, factor = self.pipe.unet.config, self._vae.factor
        height, width = latent_size(size, config.sample_size, step=factor, factor=factor)
        self.latent_shape = (config.in_channels, height, width)
        pixels = (height * factor, width * factor)
        self._time_ids = torch.tensor([[*pixels, 0, 0, *pixels]], dtype=torch.float32, device=self.device)  # [1, 6]

    def unconditional(self, count: int) -> Conditioning:
        """Zeros where the pipeline was trained with them, as SDXL's base was; else the empty prompt's."""
        empty = self._texts.repeated("", count)
        if not self.pipe.config.force_zeros_for_empty_prompt:
            return empty
        return Conditioning({name: torch.zeros_like(value) for name, value in empty.tensors.items()})

    def _tokens(self, text: str) -> list[Tensor]:
        return [tokens(self.pipe.tokenizer, text), tokens(self.pipe.tokenizer_2, text)]

    def _encode(self, ids: Sequence[Tensor]) -> dict[str, Tensor]:
        """{"text": [L, D], both encoders' states side by side, "pooled": [P] of the second}"""
        first, _ = clip_states(self.pipe.text_encoder, ids[0])
        second, pooled = clip_states(self.pipe.text_encoder_2, ids[1])
        return {"text": torch.cat([first, second], -1)[0].float(), "pooled": pooled[0].float()}

    def forward(self, network: nn.Module, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        added = {"text_embeds": cond.tensors["pooled"], "time_ids": self._time_ids.expand(len(x), -1)}
        with self._frozen.autocast():
            raw: Tensor = network(
                x, t, encoder_hidden_states=cond.tensors["text"], added_cond_kwargs=added, return_dict=False
            )[0]
        return raw.float()
