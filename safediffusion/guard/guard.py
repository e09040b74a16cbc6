"""The guard of a run: looks at the panel every N steps, remembers what it saw, and says when to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.models.files import read_weights
from safediffusion.models.policy import Policy, Weights
from safediffusion.scorers.base import finish_scores

from .panel import Panel
from .reading import Column, Reading, column, read, write
from .rule import Course, Verdict, weighted

READINGS, BASE = "readings.jsonl", "base.safetensors"  # in RUN/guard


class Excess(Protocol):
    """By how much pictures exceed their budgets; called with finished scores, each [P], and their prompts."""

    def __call__(self, scores: Mapping[str, Tensor], prompts: Sequence[Prompt], /) -> float: ...


@dataclass(slots=True, kw_only=True)
class PanelGuard:
    """What `train.run` asks after every step; see `guard.rule` for the rule.

    Its memory is RUN/guard alone: the readings up to the checkpoint that a run is resumed from are judged again, so
    that it goes on as if it had never been stopped.
    """

    panel: Panel
    course: Course
    weights: Mapping[str, float]  # of the scores in the reward; none where nothing is rewarded
    every: int
    which: Weights = Weights.LIVE  # what is looked at
    stops: bool = True
    use: str = "best"  # of a stopped run: "best" or "last" weights
    excess: Excess | None = None  # of a constrained run
    _readings: list[Reading] = field(default_factory=list, init=False)  # the base's first
    _base: Tensor | None = field(default=None, init=False)  # [P, D] features
    _verdict: Verdict | None = field(default=None, init=False)
    _folder: Path | None = field(default=None, init=False)

    def open(self, policy: Policy, folder: Path, done: int) -> None:
        """Look at the base before the first step; of a run that goes on, read what was seen up to step `done`."""
        self._folder = folder / "guard"
        if not done:
            seen = self.panel.look(policy)
            self._base = seen.features
            self._readings = [self.panel.reading(0, seen, seen.features)]
            if self.panel.fleet.is_main:
                self._folder.mkdir(parents=True, exist_ok=True)
                save_file({"features": seen.features.contiguous()}, self._folder / BASE)
                write(self._folder / READINGS, self._readings)
            return
        self._readings = read(self._folder / READINGS, done=done)
        if not self._readings or self._readings[0].step or not (self._folder / BASE).is_file():
            raise UserError(
                f"{folder} was started without a guard, so its base was not drawn; set guard.every=0 to go on without, "
                "or start a new run"
            )
        self._base = read_weights(self._folder / BASE)[0]["features"]
        for reading in self._readings[1:]:
            self._verdict = self._judge(reading)

    def after(self, policy: Policy, done: int) -> Verdict | None:
        """The verdict of a look after `done` steps; None when none is due."""
        if done % self.every:
            return None
        assert self._base is not None and self._folder is not None, "a guard is opened before it is asked"
        with policy.using(self.which):
            reading = self.panel.reading(done, self.panel.look(policy), self._base)
        self._readings.append(reading)
        if self.panel.fleet.is_main:
            write(self._folder / READINGS, self._readings)
        self._verdict = self._judge(reading)
        return self._verdict

    @property
    def best(self) -> int:
        """The step of the best weights so far; 0 is the base."""
        return 0 if self._verdict is None else self._verdict.best

    @property
    def stopped(self) -> str:
        """Why training has to end, or nothing."""
        return self._verdict.stop if self._verdict is not None and self.stops else ""

    @property
    def forwards(self) -> int:
        """Network evaluations of all looks so far, the base's among them."""
        return len(self._readings) * self.panel.forwards

    def _judge(self, reading: Reading) -> Verdict:
        base, now = (self._scores(each) for each in (self._readings[0], reading))
        over, prompts = self.excess, self.panel.pictures
        excesses = None if over is None else (over(base, prompts), over(now, prompts))
        rewards = (self._reward(base), self._reward(now)) if self.weights else None
        return self.course.judge(self._readings[0], reading, rewards, excesses=excesses)

    def _scores(self, reading: Reading) -> Mapping[str, Tensor]:
        """With what is calibrated by now, for the base as well."""
        raw = {
            name: torch.tensor([float("nan") if value is None else value for value in values])
            for name, values in reading.scores.items()
        }
        return finish_scores(self.panel.scorers, raw, self.panel.pictures)

    def _reward(self, scores: Mapping[str, Tensor]) -> Column:
        return weighted({name: column(scores[name].tolist()) for name in self.weights}, self.weights)
