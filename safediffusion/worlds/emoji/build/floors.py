"""What the world promises, measured on fresh scenes and fresh seeds: judge, encoder, safety direction."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from safediffusion.core.stats import auc
from safediffusion.scorers.anchors import read_anchors
from safediffusion.scorers.clip import ClipEncoder
from safediffusion.scorers.steering import direction

from ..captions import caption
from ..judge import Judge
from ..scenes import Sample, Scene, dataset, draw, render
from ..vocabulary import BACKGROUNDS, CATEGORIES

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


@torch.no_grad()
def embed(encoder: ClipEncoder, pictures: np.ndarray) -> Tensor:
    """Unit embeddings [N, D] of uint8 pictures [N, 64, 64, 3]."""
    return torch.cat([encoder.image(part) for part in torch.split(as_images(pictures), 250)])


def retrieval(encoder: ClipEncoder, *, rounds: int = 12, choices: int = 64) -> dict[str, float]:
    """How often the caption that belongs to the picture is the nearest of 64 distinct ones."""
    rng, hits = random.Random(FRESH + 1), []
    for _ in range(rounds):
        drawn: dict[tuple[object, ...], tuple[Sample, str]] = {}
        while len(drawn) < choices:
            sample = draw(rng)
            names = sample.scene.names
            told = (sample.kind, frozenset(names), len(names), sample.relation)
            drawn.setdefault(told, (sample, caption(sample, rng, hint=0, typo=0)))
        pictures = np.stack([render(s.scene) for s, _ in drawn.values()])
        similar = embed(encoder, pictures) @ encoder.text([text for _, text in drawn.values()]).T
        hits += (similar.argmax(1) == torch.arange(choices)).tolist()
    return {"encoder/retrieval_64": float(np.mean(hits)), "encoder/retrieval_n": float(len(hits))}


def direction_auc(
    encoder: ClipEncoder, anchors: Path, *, count: int = 4000, each: int = 2500, seed: int = FRESH + 2
) -> dict[str, float]:
    """AUC of z(x).v_safe for each anchor set.

    Overall and by category on `count` scenes; against the number of objects and the background (0.5 = blind) on safe
    scenes alone, `each` of one, two, three and four objects: one number against the others has a standard error
    of 0.007.
    """
    samples, pictures = dataset(count, seed)
    z = embed(encoder, pictures)
    harmful = np.array([bool(s.scene.categories) for s in samples])
    safe = _safe_scenes(each, seed)
    calm = embed(encoder, np.stack([render(s) for s in safe]))
    out: dict[str, float] = {}
    for name, texts in read_anchors(anchors).items():
        merged = direction(encoder, texts)
        value = (z @ merged).numpy()
        out[f"direction/{name}/overall"] = auc(value[~harmful], value[harmful])
        for category in CATEGORIES:
            own = (z @ direction(encoder, texts.per_category[category])).numpy() if texts.per_category else value
            has = np.array([category in s.scene.categories for s in samples])
            out[f"direction/{name}/{category}"] = auc(own[~harmful], own[has])
        level = (calm @ merged).numpy()
        for label, flags in _nuisances(safe).items():
            out[f"direction/{name}/blind/{label}"] = auc(level[flags], level[~flags])
    return out


def _safe_scenes(each: int, seed: int) -> list[Scene]:
    """`each` scenes of one, two, three and four harmless objects."""
    rng = random.Random(seed + 1)
    found: dict[int, list[Scene]] = {n: [] for n in (1, 2, 3, 4)}
    while any(len(scenes) < each for scenes in found.values()):
        scene = draw(rng, kind=rng.choice(("single", "two", "count", "relation")), unsafe_share=0.0).scene
        if len(found[len(scene.objects)]) < each:
            found[len(scene.objects)].append(scene)
    return [scene for scenes in found.values() for scene in scenes]


def _nuisances(safe: list[Scene]) -> dict[str, np.ndarray]:
    counts = {f"count {n}": np.array([len(s.objects) == n for s in safe]) for n in (1, 2, 3, 4)}
    return counts | {f"background {b}": np.array([s.background == b for s in safe]) for b in BACKGROUNDS}
