"""How much memory training takes, from a model's configuration files alone: its networks run on tensors without data.

Every allocation of one forward and backward, and of one decoding, is counted as it would happen. What an accelerator's
own libraries take (a few hundred MB) and the fragmentation of its allocator are not.
"""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

from safediffusion.core.errors import UserError

from .banks import FullBank, LoraBank, LoraSpec
from .load import PRECISIONS, resolve, split

PARTS = {
    "unet": "unet/config.json",
    "vae": "vae/config.json",
    "text": "text_encoder/config.json",
    "scheduler": "scheduler/scheduler_config.json",
}
SD1: dict[str, dict[str, Any]] = {  # the published configuration of Stable Diffusion v1.x, where its files are not here
    "unet": {
        "sample_size": 64,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "block_out_channels": (320, 640, 1280, 1280),
    },
    "vae": {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "sample_size": 512,
    },
    "text": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    "scheduler": {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "set_alpha_to_one": False,
        "steps_offset": 1,
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The configuration files of a pipeline. `assumed` when they are not on this machine and SD v1's stand in."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    assumed: bool

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        size = self.unet["sample_size"]
        height, width = (size, size) if isinstance(size, int) else size
        return int(self.unet.get("in_channels", 4)), int(height), int(width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What training asks of one process."""

    weights: LoraSpec | None  # None: all of them are trained
    copies: int  # further sets of weights: EMA, a reference of full weights
    precision: str
    micro: int  # items in a forward and backward
    further_passes: int  # forwards without gradient beside it: guidance, reference
    images: int  # pictures whose recorded steps are held
    recorded: int  # steps a picture
    per_step: int = 2  # latents held of each: before, after, and with foresight the clean ones
    rollout_batch: int
    guided: bool
    encoder: str | None  # the scorers' CLIP: a folder or hub id


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on one device. Of `training`, `sampling` and `decoding` only the largest counts at a time."""

    weights: int  # every network and copy
    optimizer: int  # gradients and both moments
    rollout: int  # recorded steps
    training: int  # activations of a forward and backward
    sampling: int
    decoding: int
    uncounted: tuple[str, ...]  # what is not on this machine, so its size is not known

    @property
    def peak(self) -> int:
        return self.weights + self.optimizer + self.rollout + max(self.training, self.sampling, self.decoding)


def read_architecture(model: str) -> Architecture:
    """The configuration of `model` without its weights; SD v1's for a hub id that is not in the local cache."""
    base = resolve(split(model)[0])
    folder = Path(base)
    if folder.is_file():
        return Architecture(**SD1, assumed=True)
    if not folder.is_dir() and str(base).count("/") != 1:
        raise UserError(f"there is no model at {base}; give a diffusers folder, a .safetensors checkpoint or a hub id")
    found = {name: _read(folder, str(base), path) for name, path in PARTS.items()}
    known = {name: config for name, config in found.items() if config is not None}
    if folder.is_dir() and len(known) < len(PARTS):
        missing = next(path for name, path in PARTS.items() if name not in known)
        raise UserError(
            f"{folder} has no {missing}, so it is no complete diffusers model; save one with save_pretrained"
        )
    return Architecture(**(known if len(known) == len(PARTS) else SD1), assumed=len(known) < len(PARTS))


def _read(folder: Path, hub_id: str, path: str) -> dict[str, Any] | None:
    cached = str(folder / path) if folder.is_dir() else try_to_load_from_cache(hub_id, path)
    if not isinstance(cached, str) or not Path(cached).is_file():
        return None
    try:
        config: dict[str, Any] = json.loads(Path(cached).read_text())
    except ValueError as error:
        raise UserError(f"{cached} is damaged ({error}); download or save the model again") from error
    return config


def measure(architecture: Architecture, load: Load) -> Memory:
    """The memory of one process under `load`."""
    dtype = PRECISIONS[load.precision]
    unet, vae, text = _networks(architecture)
    bank = FullBank(unet) if load.weights is None else LoraBank(unet, load.weights, frozen_dtype=dtype)
    trained = _bytes(bank.parameters())
    encoder = 0 if load.encoder is None else _encoder_bytes(load.encoder)
    latent = 4 * math.prod(architecture.latent_shape)
    with FakeTensorMode():
        _realize(unet)
        _realize(vae)
        sampled = load.rollout_batch * (2 if load.guided else 1)
        return Memory(
            weights=sum(_bytes(part.parameters()) for part in (unet, vae, text))
            + (encoder or 0)
            + load.copies * trained,
            optimizer=3 * trained,
            rollout=load.images * (load.recorded * load.per_step + 1) * latent,
            training=max(0, _peak(lambda: _learn(unet, architecture, load), dtype) - trained),
            sampling=_peak(lambda: _forward(unet, architecture, sampled, grad=False), dtype),
            decoding=_peak(lambda: _decode(vae, architecture, load.rollout_batch), dtype),
            uncounted=(str(load.encoder),) if encoder is None else (),
        )


def _networks(architecture: Architecture) -> tuple[nn.Module, AutoencoderKL, nn.Module]:
    """UNet, VAE and text encoder without any data."""
    with torch.device("meta"):
        unet: nn.Module = UNet2DConditionModel.from_config(dict(architecture.unet))
        vae = AutoencoderKL.from_config(dict(architecture.vae))
        text = CLIPTextModel(CLIPTextConfig.from_dict(dict(architecture.text)))
    return unet, vae.requires_grad_(False), text


def _realize(network: nn.Module) -> None:
    """Under a FakeTensorMode: give a network of meta tensors ones that claim to lie in memory."""
    for module in network.modules():
        for name, old in list(module.named_parameters(recurse=False)):
            fake = nn.Parameter(torch.empty(old.shape, dtype=old.dtype), requires_grad=old.requires_grad)
            module.register_parameter(name, fake)
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, torch.empty(buffer.shape, dtype=buffer.dtype))


def _learn(unet: nn.Module, architecture: Architecture, load: Load) -> None:
    out = _forward(unet, architecture, load.micro, grad=True)
    for _ in range(load.further_passes):
        _forward(unet, architecture, load.micro, grad=False)
    out.float().sum().backward()  # type: ignore[no-untyped-call]


def _forward(unet: nn.Module, architecture: Architecture, count: int, *, grad: bool) -> Tensor:
    x, t = torch.zeros(count, *architecture.latent_shape), torch.zeros(count)
    words = int(architecture.text.get("max_position_embeddings", 77))
    cond = torch.zeros(count, words, int(architecture.unet["cross_attention_dim"]))
    with torch.set_grad_enabled(grad):
        out: Tensor = unet(x, t, encoder_hidden_states=cond, return_dict=False)[0]
    return out


@torch.no_grad()
def _decode(vae: AutoencoderKL, architecture: Architecture, count: int) -> None:
    vae.decode(torch.zeros(count, *architecture.latent_shape))


class _Allocations(TorchDispatchMode):
    """Bytes of all storages made under it that are alive now, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self._seen:
                size = storage.nbytes()
                self._seen.add(storage)
                self.live += size
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._freed, size)
        return out

    def _freed(self, size: int) -> None:
        self.live -= size


def _peak(work: Callable[[], object], dtype: torch.dtype) -> int:
    counted = _Allocations()
    with counted, torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
        work()
    return counted.peak


def _bytes(parameters: Any) -> int:
    return sum(p.numel() * p.element_size() for p in parameters)


def _encoder_bytes(name: str) -> int | None:
    """Of a CLIP in float32; None when its configuration is not on this machine."""
    config = _read(Path(name), name, "config.json")
    if config is None:
        return None
    with torch.device("meta"):
        return _bytes(CLIPModel(CLIPConfig.from_dict(config)).parameters())
