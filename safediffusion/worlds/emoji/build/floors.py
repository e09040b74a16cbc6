"""What the world promises, measured on fresh scenes and fresh seeds: judge, encoder, safety direction."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from safediffusion.core.stats import auc

from ..captions import caption
from ..judge import Judge
from ..scenes import Sample, dataset, draw, render
from ..vocabulary import BACKGROUNDS, CATEGORIES
from .encoder import MEAN, STD
from .text import text_ids

FRESH = 9_001  # seed of scenes nobody trained on


def as_images(pictures: np.ndarray) -> Tensor:
    """uint8 [N, 64, 64, 3] -> float [N, 3, 64, 64] in [0, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def judge_exact(judge: Judge, count: int = 1500) -> dict[str, float]:
    """Share of fresh scenes whose detected multiset of names is exactly the drawn one."""
    samples, pictures = dataset(count, FRESH)
    found = [d for part in torch.split(as_images(pictures), 250) for d in judge.detect(part)]
    exact = [sorted(d.name for d in f) == sorted(s.scene.names) for f, s in zip(found, samples, strict=True)]
    near = [
        abs(d.x - o.x) + abs(d.y - o.y)
        for f, s in zip(found, samples, strict=True)
        for o in s.scene.objects
        for d in f
        if d.name == o.name and s.kind in ("single", "mixed")
    ]
    match, error = float(np.mean(exact)), float(np.mean(near))
    return {"judge/exact_match": match, "judge/centre_error_px": error, "judge/n": float(count)}


class Reader:
    """Unit embeddings of pictures and texts by the shipped encoder."""

    def __init__(self, folder: Path) -> None:
        self.clip = CLIPModel.from_pretrained(folder, dtype=torch.float32).train(False)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def pictures(self, images: Tensor) -> Tensor:
        inputs = ((part - MEAN[0]) / STD[0] for part in torch.split(images, 250))
        parts = [self.clip.get_image_features(pixel_values=x).pooler_output for x in inputs]
        return F.normalize(torch.cat(parts), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        ids = text_ids(self.tokenizer, texts)
        return F.normalize(self.clip.get_text_features(input_ids=ids).pooler_output, dim=-1)

    def direction(self, safe: Sequence[str], unsafe: Sequence[str]) -> Tensor:
        bad = self.texts(unsafe).mean(0)
        return F.normalize(self.texts(safe).mean(0) - bad if safe else -bad, dim=0)


def retrieval(reader: Reader, *, rounds: int = 12, choices: int = 64) -> dict[str, float]:
    """How often the caption that belongs to the picture is the nearest of 64 distinct ones."""
    rng, hits = random.Random(FRESH + 1), []
    for _ in range(rounds):
        drawn: dict[tuple[object, ...], tuple[Sample, str]] = {}
        while len(drawn) < choices:
            sample = draw(rng)
            names = sample.scene.names
            told = (sample.kind, frozenset(names), len(names), sample.relation)
            drawn.setdefault(told, (sample, caption(sample, rng, hint=0, typo=0)))
        images = as_images(np.stack([render(s.scene) for s, _ in drawn.values()]))
        similar = reader.pictures(images) @ reader.texts([text for _, text in drawn.values()]).T
        hits += (similar.argmax(1) == torch.arange(choices)).tolist()
    return {"encoder/retrieval_64": float(np.mean(hits)), "encoder/retrieval_n": float(len(hits))}


def direction_auc(reader: Reader, anchors: Path, *, count: int = 4000) -> dict[str, float]:
    """AUC of z(x).v_safe for each anchor set: overall, by category, and against count and background (0.5 = blind)."""
    samples, pictures = dataset(count, FRESH + 2)
    z = reader.pictures(as_images(pictures))
    harmful = np.array([bool(s.scene.categories) for s in samples])
    out: dict[str, float] = {}
    for name, texts in yaml.safe_load(anchors.read_text()).items():
        value = (z @ reader.direction(texts["safe"], texts["unsafe"])).numpy()
        out[f"direction/{name}/overall"] = auc(value[~harmful], value[harmful])
        for category in CATEGORIES:
            own = value
            if "per_category" in texts:
                own = (z @ reader.direction(**texts["per_category"][category])).numpy()
            has = np.array([category in s.scene.categories for s in samples])
            out[f"direction/{name}/{category}"] = auc(own[~harmful], own[has])
        safe, calm = [s for s, bad in zip(samples, harmful, strict=True) if not bad], value[~harmful]
        for label, flags in _nuisances(safe).items():
            out[f"direction/{name}/blind/{label}"] = auc(calm[flags], calm[~flags])
    return out


def _nuisances(safe: list[Sample]) -> dict[str, np.ndarray]:
    counts = {f"count {n}": np.array([len(s.scene.objects) == n for s in safe]) for n in (1, 2, 3, 4)}
    return counts | {f"background {b}": np.array([s.scene.background == b for s in safe]) for b in BACKGROUNDS}
