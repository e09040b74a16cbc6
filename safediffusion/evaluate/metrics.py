"""Metrics over rows: rates, means of rates, changes against a base, Frechet distance, means.

A picture that was not judged is `None` in every list here: it widens `missing` and never counts as safe or as correct.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from safediffusion.core import stats
from safediffusion.core.comparison import Difference, MetricInfo
from safediffusion.core.stats import Estimate

from .rows import Row

Hit = Callable[[Row], bool | None]
Floats = NDArray[np.float64]
SEED = 20_260_518
DRAWS = 2_000


def everywhere(row: Row) -> bool:
    return True


def some(hits: Iterable[bool | None]) -> bool | None:
    """Whether any is true; None where what was not measured could be it."""
    seen = set(hits)
    return True if True in seen else None if None in seen else False


def every(hits: Iterable[bool | None]) -> bool | None:
    """Whether all are true; None where what was not measured could be false."""
    seen = set(hits)
    return False if False in seen else None if None in seen else True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """The share of pictures that `hit` is true of, among those that `where` selects; Wilson interval."""

    info: MetricInfo
    hit: Hit
    where: Callable[[Row], bool] = everywhere

    def estimate(self, rows: Sequence[Row], base: Sequence[Row] | None = None) -> Estimate:
        return stats.rate([self.hit(row) for row in rows if self.where(row)])

    def difference(self, base: Sequence[Row], other: Sequence[Row]) -> Difference:
        pairs = [(b, o) for b, o in zip(base, other, strict=True) if self.where(b)]
        return _paired_hits([self.hit(b) for b, _ in pairs], [self.hit(o) for _, o in pairs], [b for b, _ in pairs])


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyRate:
    """The share of prompts that `hit` is true of in at least one picture; Wilson interval.

    Prompts are the units: `n`, `missing` and a paired difference count prompts. A prompt without a hit but with a
    picture that was not judged is missing.
    """

    info: MetricInfo
    hit: Hit

    def estimate(self, rows: Sequence[Row], base: Sequence[Row] | None = None) -> Estimate:
        return stats.rate(self._prompts(rows))

    def difference(self, base: Sequence[Row], other: Sequence[Row]) -> Difference:
        first = {row.prompt: row for row in base}
        return _paired_hits(self._prompts(base), self._prompts(other), list(first.values()))

    def _prompts(self, rows: Sequence[Row]) -> list[bool | None]:
        hits: dict[str, list[bool | None]] = {}
        for row in rows:
            hits.setdefault(row.prompt, []).append(self.hit(row))
        return [some(group) for group in hits.values()]


@dataclass(frozen=True, slots=True, kw_only=True)
class MacroRate:
    """The plain mean of the rates of several strata (GenEval's overall); bootstrap over prompts inside each stratum.

    None when one of `strata` has nothing judged: a mean of five tasks is not a mean of six.
    """

    info: MetricInfo
    hit: Hit
    stratum: Callable[[Row], str]
    strata: tuple[str, ...]

    def estimate(self, rows: Sequence[Row], base: Sequence[Row] | None = None) -> Estimate:
        hits = [self.hit(row) for row in rows]
        return self._reduce(rows, [None if hit is None else float(hit) for hit in hits])

    def difference(self, base: Sequence[Row], other: Sequence[Row]) -> Difference:
        pairs = [(self.hit(b), self.hit(o)) for b, o in zip(base, other, strict=True)]
        gaps = [None if b is None or o is None else float(o) - float(b) for b, o in pairs]
        return Difference(estimate=self._reduce(base, gaps))

    def _reduce(self, rows: Sequence[Row], values: Sequence[float | None]) -> Estimate:
        rng = np.random.default_rng(SEED)
        total, draws = 0.0, np.zeros(DRAWS)
        n = sum(value is not None for value in values)
        for stratum in self.strata:
            sums, counts = _by_prompt([(r, v) for r, v in zip(rows, values, strict=True) if self.stratum(r) == stratum])
            if not counts.sum():
                return Estimate(value=None, low=None, high=None, n=n, missing=len(values) - n)
            total += float(sums.sum() / counts.sum()) / len(self.strata)
            picks = rng.integers(0, len(sums), size=(DRAWS, len(sums)))
            draws += sums[picks].sum(1) / counts[picks].sum(1) / len(self.strata)
        low, high = np.quantile(draws, [0.025, 0.975])
        return Estimate(value=total, low=float(low), high=float(high), n=n, missing=len(values) - n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """Of the pictures where `present` held for the base, the share where it does not at the same prompt and seed.

    Without a base it is not measured; the base against itself is 0 of n by construction. The paired difference is the
    net change (lost minus gained), because a share of losses alone can only be positive.
    """

    info: MetricInfo
    present: Hit

    def estimate(self, rows: Sequence[Row], base: Sequence[Row] | None = None) -> Estimate:
        if base is None:
            return Estimate(value=None, low=None, high=None, n=0, missing=len(rows))
        before = {row.pair: self.present(row) for row in base}
        asked = [(before.get(row.pair), self.present(row)) for row in rows]
        return stats.rate([None if b is None or now is None else not now for b, now in asked if b is not False])

    def lost(self, base: Row, now: Row) -> bool:
        """Whether the base drew it and this model, judged, did not."""
        return bool(self.present(base)) and self.present(now) is False

    def difference(self, base: Sequence[Row], other: Sequence[Row]) -> Difference:
        absent = [[None if (hit := self.present(row)) is None else not hit for row in rows] for rows in (base, other)]
        return _paired_hits(absent[0], absent[1], base)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The mean of a number a picture (None: not measured), bootstrap over prompts."""

    info: MetricInfo
    value: Callable[[Row], float | None]

    def estimate(self, rows: Sequence[Row], base: Sequence[Row] | None = None) -> Estimate:
        return stats.mean([self.value(row) for row in rows], seed=SEED, clusters=[row.prompt for row in rows])

    def difference(self, base: Sequence[Row], other: Sequence[Row]) -> Difference:
        before, after = ([self.value(row) for row in rows] for rows in (base, other))
        clusters = [row.prompt for row in base]
        return Difference(estimate=stats.paired_difference(before, after, clusters=clusters, seed=SEED))


@dataclass(frozen=True)  # no slots: the reference is read once, on first use
class Frechet:
    """Frechet distance of the judge's features to a reference; bootstrap over prompts.

    A resample repeats pictures, which raises the distance, so the resampled distances are moved to their mean's place.
    """

    info: MetricInfo
    reference: Callable[[], tuple[Floats, Floats]]
    draws: int = 200

    @cached_property
    def _moments(self) -> tuple[Floats, Floats]:
        mean, covariance = self.reference()
        return np.asarray(mean, dtype=np.float64), np.asarray(covariance, dtype=np.float64)

    def estimate(self, rows: Sequence[Row], base: Sequence[Row] | None = None) -> Estimate:
        seen = [row for row in rows if row.features is not None]
        missing = len(rows) - len(seen)
        if len(seen) < 2:
            return Estimate(value=None, low=None, high=None, n=len(seen), missing=missing)
        features = _stack(seen)
        value = self._distance(features)
        low, high = _centred([self._distance(features[i]) for i in self._resamples(seen)], value)
        return Estimate(value=value, low=max(low, 0.0), high=high, n=len(seen), missing=missing)

    def difference(self, base: Sequence[Row], other: Sequence[Row]) -> Difference:
        pairs = [(b, o) for b, o in zip(base, other, strict=True) if b.features is not None and o.features is not None]
        missing = len(base) - len(pairs)
        if len(pairs) < 2:
            return Difference(estimate=Estimate(value=None, low=None, high=None, n=len(pairs), missing=missing))
        before, after = _stack([b for b, _ in pairs]), _stack([o for _, o in pairs])
        value = self._distance(after) - self._distance(before)
        draws = [self._distance(after[i]) - self._distance(before[i]) for i in self._resamples([b for b, _ in pairs])]
        low, high = _centred(draws, value)
        return Difference(estimate=Estimate(value=value, low=low, high=high, n=len(pairs), missing=missing))

    def _distance(self, features: Floats) -> float:
        mean, covariance = self._moments
        return stats.frechet(features.mean(0), np.cov(features, rowvar=False), mean, covariance)

    def _resamples(self, rows: Sequence[Row]) -> list[NDArray[np.int64]]:
        prompts = np.unique([row.prompt for row in rows], return_inverse=True)[1]
        members = [np.flatnonzero(prompts == prompt) for prompt in range(int(prompts.max()) + 1)]
        rng = np.random.default_rng(SEED)
        picks = [rng.integers(0, len(members), size=len(members)) for _ in range(self.draws)]
        return [np.concatenate([members[i] for i in pick]) for pick in picks]


def _paired_hits(base: Sequence[bool | None], other: Sequence[bool | None], rows: Sequence[Row]) -> Difference:
    both = [(b, o) for b, o in zip(base, other, strict=True) if b is not None and o is not None]
    before, after = ([None if hit is None else float(hit) for hit in hits] for hits in (base, other))
    gap = stats.paired_difference(before, after, clusters=[row.prompt for row in rows], seed=SEED)
    return Difference(estimate=gap, p=stats.mcnemar([b for b, _ in both], [o for _, o in both]) if both else None)


def _by_prompt(measured: Sequence[tuple[Row, float | None]]) -> tuple[Floats, Floats]:
    """Sum and count of the values of each prompt; None values are left out."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for row, value in measured:
        if value is not None:
            sums[row.prompt] = sums.get(row.prompt, 0.0) + value
            counts[row.prompt] = counts.get(row.prompt, 0) + 1
    return np.array(list(sums.values()), dtype=np.float64), np.array(list(counts.values()), dtype=np.float64)


def _stack(rows: Sequence[Row]) -> Floats:
    return np.array([row.features for row in rows], dtype=np.float64)


def _centred(draws: Sequence[float], value: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.025, 0.975]) - np.mean(draws) + value
    return float(low), float(high)
