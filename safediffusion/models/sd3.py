"""Stable Diffusion 3 and 3.5: a `StableDiffusion3Pipeline` as a backbone. The T5 encoder may be missing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from safediffusion.core.prompt import Prompt
from safediffusion.core.types import Conditioning
from safediffusion.diffusion.schedule import RectifiedFlow

from .parts import Frozen, Vae, clip_states, latent_size, refuse_embedded_guidance, tokens
from .pipelines import StableDiffusion3Pipeline
from .policy import Drawing, Saving
from .texts import Texts

T5_LENGTH = 256  # tokens, as the pipeline of diffusers has it


class Sd3Backbone:
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
        config = pipe.transformer.config
        refuse_embedded_guidance(drawing)
        self.pipe = pipe
        self._frozen = Frozen(pipe.transformer, pipe.vae, dtype=dtype, device=device)
        self._encoders = Frozen.texts(
            pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3, main=self._frozen, saving=saving
        )
        self._vae, self._texts = Vae(pipe.vae, self._frozen), Texts(self._encode, device=device)
        patch, factor = config.patch_size, self._vae.factor
        height, width = latent_size(drawing, config.sample_size, step=factor * patch, factor=factor)
        self.latent_shape: tuple[int, ...] = (config.in_channels, height, width)
        patches = (height // patch) * (width // patch)
        self.schedule = RectifiedFlow.from_config(pipe.scheduler.config, tokens=patches, even=False)

    @property
    def device(self) -> torch.device:
        return self._frozen.device

    @property
    def network(self) -> nn.Module:
        transformer: nn.Module = self.pipe.transformer
        return transformer

    def encode(self, prompts: Sequence[Prompt]) -> Conditioning:
        """{"text": [B, L + 256, D], the CLIPs' states side by side, then T5's, "pooled": [B, P] of both CLIPs}."""
        return self._texts.conditioning([prompt.text for prompt in prompts])

    def unconditional(self, count: int) -> Conditioning:
        return self._texts.repeated("", count)

    def _encode(self, text: str) -> dict[str, Tensor]:
        pipe, width = self.pipe, self.pipe.transformer.config.joint_attention_dim
        length = pipe.tokenizer.model_max_length
        with self._encoders.autocast():
            first, pooled = clip_states(pipe.text_encoder, pipe.tokenizer, text, length=length)
            second, pooled_2 = clip_states(pipe.text_encoder_2, pipe.tokenizer_2, text, length=length)
            if pipe.text_encoder_3 is None:
                long = torch.zeros(1, T5_LENGTH, width, device=self._encoders.device)
            else:
                long = pipe.text_encoder_3(tokens(pipe.tokenizer_3, text, length=T5_LENGTH).to(self._encoders.device))[
                    0
                ]
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

    def decode(self, latents: Tensor) -> Tensor:
        return self._vae.decode(latents)

    def to_latents(self, images: Tensor) -> Tensor:
        return self._vae.encode(images)
