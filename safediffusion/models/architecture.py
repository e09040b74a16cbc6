"""What a model is made of, from its configuration files alone: no weights are read, nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import diffusers
import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from safediffusion.core.errors import UserError

from .load import resolve, split
from .policy import Backbone, Drawing
from .published import PUBLISHED
from .registry import MODELS
from .source import hub, is_hub_id, pipeline_class

WEIGHTLESS = ("safety_checker", "feature_extractor", "image_encoder")  # never loaded here


class Part(NamedTuple):
    library: str  # diffusers or transformers
    kind: str  # its class
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The configuration of a pipeline; `assumed` names the published one that stands in where it is not here."""

    kind: str  # the pipeline's class
    parts: Mapping[str, Part]  # networks and scheduler by their name in the pipeline
    assumed: str | None = None

    def networks(self, device: torch.device | str = "meta") -> dict[str, nn.Module]:
        """Every network, frozen; on a device other than meta with random weights of the global generator."""
        with torch.device(device):
            return {name: _network(part) for name, part in self.parts.items() if name != "scheduler"}

    def backbone(self, drawing: Drawing) -> Backbone:
        """The family's backbone around networks without data: it knows its latents and its schedule."""
        made: Backbone = MODELS.get(self.kind)(self.pipeline(self.networks()), device="meta", drawing=drawing)
        return made

    def pipeline(self, networks: Mapping[str, nn.Module]) -> Any:
        """What a backbone reads of a pipeline, around these networks; its tokenizers give numbers without meaning."""
        blank = {
            name.replace("text_encoder", "tokenizer"): _Blank(int(part.config.get("max_position_embeddings", 77)))
            for name, part in self.parts.items()
            if name.startswith("text_encoder")
        }
        missing = dict.fromkeys(("text_encoder_2", "text_encoder_3"))
        config = SimpleNamespace(force_zeros_for_empty_prompt=True)
        scheduler = SimpleNamespace(config=dict(self.parts["scheduler"].config))
        return SimpleNamespace(**{**missing, **blank, **networks}, scheduler=scheduler, config=config)


class _Blank:
    """A tokenizer of one token, of the length asked for."""

    def __init__(self, length: int) -> None:
        self.model_max_length = length

    def __call__(
        self, texts: list[str], *, max_length: int, padding: str, truncation: bool, return_tensors: str
    ) -> SimpleNamespace:
        assert (padding, truncation, return_tensors) == ("max_length", True, "pt"), "what `parts.tokens` asks for"
        ids: Tensor = torch.ones(len(texts), max_length, dtype=torch.long)
        return SimpleNamespace(input_ids=ids)


def read_architecture(model: str) -> Architecture:
    """The architecture of `model`; a published one for a hub id or a file whose configuration is not on this machine.

    That is the one of PUBLISHED whose name is in the model's, or Stable Diffusion v1's.
    """
    base = str(resolve(split(model)[0]))
    folder = Path(base)
    if folder.is_dir():
        return _read(folder, lambda path: str(folder / path))
    if folder.is_file():
        return published(base, kind=pipeline_class(base))
    if not is_hub_id(base):
        raise UserError(f"there is no model at {base}; give a diffusers folder, a .safetensors checkpoint or a hub id")
    name, revision = hub(base)
    index = try_to_load_from_cache(name, "model_index.json", revision=revision)
    if not isinstance(index, str):
        return published(base)
    try:
        return _read(Path(index).parent, lambda path: try_to_load_from_cache(name, path, revision=revision))
    except Incomplete:  # of a download that did not come to its end
        return published(base, kind=str(_json(Path(index), "").get("_class_name")))


class Incomplete(UserError):
    """A configuration file that the pipeline names is not there."""


def published(model: str, *, kind: str | None = None) -> Architecture:
    """The published architecture that a name points to, of this pipeline class where it is known."""
    lowered = Path(model).name.lower()
    fitting = [name for name, (own, _) in PUBLISHED.items() if kind in (None, own)]
    named = next((name for name in fitting if name in lowered), None)
    name = named or ("stable-diffusion-v1" if kind is None or not fitting else fitting[-1])
    kind, parts = PUBLISHED[name]
    return Architecture(kind=kind, parts={each: Part(*part) for each, part in parts.items()}, assumed=name)


def _read(folder: Path, find: Any) -> Architecture:
    """From model_index.json in `folder` and the configurations it names, which `find` locates."""
    index = _json(folder / "model_index.json", f"{folder} has no model_index.json, so it is no diffusers model")
    kind = str(index.get("_class_name"))
    parts = {}
    for name, entry in index.items():
        if not isinstance(entry, list) or entry[0] not in ("diffusers", "transformers") or name in WEIGHTLESS:
            continue
        if name.startswith("tokenizer"):
            continue
        path = "scheduler/scheduler_config.json" if name == "scheduler" else f"{name}/config.json"
        missing = f"{folder} has no {path}, so it is no complete diffusers model"
        found = find(path)
        config = _json(Path(found) if isinstance(found, str) else folder / path, missing)
        parts[name] = Part(entry[0], entry[1], config)
    MODELS.get(kind)  # UserError for a class that is not supported
    return Architecture(kind=kind, parts=parts)


def _json(path: Path, missing: str) -> dict[str, Any]:
    if not path.is_file():
        raise Incomplete(f"{missing}; save one with save_pretrained")
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); download or save the model again") from error
    return found


def _network(part: Part) -> nn.Module:
    made: Any = getattr(diffusers if part.library == "diffusers" else transformers, part.kind)
    if part.library == "diffusers":
        network: nn.Module = made.from_config(dict(part.config))
    else:
        network = made(made.config_class.from_dict(dict(part.config)))
    return network.requires_grad_(False)
