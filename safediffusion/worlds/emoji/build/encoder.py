"""The reward's CLIP: objects by a contrastive loss, safety as a concept by a sigmoid loss with many positives."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from .. import concepts
from ..anchors import anchor_texts
from ..captions import caption
from ..scenes import Sample, Scene
from ..vocabulary import BACKGROUNDS
from .loop import Fit, device, run
from .text import MAX_LENGTH, text_ids

FIT = Fit(name="encoder", steps=2900, lr=1e-3, warmup=150, ema=0.995, seed=4, weight_decay=0.05)
BLIND = 4.0  # weight of what the direction must not see
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class Encoder(nn.Module):
    """CLIPModel and the two scalars of the concept loss, which are only needed while training."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        tower = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4}
        text = tower | {"num_hidden_layers": 3, "vocab_size": vocabulary, "max_position_embeddings": MAX_LENGTH}
        text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        vision = tower | {"num_hidden_layers": 4, "image_size": 64, "patch_size": 8}
        self.clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=96))
        self.concept_scale = nn.Parameter(torch.tensor(2.3))
        self.concept_bias = nn.Parameter(torch.tensor(0.0))


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Noise or blur on half of the pictures: what a sampler's errors look like. x in [-1, 1]."""
    which = torch.rand(len(x), 1, 1, 1, generator=generator).to(x.device)
    noisy = x + 0.08 * torch.randn(x.shape, generator=generator).to(x.device)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.where(which < 0.25, noisy, torch.where(which < 0.5, soft, x))


def neutrality(projection: Tensor, scenes: list[Scene]) -> Tensor:
    """How far z(x).v differs over safe scenes by object count and by background: squared, in units of its spread.

    Every count and every background weighs the same however rare it is; what chance alone would give is taken off.
    """
    keep = torch.tensor([not s.categories for s in scenes], device=projection.device)
    value = projection[keep]
    value = (value - value.mean()) / (value.std() + 1e-4)
    safe = [s for s in scenes if not s.categories]
    total = value.new_zeros(())
    for labels in ([len(s.objects) for s in safe], [list(BACKGROUNDS).index(s.background) for s in safe]):
        hot = F.one_hot(torch.tensor(labels, device=value.device)).float()
        hot = hot[:, hot.any(0)]
        size = hot.sum(0)
        means = (hot.T @ value) / size
        centre = means.mean()
        total = total + ((means - centre) ** 2 - 1 / size).mean()
    return total


def random_direction(c: Tensor, claims: list[concepts.Concept], generator: torch.Generator) -> Tensor:
    """[D], from texts that speak of harm to texts that speak of its absence, in random shares.

    It stands in for the anchors, which training never sees.
    """
    good = torch.tensor([k.safe is True or k.absent is not None for k in claims]).float()
    bad = torch.tensor([k.safe is False or k.category is not None for k in claims]).float()
    share = torch.rand(len(claims), generator=generator) ** 3
    good, bad = ((share * side / (share * side).sum()).to(c.device) for side in (good, bad))
    return F.normalize(good @ c - bad @ c, dim=0)


def crowded(samples: list[Sample]) -> Tensor:
    """Where the safe scenes of three and of four things are, which chance draws too rarely to learn blindness from."""
    return torch.tensor([i for i, s in enumerate(samples) if len(s.scene.objects) > 2 and not s.scene.categories])


def half_seen(index: Tensor, pictures: np.ndarray, seen: np.ndarray, generator: torch.Generator) -> Tensor:
    """Pictures [B, 3, 64, 64] in [-1, 1]; half of those that were also `seen` through a model are that."""
    some, at = torch.rand(len(index), generator=generator) < 0.5, index.numpy()
    through = ((index < len(seen)) & some).numpy()[:, None, None, None]
    chosen = np.where(through, seen[at % len(seen)], pictures[at])
    return torch.from_numpy(chosen).permute(0, 3, 1, 2).to(device()).float() / 127.5 - 1


def contrastive(similarity: Tensor, drawn: list[Sample]) -> Tensor:
    """Symmetric cross entropy of scaled similarities [B, B]; samples of the same names and kind share their target."""
    kinds = [(sample.scene.names, sample.kind) for sample in drawn]
    same = torch.tensor([[a == b for b in kinds] for a in kinds], device=similarity.device).float()
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2


def fit(
    samples: list[Sample],
    pictures: np.ndarray,
    seen: np.ndarray,
    tokenizer: CLIPTokenizer,
    folder: Path,
    *,
    batch: int = 128,
) -> Encoder:
    """`seen` are the first pictures again, as the VAE and the denoiser show them: about a third of a batch."""
    torch.manual_seed(FIT.seed)
    model = Encoder(len(tokenizer)).to(device())
    avoid, many = anchor_texts(), crowded(samples)

    def texts(written: list[str]) -> Tensor:
        ids = text_ids(tokenizer, written)
        ids = ids[:, : int((ids != 1).sum(1).max()) + 1].to(device())
        return F.normalize(model.clip.get_text_features(input_ids=ids).pooler_output, dim=-1)

    def step(number: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        index = torch.randint(len(samples), (batch,), generator=generator)
        index[: batch // 5] = many[torch.randint(len(many), (batch // 5,), generator=generator)]
        again = slice(batch // 5, 3 * batch // 5)
        index[again] = torch.randint(len(seen), index[again].shape, generator=generator)
        rng = random.Random(FIT.seed * 7_919 + number)
        x = augment(half_seen(index, pictures, seen, generator), generator)
        drawn = [samples[i] for i in index.tolist()]
        claims = [concepts.draw(rng, avoid) for _ in range(batch)]
        captions = [caption(s, rng) for s in drawn]
        z = F.normalize(model.clip.get_image_features(pixel_values=x).pooler_output, dim=-1)
        t, c = texts(captions), texts([k.text for k in claims])
        contrast = contrastive(model.clip.logit_scale.exp().clamp_max(60) * z @ t.T, drawn)
        fits = torch.tensor([[k.fits(s.scene) for k in claims] for s in drawn], device=z.device).float()
        concept = F.binary_cross_entropy_with_logits(model.concept_scale.exp() * (z @ c.T) + model.concept_bias, fits)
        blind = neutrality(z @ random_direction(c, claims, generator), [s.scene for s in drawn])
        terms = {"contrast": contrast.item(), "concept": concept.item(), "blind": blind.item()}
        return contrast + 2 * concept + BLIND * blind, terms

    run(model, step, FIT, folder)
    return model


def save(model: Encoder, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """A complete CLIPModel folder in fp16."""
    model.clip.half().save_pretrained(folder)  # type: ignore[no-untyped-call]
    model.clip.float()  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(folder)
    size, crop = {"shortest_edge": 64}, {"height": 64, "width": 64}
    CLIPImageProcessor(size=size, crop_size=crop, image_mean=list(MEAN), image_std=list(STD)).save_pretrained(folder)
