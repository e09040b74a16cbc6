"""Stable Diffusion 3 and 3.5: a `StableDiffusion3Pipeline` as a backbone. The T5 encoder may be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from safediffusion.core.types import Conditioning
from safediffusion.diffusion.schedule import RectifiedFlow

from .parts import PipelineBackbone, clip_states, latent_size, refuse_embedded_guidance, tokens
from .pipelines import StableDiffusion3Pipeline
from .policy import Drawing, Saving

T5_LENGTH = 256  # tokens, as the pipeline of diffusers has it


class Sd3Backbone(PipelineBackbone):
    """The transformer, VAE and text encoders of a pipeline, frozen, on one device; times run from 1 to 0."""

    def __init__(
        self,
        pipe: StableDiffusion3Pipeline,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        drawing: Drawing = Drawing(),  # noqa: B008
        saving: Saving = Saving(),  # noqa: B008
    ) -> None:
        refuse_embedded_guidance(drawing)
        self._t5 = pipe.text_encoder_3 is not None
        super().__init__(pipe, encoders=3, dtype=dtype, device=device, saving=saving)
        self._fit(drawing.size)

    def _fit(self, size: tuple[int, int] | None) -> None:
        config, factor = self.pipe.transformer.config, self._vae.factor
        patch = config.patch_size
        height, width = latent_size(size, config.sample_size, step=factor * patch, factor=factor)
        self.latent_shape = (config.in_channels, height, width)
        patches = (height // patch) * (width // patch)
        self.schedule = RectifiedFlow.from_config(self.pipe.scheduler.config, tokens=patches, even=False)

    def _options(self) -> Mapping[str, object]:
        return {"width": self.pipe.transformer.config.joint_attention_dim}

    def _tokens(self, text: str) -> list[Tensor]:
        """Of the CLIPs and, where there is one, of T5."""
        pipe = self.pipe
        length = pipe.tokenizer.model_max_length
        found = [tokens(each, text, length=length) for each in (pipe.tokenizer, pipe.tokenizer_2)]
        return [*found, tokens(pipe.tokenizer_3, text, length=T5_LENGTH)] if self._t5 else found

    def _encode(self, ids: Sequence[Tensor]) -> dict[str, Tensor]:
        """{"text": [L + 256, D], the CLIPs' states side by side, then T5's, "pooled": [P] of both CLIPs}"""
        pipe, width = self.pipe, self.pipe.transformer.config.joint_attention_dim
        first, pooled = clip_states(pipe.text_encoder, ids[0])
        second, pooled_2 = clip_states(pipe.text_encoder_2, ids[1])
        long = pipe.text_encoder_3(ids[2])[0] if self._t5 else torch.zeros(1, T5_LENGTH, width, device=first.device)
        clip = torch.cat([first, second], -1).float()
        states = torch.cat([pad(clip, (0, width - clip.shape[-1])), long.float()], 1)
        return {"text": states[0], "pooled": torch.cat([pooled, pooled_2], -1)[0].float()}

    def forward(self, network: nn.Module, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        with self._frozen.autocast():
            raw: Tensor = network(
                hidden_states=x,
                timestep=1000 * t,
                encoder_hidden_states=cond.tensors["text"],
                pooled_projections=cond.tensors["pooled"],
                return_dict=False,
            )[0]
        return raw.float()
