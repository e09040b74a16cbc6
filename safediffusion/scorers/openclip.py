"""A model of open_clip as the reward's encoder: `open_clip:MODEL/PRETRAINED`. That package is an extra of this one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from safediffusion.core.errors import UserError
from safediffusion.core.registry import suggest
from safediffusion.scorers.preprocessing import MODES, Preprocessing
from safediffusion.scorers.registry import OPEN_CLIP
from safediffusion.scorers.texts import ROOM, KnownTexts

EXAMPLE = f"{OPEN_CLIP}ViT-H-14/laion2b_s32b_b79k"


class OpenClipEncoder:
    """An `Encoder`. Frozen, float32; rows have length 1.

    `name` is open_clip:MODEL/PRETRAINED: an architecture that open_clip lists, and a tag of its weights or a file of
    them. UserError when the package is missing, or when it does not know the one or the other.
    """

    def __init__(self, name: str, *, device: torch.device | str = "cpu", cache: int = ROOM) -> None:
        open_clip = package()
        model, weights = known(name)
        try:
            self.model = open_clip.create_model(
                model,
                pretrained=weights,
                precision="fp32",
                device=device,
                force_quick_gelu=bool(open_clip.get_pretrained_cfg(model, weights).get("quick_gelu")),
                require_pretrained=True,
                weights_only=True,
            )
            self._tokens = open_clip.get_tokenizer(model)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"'{name}' cannot be loaded ({str(error).splitlines()[0]}); give a file of weights as PRETRAINED, or "
                "download them once where there is a network"
            ) from error
        self.model.eval().requires_grad_(False)
        self.device = torch.device(device)
        self._prepare = preprocessing(name, open_clip.get_model_preprocess_cfg(self.model))
        self._texts = KnownTexts(self._one_text, room=cache)

    def text(self, texts: Sequence[str]) -> Tensor:
        return self._texts(texts)

    def image(self, images: Tensor) -> Tensor:
        pixels = self._prepare(images.to(self.device, torch.float32))
        with torch.autocast(self.device.type, enabled=False):
            return normalize(self.model.encode_image(pixels), dim=-1)

    def _one_text(self, text: str) -> Tensor:
        tokens = self._tokens([text]).to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            return normalize(self.model.encode_text(tokens), dim=-1)[0]


def package() -> Any:
    """The module open_clip. UserError with the line that installs it where it cannot be imported."""
    try:
        return importlib.import_module("open_clip")
    except (ImportError, RuntimeError) as error:  # torchvision, which it needs, says RuntimeError beside another torch
        raise UserError(
            f"encoders {OPEN_CLIP}... need the package open_clip, which cannot be imported here "
            f'({str(error).splitlines()[0]}); pip install "safediffusion[open-clip]"'
        ) from error


def known(name: str) -> tuple[str, str]:
    """MODEL and PRETRAINED of `name`. UserError where it has not both, or open_clip has no such model or weights."""
    open_clip = package()
    model, _, weights = name.removeprefix(OPEN_CLIP).partition("/")
    if not model or not weights:
        raise UserError(f"'{name}' is not {OPEN_CLIP}MODEL/PRETRAINED; give e.g. {EXAMPLE}")
    if model not in open_clip.list_models():
        raise UserError(f"'{name}': open_clip has no model '{model}'; {suggest(model, open_clip.list_models())}")
    if not open_clip.get_pretrained_cfg(model, weights) and not Path(weights).is_file():
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise UserError(
            f"'{name}': '{weights}' is no file and none of open_clip's weights for {model}; {suggest(weights, tags)}"
        )
    return model, weights


def preprocessing(name: str, asked: Mapping[str, Any]) -> Preprocessing:
    """What open_clip's evaluation transform does by its `preprocess_cfg`. UserError where that cannot be done here."""
    size, way, mode = asked["size"], asked["resize_mode"], asked["interpolation"]
    height, width = (size, size) if isinstance(size, int) else size
    if mode not in MODES.values() or way not in ("shortest", "squash") or (way == "shortest" and height != width):
        raise UserError(
            f"'{name}' resizes pictures to {height}x{width} by '{way}' with filter '{mode}', which is not supported; "
            "use a model with 'squash', or with 'shortest' and a square, and 'bicubic' or 'bilinear'"
        )
    squash = way == "squash"
    return Preprocessing(
        shortest=None if squash else height,
        exact=(height, width) if squash else None,
        crop=None if squash else (height, width),
        mean=tuple(asked["mean"]),
        std=tuple(asked["std"]),
        mode=mode,
        halves="even",
    )
