"""Model and weight files: diffusers pipelines, LoRA files, and the trained tensors of a policy. Safetensors only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import diffusers
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from safediffusion.core.errors import UserError

from .pipelines import StableDiffusionPipeline
from .policy import Policy, Weights

FAMILIES = ("StableDiffusionPipeline",)


def read_pipeline(path: Path | str) -> StableDiffusionPipeline:
    """The pipeline in a diffusers folder, a single .safetensors checkpoint, or under a hub id."""
    folder = Path(path)
    if folder.is_dir():
        _check_folder(folder)
    elif not folder.is_file() and not _is_hub_id(str(path)):
        raise UserError(f"there is no model at {path}; give a diffusers folder, a .safetensors checkpoint or a hub id")
    try:
        with _quiet():
            if folder.is_file():
                pipe = StableDiffusionPipeline.from_single_file(str(path), safety_checker=None)
            else:
                pipe = StableDiffusionPipeline.from_pretrained(
                    str(path),
                    safety_checker=None,
                    requires_safety_checker=False,
                    use_safetensors=True,
                    local_files_only=folder.is_dir(),
                )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"the model {path} could not be loaded ({reason}); it must be a complete StableDiffusionPipeline with "
            "safetensors weights, on disk or reachable on the hub"
        ) from error
    assert isinstance(pipe, StableDiffusionPipeline)
    return pipe


def _check_folder(folder: Path) -> None:
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(f"{folder} has no model_index.json, so it is no diffusers model; save one with save_pretrained")
    try:
        kind = json.loads(index.read_text())["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{index} is damaged ({error}); download or save the model again") from error
    if kind not in FAMILIES:
        raise UserError(f"{folder} holds a {kind}; the supported pipelines are: {', '.join(FAMILIES)}")


def _is_hub_id(name: str) -> bool:
    owner, slash, repository = name.partition("/")
    return bool(slash and owner not in {"", ".", ".."} and repository) and "/" not in repository


@contextmanager
def _quiet() -> Iterator[None]:
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


def write_weights(path: Path, policy: Policy, which: Weights) -> None:
    """Save one set of trained weights with what is needed to read it alone (rank, alpha, targets)."""
    save_file(policy.state(which), path, metadata=policy.bank.describe())


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file. UserError names a file that is missing, cut or damaged."""
    if not path.is_file():
        raise UserError(f"there is no weights file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is cut short or damaged ({error}); use another copy of the file") from error


def apply_weights(pipe: StableDiffusionPipeline, path: Path) -> None:
    """Put trained weights into the pipeline's own: a file of `write_weights`, or any LoRA that diffusers can load."""
    tensors, about = read_weights(path)
    kind = about.get("kind")
    if kind == "lora":
        merge_lora(pipe.unet, tensors, alpha=float(about["alpha"]))
    elif kind == "full":
        _replace(pipe.unet, tensors, path)
    else:
        _fuse(pipe, tensors, path)


@torch.no_grad()
def merge_lora(network: nn.Module, tensors: dict[str, Tensor], *, alpha: float) -> None:
    """Add alpha / rank * B A to the weight of every adapted layer, in float32."""
    for name, down in tensors.items():
        layer, marker, _ = name.partition(".lora_A.")
        if not marker:
            continue
        up = tensors.get(f"{layer}.lora_B.weight")
        parameter = dict(network.named_parameters()).get(f"{layer}.weight")
        if up is None or parameter is None:
            raise UserError(
                f"the LoRA adapts '{layer}', which this model or this file lacks; it belongs to another base"
            )
        delta = torch.einsum("or,r...->o...", up.float().flatten(1), down.float())
        if delta.shape != parameter.shape:
            raise UserError(
                f"the LoRA of '{layer}' has shape {list(delta.shape)}, the model's is {list(parameter.shape)}; "
                "it belongs to another base"
            )
        parameter.add_((alpha / down.shape[0] * delta).to(parameter))


@torch.no_grad()
def _replace(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    own = dict(network.named_parameters())
    wrong = sorted(own.keys() ^ tensors.keys()) or [n for n, p in own.items() if p.shape != tensors[n].shape]
    if wrong:
        raise UserError(f"{path} does not fit this model: tensor '{wrong[0]}' differs; it belongs to another base")
    for name, parameter in own.items():
        parameter.copy_(tensors[name])


def _fuse(pipe: StableDiffusionPipeline, tensors: dict[str, Tensor], path: Path) -> None:
    """Merge a LoRA of any format diffusers knows."""
    if not any("lora" in name for name in tensors):
        raise UserError(f"{path} is no LoRA: none of its tensors has 'lora' in its name")
    try:
        with _quiet():
            pipe.load_lora_weights(tensors, adapter_name="merged")
            pipe.fuse_lora(adapter_names=["merged"])
            pipe.unload_lora_weights()
    except (ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"the LoRA {path} does not fit this model ({reason}); it belongs to another base") from error
