"""A frozen CLIP as an encoder of texts and pictures, and its plain score: how well a picture fits its prompt."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub import hf_hub_download
from torch import Tensor
from torch.nn.functional import interpolate, normalize
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging

from safediffusion.core.errors import UserError
from safediffusion.scorers.base import ImageBatch

PREPROCESSOR = "preprocessor_config.json"
FAMILIES = ("clip", "siglip")  # model types of transformers
MODES = {2: "bilinear", 3: "bicubic"}  # PIL's numbers of resampling filters


class Encoder(Protocol):
    """Texts and pictures in one space; rows have length 1."""

    def text(self, texts: Sequence[str]) -> Tensor:
        """[N, D]"""
        ...

    def image(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> [B, D], differentiable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """What a CLIP's `preprocessor_config.json` asks for, on tensors and differentiable."""

    shortest: int | None  # shortest edge after resizing; None when `exact` is given
    exact: tuple[int, int] | None  # height and width after resizing
    crop: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str = "bicubic"

    @classmethod
    def read(cls, path: Path) -> Preprocessing:
        config = json.loads(path.read_text())
        size = config["size"]
        shortest = size if isinstance(size, int) else size.get("shortest_edge")
        crop = config.get("crop_size", size) if config.get("do_center_crop", True) else None
        if isinstance(crop, int):
            crop = {"height": crop, "width": crop}
        return cls(
            shortest=shortest,
            exact=None if shortest is not None else (size["height"], size["width"]),
            crop=None if crop is None else (crop["height"], crop["width"]),
            mean=tuple(config["image_mean"]),
            std=tuple(config["image_std"]),
            mode=MODES[config.get("resample", 3)],
        )

    def __call__(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> the network's input. Antialiased; no resampling where the size fits."""
        height, width = images.shape[-2:]
        if self.exact is not None:
            target = self.exact
        else:
            assert self.shortest is not None
            longest = int(self.shortest * max(height, width) / min(height, width))
            target = (self.shortest, longest) if height <= width else (longest, self.shortest)
        if target != (height, width):
            images = interpolate(images, size=target, mode=self.mode, antialias=True, align_corners=False).clamp(0, 1)
        if self.crop is not None:
            top, left = (target[0] - self.crop[0]) // 2, (target[1] - self.crop[1]) // 2
            images = images[..., top : top + self.crop[0], left : left + self.crop[1]]
        mean, std = (images.new_tensor(value).view(-1, 1, 1) for value in (self.mean, self.std))
        return (images - mean) / std


class ClipEncoder:
    """A transformers CLIP or SigLIP, folder or hub id, as an `Encoder`. Frozen; results are float32 of length 1.

    `weights` replace those of the checkpoint, which are then not loaded.

    Every distinct text is encoded once and by itself, so its embedding does not depend on what else is asked for.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        weights: Mapping[str, Tensor] | None = None,
        cache: int = 65536,
    ) -> None:
        local = Path(source).is_dir()
        try:
            with _quiet():
                about = AutoConfig.from_pretrained(str(source), local_files_only=local)
                model = _model(str(source), about, dtype=dtype, weights=weights)
                self._tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=local)
            config = Path(source, PREPROCESSOR) if local else Path(hf_hub_download(str(source), PREPROCESSOR))
            self._prepare = Preprocessing.read(config)
        except (OSError, ValueError) as error:
            raise UserError(
                f"CLIP '{source}' cannot be loaded ({str(error).splitlines()[0]}); give a folder or hub id of a "
                "transformers CLIPModel or SiglipModel"
            ) from error
        self.model = model.to(device).eval().requires_grad_(False)
        self.device = torch.device(device)
        self.dtype = dtype
        self._masked = about.model_type == "clip"  # SigLIP was trained to see its padding
        self._known: OrderedDict[str, Tensor] = OrderedDict()
        self._room = cache

    @property
    def scale(self) -> Tensor:
        """[], what the model multiplies a cosine by before its softmax or sigmoid."""
        scale: Tensor = self.model.logit_scale.exp().float()
        return scale.squeeze()

    @torch.no_grad()
    def text(self, texts: Sequence[str]) -> Tensor:
        return torch.stack([self._one_text(text) for text in texts])

    def image(self, images: Tensor) -> Tensor:
        pixels = self._prepare(images.to(self.device, torch.float32)).to(self.dtype)
        with torch.autocast(self.device.type, enabled=False):
            pooled = self.model.get_image_features(pixel_values=pixels).pooler_output
        return normalize(pooled.float(), dim=-1)

    def _one_text(self, text: str) -> Tensor:
        if text in self._known:
            self._known.move_to_end(text)
            return self._known[text]
        limit = self.model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(
            [text], padding="max_length", truncation=True, max_length=limit, return_tensors="pt"
        ).to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            mask = tokens["attention_mask"] if self._masked else None
            pooled = self.model.get_text_features(input_ids=tokens["input_ids"], attention_mask=mask).pooler_output
        self._known[text] = normalize(pooled.float(), dim=-1)[0]
        if len(self._known) > self._room:
            self._known.popitem(last=False)
        return self._known[text]


def _model(source: str, config: Any, *, dtype: torch.dtype, weights: Mapping[str, Tensor] | None) -> Any:
    """The model of `source`, or its architecture with other `weights`, all of them."""
    if config.model_type not in FAMILIES:
        raise UserError(
            f"'{source}' is a {config.model_type}; the reward's encoder is one of: {', '.join(FAMILIES)} (transformers)"
        )
    if weights is None:
        return AutoModel.from_pretrained(source, local_files_only=Path(source).is_dir(), dtype=dtype)
    model = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    own = model.state_dict()
    odd = sorted(own.keys() ^ weights.keys()) or [name for name in own if own[name].shape != weights[name].shape]
    if odd:
        raise UserError(f"the weights do not fit '{source}': tensor '{odd[0]}' is missing, unknown or of another shape")
    model.load_state_dict(dict(weights))
    return model.to(dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar while a few files are read."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Cosine of picture and prompt, in [-1, 1]."""

    encoder: Encoder
    name: str = "clip"
    higher_is_better: bool = True
    differentiable: bool = True

    def __call__(self, batch: ImageBatch) -> Tensor:
        return cosine(self.encoder, batch)


def cosine(encoder: Encoder, batch: ImageBatch) -> Tensor:
    """[B], of each picture and its prompt."""
    return (encoder.image(batch.images) * encoder.text([prompt.text for prompt in batch.prompts])).sum(-1)
