"""ImageReward (arXiv 2304.05977): how much people like a picture for its prompt, by a BLIP that reads both together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from safediffusion.core.errors import UserError
from safediffusion.scorers.base import ImageBatch
from safediffusion.scorers.clip import load_exactly
from safediffusion.scorers.heads import linear_head
from safediffusion.scorers.preprocessing import Preprocessing

IMAGEREWARD = "zai-org/ImageReward/ImageReward.pt"
WORDS = "google-bert/bert-base-uncased"  # the tokens that BLIP adds to it occur in no prompt
LENGTH = 35  # tokens; the rest of a prompt is cut off
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the head's output, by which scores are standardised
VISION = BlipVisionConfig(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    image_size=224,
    patch_size=16,
    layer_norm_eps=1e-6,
)
TEXT = BlipTextConfig(vocab_size=30524, encoder_hidden_size=1024, num_attention_heads=12)
UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
RENAMED = {  # parts of the original BLIP's names of its picture tower -> transformers'; the text tower has the same
    ".cls_token": ".embeddings.class_embedding",
    ".pos_embed": ".embeddings.position_embedding",
    ".patch_embed.proj.": ".embeddings.patch_embedding.",
    ".blocks.": ".encoder.layers.",
    ".norm1.": ".layer_norm1.",
    ".norm2.": ".layer_norm2.",
    ".attn.qkv.": ".self_attn.qkv.",
    ".attn.proj.": ".self_attn.projection.",
    ".norm.": ".post_layernorm.",
}


class Blip(nn.Module):
    """BLIP's text encoder looking at a picture by cross-attention (arXiv 2201.12086)."""

    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig) -> None:
        super().__init__()
        self.visual_encoder = BlipVisionModel(vision)
        self.text_encoder = BlipTextModel(text, add_pooling_layer=False)

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """[B, 3, H, W] prepared, [B, L] and [B, L] -> [B, D], features of the first token."""
        seen = self.visual_encoder(pixel_values=pixels).last_hidden_state
        said = self.text_encoder(input_ids=tokens, attention_mask=mask, encoder_hidden_states=seen, is_decoder=False)
        first: Tensor = said.last_hidden_state[:, 0]
        return first


class ImageReward:
    """The learned preference, standardised: about -2 to 2. Differentiable; pictures and prompts are read in batches.

    `weights`: the tensors of ImageReward.pt by its own names; `words`: folder or hub id of BERT's tokenizer. UserError
    when a tensor is missing, unknown or of another shape, or when the tokenizer cannot be loaded.
    """

    name: str = "imagereward"
    higher_is_better: bool = True
    differentiable: bool = True

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        *,
        device: torch.device | str = "cpu",
        words: str | Path = WORDS,
        vision: BlipVisionConfig = VISION,
        text: BlipTextConfig = TEXT,
    ) -> None:
        try:
            self._words = AutoTokenizer.from_pretrained(str(words), local_files_only=Path(words).is_dir())
        except (OSError, ValueError) as error:
            raise UserError(
                f"ImageReward's tokenizer '{words}' cannot be loaded ({str(error).splitlines()[0]}); download it once "
                "where there is a network"
            ) from error
        head = {name.removeprefix("mlp."): value for name, value in weights.items() if name.startswith("mlp.")}
        rest = {name: value for name, value in weights.items() if not name.startswith("mlp.")}
        self._weight, self._bias = (value.to(device) for value in linear_head(head, of="ImageReward"))
        self.blip = Blip(vision, text)
        load_exactly(self.blip, from_blip(rest), into="ImageReward's BLIP")
        self.blip.to(device).eval().requires_grad_(False)
        self.device = torch.device(device)
        side = vision.image_size
        assert isinstance(side, int)
        self._prepare = Preprocessing(
            shortest=side,
            exact=None,
            crop=(side, side),
            mean=tuple(OPENAI_CLIP_MEAN),
            std=tuple(OPENAI_CLIP_STD),
            halves="even",
        )

    def __call__(self, batch: ImageBatch) -> Tensor:
        pixels = self._prepare(batch.images.to(self.device, torch.float32))
        texts = [prompt.text for prompt in batch.prompts]
        tokens = self._words(texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
        tokens = tokens.to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            features: Tensor = self.blip(pixels, tokens["input_ids"], tokens["attention_mask"])
        return (features @ self._weight + self._bias - MEAN) / STD


def from_blip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the original BLIP (`blip.visual_encoder.*`, `blip.text_encoder.*`) under the names of `Blip`."""
    return {_renamed(name): tensor for name, tensor in state.items() if not name.startswith(UNUSED)}


def _renamed(name: str) -> str:
    inner = name.removeprefix("blip.")
    if inner.startswith("visual_encoder."):
        for there, here in RENAMED.items():
            inner = inner.replace(there, here)
    return inner
