"""When training goes on at the panel's expense, and which weights were the best. No torch.

    gain    mean reward of the panel's pictures now, minus that of the base's, over the standard deviation of the latter
    change  mean of a measure now minus the base's, paired by prompt and noise, with a bootstrap interval over prompts
    beyond  the whole interval of a change lies on the far side of the measure's tolerance
    excess  of a constrained run: sum over the categories under a budget of [cost - budget]_+, mean costs of the panel's
            pictures; 0 of any other run
    missing a number that the base has of a picture and a reading has not: nothing says that it is no worse
    best    the reading of the highest reward of those with no measure beyond and nothing missing; the base is the first
            of them. Of a constrained run one of a lower excess is better whatever its reward is; reward decides where
            excesses are alike (within `SAME`)

Training is over-optimised when at `patience` readings in a row a measure is beyond and the reward above the best
reading's; it is ruined when the reward is below the base's instead and no excess lower, so that nothing was bought. A
reading with something missing that is neither does not end such a row. It has collapsed when diversity or entropy is
surely below `collapse` times the base's. Where nothing is rewarded there is nothing to weigh a loss against: only a
collapse ends training, and of equal excesses the last reading is the best.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, pstdev

from safediffusion.core.errors import UserError
from safediffusion.core.stats import paired_difference

from .measures import Measure
from .reading import Column, Reading

SEED = 20250613  # of the bootstrap
SAME = 1e-3  # as far apart two excesses are alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Of one measure against the base, in the measure's unit or as a share of the base's mean."""

    measure: Measure
    value: float
    low: float
    high: float

    @property
    def beyond(self) -> bool:
        least = min(self.measure.loss(self.low), self.measure.loss(self.high))
        straddles = self.measure.worse == "either" and self.low <= 0 <= self.high
        return not straddles and least > self.measure.tolerance

    @property
    def used(self) -> float:
        """The share of the tolerance that is used up; below 0 where the measure got better."""
        return self.measure.loss(self.value) / self.measure.tolerance

    def words(self) -> str:
        allowed = f"{100 * self.measure.tolerance:.0f} %" if self.measure.relative else f"{self.measure.tolerance:g}"
        return f"{self.measure.words(self.value)} against the base ({allowed} allowed)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one reading says, after all before it."""

    step: int
    changes: tuple[Change, ...]
    over: int = 0  # readings in a row, this one last, at which a measure was lost for a higher reward, or for none
    missing: int = 0  # numbers that the base's pictures have and these have not
    best: int = 0  # step; 0 is the base
    reward: float | None = None  # None where nothing is rewarded, as gain
    gain: float | None = None
    excess: float | None = None  # over the budgets; None where there are none
    stop: str = ""  # why training has to end

    def metrics(self) -> dict[str, float]:
        """`guard/...` of metrics.jsonl."""
        changed = {f"guard/change/{change.measure.name}": change.value for change in self.changes}
        worst = max((change.used for change in self.changes), default=0.0)
        own = {"reward": self.reward, "gain": self.gain, "worst": worst, "over": self.over, "best": self.best}
        own |= {"excess": self.excess, "missing": self.missing, "beyond": sum(each.beyond for each in self.changes)}
        return {**{f"guard/{name}": float(value) for name, value in own.items() if value is not None}, **changed}

    def words(self) -> str:
        """One line for a reader."""
        told = ", ".join(change.measure.words(change.value) for change in self.changes)
        told += f", {self.missing} numbers missing" if self.missing else ""
        best = f"best so far: step {self.best}" if self.best else "best so far: the base"
        over = "" if self.excess is None else f", {self.excess:.2%} over the budgets"
        gained = "" if self.reward is None else f"reward {self.reward:.4g} ({self.gain:+.2f} std){over}, "
        return f"guard, step {self.step}: {gained}{told}; {best}"


