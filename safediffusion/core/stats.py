"""Estimates with intervals and a few tests (numpy only). Nothing measured is None, never 0."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Z95 = 1.959963984540054
RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A measured number with its 95 % interval. `value`, `low` and `high` are None when n is 0."""

    value: float | None
    low: float | None
    high: float | None
    n: int  # items that could be measured
    missing: int  # items that could not


def rate(hits: Sequence[bool | None]) -> Estimate:
    """The share of True with its Wilson 95 % interval; None entries are missing, not False."""
    seen = [bool(hit) for hit in hits if hit is not None]
    n, missing = len(seen), len(hits) - len(seen)
    if not seen:
        return Estimate(value=None, low=None, high=None, n=0, missing=missing)
    p = sum(seen) / n
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n)) / (1 + Z95**2 / n)
    low = 0.0 if p == 0 else max(0.0, centre - half)
    high = 1.0 if p == 1 else min(1.0, centre + half)
    return Estimate(value=p, low=low, high=high, n=n, missing=missing)


def mean(values: Sequence[float | None], *, seed: int, clusters: Sequence[Hashable] | None = None) -> Estimate:
    """The mean with a bootstrap percentile 95 % interval; None and NaN are missing.

    With `clusters` (one label a value, e.g. the prompt) whole clusters are resampled. A single value, or a single
    cluster, carries no information on its spread: its interval is the point itself.
    """
    labels = range(len(values)) if clusters is None else clusters
    if len(labels) != len(values):
        raise ValueError(f"{len(values)} values but {len(labels)} cluster labels")
    kept = [(float(v), c) for v, c in zip(values, labels, strict=True) if v is not None and not math.isnan(v)]
    missing = len(values) - len(kept)
    if not kept:
        return Estimate(value=None, low=None, high=None, n=0, missing=missing)
    order = {label: i for i, label in enumerate(dict.fromkeys(c for _, c in kept))}
    member = np.array([order[c] for _, c in kept])
    data = np.array([v for v, _ in kept], dtype=np.float64)
    total, size = np.zeros(len(order)), np.zeros(len(order))
    np.add.at(total, member, data)
    np.add.at(size, member, 1.0)
    means = _bootstrap_means(total, size, seed)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(value=float(data.mean()), low=float(low), high=float(high), n=len(kept), missing=missing)


def _bootstrap_means(total: Floats, size: Floats, seed: int) -> Floats:
    """[RESAMPLES] means of resampled clusters, given each cluster's sum and size."""
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        index = generator.integers(0, len(total), len(total))
        means[i] = total[index].sum() / size[index].sum()
    return means


def paired_difference(
    base: Sequence[float | None],
    other: Sequence[float | None],
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int,
) -> Estimate:
    """Mean of other - base over aligned items, with a paired bootstrap interval; a pair with a hole is missing."""
    if len(base) != len(other):
        raise ValueError(f"a paired difference needs aligned items: {len(base)} against {len(other)}")
    differences = [None if a is None or b is None else float(b) - float(a) for a, b in zip(base, other, strict=True)]
    return mean(differences, seed=seed, clusters=clusters)


def mcnemar(base: Sequence[bool | None], other: Sequence[bool | None]) -> float:
    """Exact two-sided p of McNemar's test on aligned yes/no items; 1.0 when no pair disagrees."""
    pairs = [(a, b) for a, b in zip(base, other, strict=True) if a is not None and b is not None]
    lost = sum(1 for a, b in pairs if a and not b)
    won = sum(1 for a, b in pairs if b and not a)
    n = lost + won
    tail = sum(math.comb(n, k) for k in range(min(lost, won) + 1))
    return float(min(1.0, 2 * tail / 2**n))


def frechet(mu1: Floats, cov1: Floats, mu2: Floats, cov2: Floats) -> float:
    """Frechet distance of two Gaussians: |mu1-mu2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). Symmetric, never below 0."""
    values, vectors = np.linalg.eigh(np.asarray(cov1, dtype=np.float64))
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov2 @ root), 0, None)).sum()
    gap = np.asarray(mu1, dtype=np.float64) - mu2
    distance: float = float(gap @ gap) + float(np.trace(cov1) + np.trace(cov2)) - 2 * float(cross)
    return max(0.0, distance)


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """P(a positive scores above a negative), ties count one half; ValueError when either side is empty."""
    if not len(positive) or not len(negative):
        raise ValueError(f"AUC needs both kinds: {len(positive)} positive and {len(negative)} negative were given")
    low = np.sort(np.asarray(negative, dtype=np.float64))
    high = np.asarray(positive, dtype=np.float64)
    below, upto = np.searchsorted(low, high, "left"), np.searchsorted(low, high, "right")
    return float((below + upto).sum() / (2 * len(low) * len(high)))
