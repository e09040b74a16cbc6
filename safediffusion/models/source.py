"""Where a model comes from: a diffusers folder, a single-file checkpoint or a hub id, of one of the families."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.utils import logging as transformers_logging

from safediffusion.core.errors import UserError
from safediffusion.core.hub import fetch

from .pipelines import DiffusionPipeline
from .policy import Saving
from .registry import MODELS

NOT_THE_BASE = {"StableDiffusionXLImg2ImgPipeline": "It is SDXL's refiner; align the base it polishes"}
TRAINED = ("unet", "transformer")  # what is trained of a pipeline, by its name there
MARKS = {  # a tensor that only this kind of single-file checkpoint has
    "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": "StableDiffusionXLPipeline",
    "conditioner.embedders.1.model.ln_final.weight": "StableDiffusionXLPipeline",
    "model.diffusion_model.joint_blocks.0.context_block.adaLN_modulation.1.bias": "StableDiffusion3Pipeline",
    "model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale": "FluxPipeline",
    "double_blocks.0.img_attn.norm.key_norm.scale": "FluxPipeline",
    "model.diffusion_model.input_blocks.0.0.weight": "StableDiffusionPipeline",
}


def read_pipeline(path: Path | str, *, dtype: torch.dtype | None = None, exact: bool = False) -> DiffusionPipeline:
    """The pipeline in a diffusers folder, a single .safetensors checkpoint, or under a hub id (ID@REVISION).

    `dtype` is what its weights are stored in, float32 if None; with `exact` what is trained stays float32, because
    weights will be merged into it. UserError says what is wrong.
    """
    where, kind = Path(path), pipeline_class(path)
    made = getattr(diffusers, kind)
    bare: dict[str, Any] = {"safety_checker": None} if kind == "StableDiffusionPipeline" else {}
    mixed = {"default": dtype, **dict.fromkeys(TRAINED, torch.float32)}
    kept = {} if dtype is None or exact and where.is_file() else {"dtype": mixed if exact else dtype}
    try:
        with quiet():
            if where.is_file():
                return made.from_single_file(str(path), **bare, **kept)
            name, revision = (str(path), None) if where.is_dir() else hub(str(path))
            if bare:
                bare["requires_safety_checker"] = False
            return made.from_pretrained(
                name, revision=revision, use_safetensors=True, local_files_only=where.is_dir(), **bare, **kept
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"the model {path} could not be loaded ({reason}); it must be a complete {kind} with safetensors weights, "
            "on disk or reachable on the hub"
        ) from error


def pipeline_class(path: Path | str) -> str:
    """The name of the pipeline's class, which must be of a supported family; the weights are not read."""
    where = Path(path)
    return _kind_of_file(where) if where.is_file() else _kind_of_index(where, str(path))


def network(pipe: DiffusionPipeline) -> nn.Module:
    """What is trained of a pipeline: its UNet or its transformer."""
    found: nn.Module = next(part for name in TRAINED if (part := getattr(pipe, name, None)) is not None)
    return found


def save_memory(pipe: DiffusionPipeline, saving: Saving) -> None:
    """Set a pipeline's networks up for `saving`; its text encoders are the backbone's matter."""
    trained: Any = network(pipe)
    if saving.checkpointing:
        trained.enable_gradient_checkpointing()
    if saving.channels_last:
        trained.to(memory_format=torch.channels_last)
    if saving.vae_slicing:
        pipe.vae.enable_slicing()
    if saving.vae_tiling:
        pipe.vae.enable_tiling()


def _kind_of_index(folder: Path, name: str) -> str:
    """The pipeline class that model_index.json names; UserError when it is none of ours or cannot be had."""
    if folder.is_dir():
        index = folder / "model_index.json"
        if not index.is_file():
            raise UserError(
                f"{folder} has no model_index.json, so it is no diffusers model; save one with save_pretrained"
            )
    elif is_hub_id(name):
        index = _download_index(name)
    else:
        raise UserError(f"there is no model at {name}; give a diffusers folder, a .safetensors checkpoint or a hub id")
    try:
        kind = str(json.loads(index.read_text())["_class_name"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{index} is damaged ({error}); download or save the model again") from error
    if kind not in MODELS:
        hint = f" {NOT_THE_BASE[kind]}." if kind in NOT_THE_BASE else ""
        raise UserError(f"{name} holds a {kind}.{hint} The supported pipelines are: {', '.join(MODELS.names())}")
    return kind


def _download_index(name: str) -> Path:
    """model_index.json of a hub id, from the cache or the hub."""
    repository, revision = hub(name)
    return fetch(
        repository,
        "model_index.json",
        revision=revision,
        kind="model",
        absent="it is no diffusers pipeline",
        instead="or give a folder or a .safetensors file",
    )


def _kind_of_file(path: Path) -> str:
    """The pipeline class of a single-file checkpoint, by the names of its tensors; nothing is loaded."""
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is no safetensors file, or it is damaged ({error}); pickled checkpoints (.ckpt, .bin) are never "
            "opened, convert them first"
        ) from error
    kind = next((kind for mark, kind in MARKS.items() if mark in names), None)
    if kind is None:
        raise UserError(
            f"{path} is no single-file checkpoint of a supported model; the supported pipelines are: "
            f"{', '.join(MODELS.names())}. A LoRA goes after its base: BASE+{path.name}"
        )
    return kind


def hub(name: str) -> tuple[str, str | None]:
    """Repository and revision of ID or ID@REVISION."""
    repository, at, revision = name.partition("@")
    return repository, revision if at else None


def is_hub_id(name: str) -> bool:
    owner, slash, repository = hub(name)[0].partition("/")
    return bool(slash and owner not in {"", ".", ".."} and repository) and "/" not in repository


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from diffusers and transformers while a model loads."""
    before = diffusers.utils.logging.get_verbosity()
    diffusers.utils.logging.set_verbosity_error()
    shown = [each for each in (diffusers.utils.logging, transformers_logging) if each.is_progress_bar_enabled()]
    for each in shown:
        each.disable_progress_bar()
    try:
        yield
    finally:
        diffusers.utils.logging.set_verbosity(before)
        for each in shown:
            each.enable_progress_bar()
