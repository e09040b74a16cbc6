"""Models and encoders of random weights, as folders that a recipe can name: of the published architecture or reduced.

How fast a network is does not depend on its weights. What its pictures are worth does: no reward is read off here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from safediffusion.core.errors import UserError
from safediffusion.models.architecture import Architecture, Part, read_architecture
from safediffusion.models.source import is_hub_id, quiet

Config = Mapping[str, Any]
TEXT: Config = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
VAE: Config = {"block_out_channels": (32, 64, 64, 64), "layers_per_block": 1, "sample_size": 64}
UNET: Config = {"sample_size": 8, "layers_per_block": 1}
REDUCED: Mapping[str, Mapping[str, Config]] = {  # pipeline class -> part -> what differs from the published one
    "StableDiffusionPipeline": {
        "unet": {**UNET, "block_out_channels": (32, 64, 128, 128), "cross_attention_dim": 64},
        "vae": VAE,
        "text_encoder": TEXT,
    },
    "StableDiffusionXLPipeline": {
        "unet": {
            **UNET,
            "block_out_channels": (32, 64, 128),
            "attention_head_dim": (1, 2, 4),
            "cross_attention_dim": 128,
            "projection_class_embeddings_input_dim": 6 * 256 + 64,
        },
        "vae": VAE,
        "text_encoder": TEXT,
        "text_encoder_2": {**TEXT, "projection_dim": 64},
    },
}
ENCODERS: Mapping[str, Mapping[str, Config]] = {  # the two towers, from the config.json of these repositories
    "openai/clip-vit-large-patch14": {
        "vision": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 14,
            "projection_dim": 768,
        },
        "text": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "projection_dim": 768,
        },
    },
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": {
        "vision": {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 14,
            "projection_dim": 1024,
            "hidden_act": "gelu",
        },
        "text": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "projection_dim": 1024,
            "hidden_act": "gelu",
        },
    },
}
REDUCED_ENCODER: Mapping[str, Config] = {
    "vision": {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 16,
        "projection_dim": 64,
    },
    "text": {**TEXT, "projection_dim": 64},
}
SPECIAL: Config = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}  # as `tokenizer` numbers them


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """What to load instead of a model or an encoder, and the numbers of it that are not the published ones."""

    source: str
    changes: tuple[str, ...] = ()


def stand_in_model(name: str, folder: Path, *, reduced: bool, device: torch.device | str) -> StandIn:
    """A diffusers folder with the weights that the classes of hub id `name` start from; what is local is itself.

    UserError for a family that has no reduced architecture here.
    """
    if not is_hub_id(name):
        return StandIn(source=name)
    architecture = read_architecture(name)
    if architecture.kind not in REDUCED:
        raise UserError(f"{name} is a {architecture.kind}; those with a stand-in are: {', '.join(REDUCED)}")
    shrunk = REDUCED[architecture.kind] if reduced else {}
    changes = [line for part, own in shrunk.items() for line in _changes(part, architecture.parts[part].config, own)]
    if not folder.is_dir():
        _pipeline(_with(architecture, shrunk), folder, device)
    return StandIn(source=str(folder), changes=tuple(changes))


def stand_in_encoder(name: str, folder: Path, *, reduced: bool, device: torch.device | str) -> StandIn:
    """A CLIP folder of random weights with the towers of hub id `name`; what is local is itself."""
    if not is_hub_id(name):
        return StandIn(source=name)
    towers = encoder_towers(name)
    shrunk = REDUCED_ENCODER if reduced else {}
    changes = [line for tower, own in shrunk.items() for line in _changes(tower, towers[tower], own)]
    if not folder.is_dir():
        here = {tower: {**own, **shrunk.get(tower, {})} for tower, own in towers.items()}
        with torch.device(device), quiet():
            CLIPModel(clip_config(here)).cpu().save_pretrained(folder)
        _tokenizer(folder).save_pretrained(folder)
        side = here["vision"]["image_size"]
        crop = {"height": side, "width": side}
        CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=crop).save_pretrained(folder)
    return StandIn(source=str(folder), changes=tuple(changes))


def encoder_towers(name: str) -> Mapping[str, Config]:
    """{"vision": ..., "text": ...} of a published encoder. UserError for one that is not listed here."""
    if name not in ENCODERS:
        raise UserError(f"the encoder {name} has no stand-in; those that have: {', '.join(ENCODERS)}, or give a folder")
    return ENCODERS[name]


def clip_config(towers: Mapping[str, Config]) -> CLIPConfig:
    """Of both towers, with the numbers of this module's tokenizer."""
    text = {**towers["text"], **SPECIAL}
    return CLIPConfig(
        text_config=text, vision_config=dict(towers["vision"]), projection_dim=towers["text"]["projection_dim"]
    )


def _with(architecture: Architecture, own: Mapping[str, Config]) -> Architecture:
    """`architecture` with these numbers in the place of its own, and text encoders that know our tokens."""
    parts = {}
    for name, part in architecture.parts.items():
        special = SPECIAL if name.startswith("text_encoder") else {}
        parts[name] = Part(part.library, part.kind, {**part.config, **own.get(name, {}), **special})
    return replace(architecture, parts=parts)


def _pipeline(architecture: Architecture, folder: Path, device: torch.device | str) -> None:
    """Save a pipeline of random weights; nothing but the folder stays."""
    networks: dict[str, Any] = {name: network.cpu() for name, network in architecture.networks(device).items()}
    words = {name.replace("text_encoder", "tokenizer"): _tokenizer(folder) for name in networks if "text" in name}
    published = architecture.parts["scheduler"]
    bare = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    with quiet():
        scheduler = getattr(diffusers, published.kind).from_config({**published.config, "clip_sample": False})
        pipe = getattr(diffusers, architecture.kind)(
            **networks,
            **words,
            **(bare if architecture.kind == "StableDiffusionPipeline" else {}),
            scheduler=scheduler,
        )
        pipe.save_pretrained(folder)


def _tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIPTokenizer of single letters. A text is padded to 77 tokens or cut there, so its cost is that of any."""
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    names = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    words = folder.with_name(f"{folder.name}-words")
    words.mkdir(parents=True, exist_ok=True)
    (words / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    made = CLIPTokenizer.from_pretrained(words, pad_token="<|endoftext|>")
    made.model_max_length = 77
    assert isinstance(made, CLIPTokenizer)
    return made


def _changes(part: str, before: Config, after: Config) -> list[str]:
    """`unet.sample_size 64 -> 8` for every number that is another."""
    return [
        f"{part}.{key} {_plain(before.get(key, 'default'))} to {_plain(value)}"
        for key, value in after.items()
        if before.get(key, "default") != value
    ]


def _plain(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
