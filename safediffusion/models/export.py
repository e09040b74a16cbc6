"""Trained weights in the formats other programs read: a LoRA that diffusers loads, or a whole pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
from safetensors.torch import save_file
from torch import Tensor

from safediffusion.core.errors import UserError

from .files import apply_weights, read_weights
from .load import check_ground, resolve, split, weights_file
from .source import pipeline_class, read_pipeline

LORA_FILE = "pytorch_lora_weights.safetensors"  # what load_lora_weights looks for in a folder


def export_lora(run: Path, model: str, folder: Path) -> Path:
    """The run's adapters as `folder`/pytorch_lora_weights.safetensors for `pipe.load_lora_weights(folder)`.

    The scale alpha / rank is multiplied into B, so that a reader without our metadata applies the same change.
    """
    tensors, about = read_weights(weights_file(str(run)))
    if about.get("kind") != "lora":
        raise UserError(f"{run} trained all weights, which are no LoRA; export it with --to pipeline")
    if split(model)[1]:
        raise UserError(
            f"{run} was trained on {model}, of which the LoRA would be only the last part; export it with --to pipeline"
        )
    scale = float(about["alpha"]) / float(about["rank"])
    unet = pipeline_class(resolve(model)) in ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
    prefix = "unet" if unet else "transformer"
    saved: dict[str, Tensor] = {
        f"{prefix}.{name}": tensor * scale if ".lora_B." in name else tensor for name, tensor in tensors.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(saved, folder / LORA_FILE, metadata={"format": "pt"})
    return folder / LORA_FILE


def export_pipeline(run: Path, model: str, folder: Path) -> Path:
    """The base with the run's weights in it as a diffusers folder, which `from_pretrained` takes."""
    base, extras = split(model)
    check_ground((*extras, str(run)))
    pipe: Any = read_pipeline(resolve(base))
    for extra in extras:
        apply_weights(pipe, weights_file(extra))
    apply_weights(pipe, weights_file(str(run)))
    pipe.save_pretrained(str(folder), safe_serialization=True)
    assert isinstance(pipe, diffusers.DiffusionPipeline)
    return folder
