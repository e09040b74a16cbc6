"""FLUX.1 dev and schnell: a `FluxPipeline` as a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from safediffusion.core.types import Conditioning
from safediffusion.diffusion.schedule import RectifiedFlow

from .parts import PipelineBackbone, latent_size, refuse_embedded_guidance, tokens
from .pipelines import FluxPipeline
from .policy import Drawing, Saving

T5_LENGTH = 512  # tokens, as the pipeline of diffusers has it
SIDE = 128  # latents; FLUX was trained at many sizes, its pipeline draws 1024 pixels
PATCH = 2
GUIDANCE = 3.5  # what dev was distilled to take, and the pipeline's default


class FluxBackbone(PipelineBackbone):
    """The transformer, VAE and text encoders of a pipeline, frozen, on one device; times run from 1 to 0.

    Latents are [B, 16, H, W]; they are packed into patches only for the transformer. Guidance is an input of dev's
    network (`Drawing.embedded_guidance`; schnell takes none), so that of a plan, which costs a second forward, is 1.
    """

    def __init__(
        self,
        pipe: FluxPipeline,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        drawing: Drawing = Drawing(),  # noqa: B008
        saving: Saving = Saving(),  # noqa: B008
    ) -> None:
        if not pipe.transformer.config.guidance_embeds:
            refuse_embedded_guidance(drawing)
        given = drawing.embedded_guidance
        self.embedded_guidance = GUIDANCE if given is None else given
        super().__init__(pipe, encoders=2, dtype=dtype, device=device, saving=saving)
        self._fit(drawing.size)

    def _fit(self, size: tuple[int, int] | None) -> None:
        pipe, factor = self.pipe, self._vae.factor
        height, width = latent_size(size, SIDE, step=factor * PATCH, factor=factor)
        self.latent_shape = (pipe.transformer.config.in_channels // PATCH**2, height, width)
        patches = (height // PATCH) * (width // PATCH)
        self.schedule = RectifiedFlow.from_config(pipe.scheduler.config, tokens=patches, even=True)
        self._places = torch.zeros(height // PATCH, width // PATCH, 3)
        self._places[..., 1] += torch.arange(height // PATCH)[:, None]
        self._places[..., 2] += torch.arange(width // PATCH)[None, :]
        self._places = self._places.flatten(0, 1).to(self.device)  # [patches, 3]

    def _tokens(self, text: str) -> list[Tensor]:
        return [tokens(self.pipe.tokenizer, text), tokens(self.pipe.tokenizer_2, text, length=T5_LENGTH)]

    def _encode(self, ids: Sequence[Tensor]) -> dict[str, Tensor]:
        """{"text": [512, D] of T5, "pooled": [P] of CLIP}"""
        pooled = self.pipe.text_encoder(ids[0]).pooler_output
        states = self.pipe.text_encoder_2(ids[1])[0]
        return {"text": states[0].float(), "pooled": pooled[0].float()}

    def forward(self, network: nn.Module, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        text = cond.tensors["text"]
        embeds = self.pipe.transformer.config.guidance_embeds
        with self._frozen.autocast():
            raw: Tensor = network(
                hidden_states=pack(x),
                timestep=t,
                guidance=torch.full_like(t, self.embedded_guidance) if embeds else None,
                pooled_projections=cond.tensors["pooled"],
                encoder_hidden_states=text,
                txt_ids=torch.zeros(text.shape[1], 3, device=x.device),
                img_ids=self._places,
                return_dict=False,
            )[0]
        return unpack(raw.float(), like=x)


def pack(x: Tensor) -> Tensor:
    """[B, H W / 4, 4 C] patches of latents [B, C, H, W]."""
    batch, channels, height, width = x.shape
    split = x.view(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH**2)


def unpack(patches: Tensor, *, like: Tensor) -> Tensor:
    """The latents of these patches, in the shape of `like` [B, C, H, W]."""
    batch, channels, height, width = like.shape
    split = patches.view(batch, height // PATCH, width // PATCH, channels, PATCH, PATCH)
    return split.permute(0, 3, 1, 4, 2, 5).reshape(like.shape)