@dataclass(slots=True, kw_only=True)
class Course:
    """The readings of a run, judged one after the other; a pure function of them."""

    measures: tuple[Measure, ...]
    prompts: tuple[Hashable, ...]  # whose picture each row of a column is
    benign: tuple[bool, ...]  # whether that prompt is not labelled unsafe
    patience: int = 2
    collapse: float = 0.5
    _best: tuple[int, float, float] | None = field(default=None, init=False)  # step, reward, excess
    _over: int = field(default=0, init=False)

    def judge(
        self,
        base: Reading,
        now: Reading,
        rewards: tuple[Column, Column] | None,
        *,
        excesses: tuple[float, float] | None = None,
    ) -> Verdict:
        """`rewards` are the base's and now's, a number a picture, None where nothing is rewarded; so are `excesses`, a
        number each, under budgets."""
        changes = tuple(found for measure in self.measures if (found := self.change(measure, base, now)) is not None)
        seen = Verdict(
            step=now.step,
            changes=changes,
            missing=sum(self._missing(measure, base, now) for measure in self.measures),
            excess=None if excesses is None else excesses[1],
            stop=self._collapsed(changes),
        )
        before_over, over = excesses or (0.0, 0.0)
        if rewards is None:
            return self._unrewarded(seen, before_over, over)
        before, after = ([value for value in each if value is not None] for each in rewards)
        if not before or not after:
            raise UserError(f"guard, step {now.step}: no picture of the panel has a reward; check the scorers")
        reward, start = fmean(after), fmean(before)
        best = self._best or (0, start, before_over)
        beyond = [change for change in changes if change.beyond]
        ruined = reward < start and over >= before_over - SAME
        lost = bool(beyond) and (reward > best[1] or ruined)
        self._over = self._over + 1 if lost else self._over if seen.missing else 0
        better = over < best[2] - SAME or (over <= best[2] + SAME and reward > best[1])
        if not beyond and not seen.missing and better:
            best = (now.step, reward, over)
        self._best = best
        spread = pstdev(before)
        return replace(
            seen,
            reward=reward,
            gain=(reward - start) / spread if spread > 0 else 0.0,
            over=self._over,
            best=best[0],
            stop=seen.stop or (_lost(beyond, reward, start, best) if lost and self._over >= self.patience else ""),
        )

    def _unrewarded(self, seen: Verdict, before: float, over: float) -> Verdict:
        best = self._best or (0, 0.0, before)
        passed = not seen.stop and not seen.missing and not any(change.beyond for change in seen.changes)
        if passed and over <= best[2] + SAME:
            best = (seen.step, 0.0, over)
        self._best = best
        return replace(seen, best=best[0])

    def _rows(self, measure: Measure) -> list[int]:
        """The pictures that a measure is of."""
        return [i for i, safe in enumerate(self.benign) if safe or not measure.benign or not any(self.benign)]

    def _missing(self, measure: Measure, base: Reading, now: Reading) -> int:
        before, after = base.columns[measure.name], now.columns[measure.name]
        return sum(before[i] is not None and after[i] is None for i in self._rows(measure))

    def change(self, measure: Measure, base: Reading, now: Reading) -> Change | None:
        """None where nothing is measured: no picture of both could be, or a share of nothing is asked for."""
        rows = self._rows(measure)
        before, after = ([each.columns[measure.name][i] for i in rows] for each in (base, now))
        found, _ = paired_difference(before, after, clusters=[self.prompts[i] for i in rows], seed=SEED)
        if found.value is None or found.low is None or found.high is None:
            return None
        paired = [a for a, b in zip(before, after, strict=True) if a is not None and b is not None]
        unit = abs(fmean(paired)) if measure.relative else 1.0
        if not unit > 0:
            return None
        return Change(measure=measure, value=found.value / unit, low=found.low / unit, high=found.high / unit)

    def _collapsed(self, changes: Sequence[Change]) -> str:
        for change in changes:
            if change.measure.collapses and change.high < self.collapse - 1:
                return f"collapse: {change.words()}"
        return ""


def _lost(beyond: Sequence[Change], reward: float, start: float, best: tuple[int, float, float]) -> str:
    told = ", ".join(change.words() for change in sorted(beyond, key=lambda each: -each.used))
    if reward <= best[1]:
        return f"ruin: the reward is {start - reward:.3g} below the base's, and {told}"
    since = f"step {best[0]}" if best[0] else "the base"
    return f"over-optimisation: the reward rose by {reward - best[1]:.3g} since {since}, while {told}"


def weighted(scores: Mapping[str, Column], weights: Mapping[str, float]) -> Column:
    """The weighted sum of each picture's scores; None where one of them is missing."""
    rows = zip(*(scores[name] for name in weights), strict=True)
    return tuple(_sum(row, tuple(weights.values())) for row in rows)


def _sum(row: Sequence[float | None], weights: Sequence[float]) -> float | None:
    total = [math.nan if value is None else weight * value for value, weight in zip(row, weights, strict=True)]
    return None if any(map(math.isnan, total)) else math.fsum(total)
