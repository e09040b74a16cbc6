"""Recipes that train in turns, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from benchmarks.engine.arithmetic import Flops, Work, matrix_rate
from safediffusion.config.build import build_experiment
from safediffusion.config.schema import Recipe
from safediffusion.models.load import PRECISIONS

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One training step: what it ran, and the seconds of its parts as the trainer itself takes them."""

    work: Work
    rollout: float  # sampling, with the encoding of new texts
    decode: float
    score: float
    backward: float  # everything of training: passes without gradient, the loss, backward, optimizer
    step: float
    peak: int | None  # bytes allocated at once for this recipe; None where the device does not tell

    @property
    def rest(self) -> float:
        return self.step - self.rollout - self.decode - self.score - self.backward

    @property
    def hourly(self) -> float:
        """Images trained in an hour."""
        return 3600 * self.work.images / self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of n values."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median=statistics.median(values), low=min(values), high=max(values), n=len(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A recipe's measured turns, and what its passes take."""

    recipe: Recipe
    turns: tuple[Turn, ...]
    flops: Flops
    rate: float  # operations a second of matrix products in the recipe's precision, the best seen

    def spread(self, value: Callable[[Turn], float]) -> Spread:
        return Spread.of([value(turn) for turn in self.turns])

    def use(self, part: str) -> Spread:
        """Share of the matrix rate that the network's operations make of `rollout`, `training` or the whole `step`."""
        spent: dict[str, Callable[[Turn], tuple[int, float]]] = {
            "rollout": lambda turn: (turn.work.rollout(self.flops), turn.rollout),
            "training": lambda turn: (turn.work.training(self.flops), turn.backward),
            "step": lambda turn: (turn.work.rollout(self.flops) + turn.work.training(self.flops), turn.step),
        }
        counted = [spent[part](turn) for turn in self.turns]
        return Spread.of([flops / seconds / self.rate for flops, seconds in counted])

    @property
    def peak(self) -> int | None:
        """Bytes, the most of any turn."""
        found = [turn.peak for turn in self.turns if turn.peak is not None]
        return max(found) if found else None


class Memory:
    """What one recipe allocates on a GPU while others are there too; nothing on other devices."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._own = 0  # bytes that stay between its turns
        self.peak: int | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """`peak` becomes the most bytes of this recipe at once within the block."""
        if self._device.type != "cuda":
            yield
            return
        gc.collect()
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        others = before - self._own
        yield
        self.peak = torch.cuda.max_memory_allocated(self._device) - others
        self._own += torch.cuda.memory_allocated(self._device) - before


class Contestant:
    """A recipe in training; its weights are thrown away."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        self.recipe, self.device = recipe, torch.device(device)
        self._memory, self._done = Memory(self.device), 0
        with self._memory.watching():
            self._trainer = build_experiment(recipe, device=device).trainer

    def turn(self) -> Turn:
        """The next step."""
        trainer, before = self._trainer, dict(self._trainer.totals)
        with self._memory.watching():
            metrics = trainer.step(self._done)
        spent = {name: round(total - before[name]) for name, total in trainer.totals.items()}
        sampled = trainer.collector.volume(trainer.policy, self._done).forwards
        self._done += 1
        return Turn(
            work=Work(
                images=spent["images"],
                sampled=sampled,
                learned=spent["unet_forwards"] - sampled,
                backwards=spent["unet_backwards"],
            ),
            rollout=metrics["time/rollout"],
            decode=metrics["time/decode"],
            score=metrics["time/score"],
            backward=metrics["time/backward"],
            step=metrics["time/step"],
            peak=self._memory.peak,
        )


def take_turns(
    contestants: Sequence[Contestant], flops: Sequence[Flops], *, rounds: int, seconds: float, say: Say
) -> list[Result]:
    """One step of each that does not count, then `rounds` rounds of one step each: A B A B.

    No further round begins when it would end later than `seconds` from now, but one is always measured.
    """
    began = time.perf_counter()
    turns: list[list[Turn]] = [[] for _ in contestants]
    rates = [0.0 for _ in contestants]
    longest = 0.0
    for number in range(rounds + 1):
        since = time.perf_counter()
        if number > 1 and since - began + longest > seconds:
            say(f"{number - 1} of {rounds} rounds measured: the time is up")
            break
        for i, contestant in enumerate(contestants):
            turn = contestant.turn()
            say(f"round {number} of {rounds}: {contestant.recipe.name}, {turn.step:.1f} s")
            rates[i] = max(rates[i], matrix_rate(contestant.device, PRECISIONS[contestant.recipe.precision]))
            if number:
                turns[i].append(turn)
        longest = max(longest, time.perf_counter() - since)
    return [
        Result(recipe=each.recipe, turns=tuple(own), flops=counted, rate=rate)
        for each, own, counted, rate in zip(contestants, turns, flops, rates, strict=True)
    ]
