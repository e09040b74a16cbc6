"""Judges and scorers under watch: a batch that fails or takes too long is missing, and is told at the end."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import TypeVar

from torch import Tensor

from safediffusion.core.errors import UserError, disk_full
from safediffusion.scorers.base import ImageBatch, Scorer, tabulated

from .benchmark import Benchmark, Identity, Judge, Judgement, identities_of

T = TypeVar("T")
SHOWN = 3  # reasons


class Failed(Exception):
    """A batch was not judged; the watch has written down why."""


class _Late(BaseException):
    """Raised inside a call that takes too long; no `except Exception` of the call's own holds it up."""


@dataclass(slots=True)
class Watch:
    """`limit` is the seconds that a batch may take, None any.

    A call of Python is ended when its time is up. One that does not return to Python, inside a network, is ended by
    nothing: it is late when it comes back.
    """

    limit: float | None = None
    failures: Counter[str] = field(default_factory=Counter)  # reason -> pictures

    def run(self, who: str, pictures: int, call: Callable[[], T]) -> T:
        """What `call` returns; Failed when it raises or is late. A UserError and a full disk are for the user."""
        start = time.monotonic()
        try:
            with _alarm(self.limit):
                found = call()
        except _Late:
            raise self._failed(f"{who} took longer than {self.limit:g} s", pictures) from None
        except UserError:
            raise
        except Exception as error:  # a plug-in may raise anything
            if disk_full(error):
                raise
            said = (str(error).strip().splitlines() or [""])[0]
            raise self._failed(f"{who} raised {type(error).__name__}: {said}", pictures) from error
        if self.limit is not None and time.monotonic() - start > self.limit:
            raise self._failed(f"{who} took longer than {self.limit:g} s", pictures)
        return found

    def _failed(self, reason: str, pictures: int) -> Failed:
        self.failures[reason] += pictures
        return Failed(reason)

    def check(self) -> None:
        """UserError when anything failed, with the commonest reasons."""
        if self.failures:
            told = [f"{count:,} because {reason}" for reason, count in self.failures.most_common(SHOWN)]
            more = f", and {len(self.failures) - SHOWN} more reasons" if len(self.failures) > SHOWN else ""
            raise UserError(
                f"{self.failures.total():,} pictures were not judged and are missing: {', '.join(told)}{more}; all "
                "else is done. Mend it, or give more time with --timeout, and run the same command again for these"
            )


@contextmanager
def _alarm(limit: float | None) -> Iterator[None]:
    """Raises _Late in the main thread after `limit` seconds; an alarm that was set already goes on afterwards."""
    if limit is None or sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise _Late

    before, start = signal.signal(signal.SIGALRM, ring), time.monotonic()
    rest, interval = signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if rest:
            signal.setitimer(signal.ITIMER_REAL, max(rest - (time.monotonic() - start), 1e-3), interval)


def watched(benchmark: Benchmark, watch: Watch) -> Benchmark:
    """The benchmark with its judge and scorers under watch."""
    make, scorers = benchmark.judge, benchmark.scorers
    return replace(
        benchmark,
        judge=None if make is None else lambda: WatchedJudge(make(), watch, benchmark.name),
        scorers=lambda: tuple(WatchedScorer(scorer, watch) for scorer in scorers()),
    )


@dataclass(frozen=True, slots=True)
class WatchedJudge:
    inner: Judge
    watch: Watch
    benchmark: str

    @property
    def identities(self) -> tuple[Identity, ...]:
        return identities_of(self.inner)

    def __call__(self, images: Tensor) -> Sequence[Judgement]:
        who = " and ".join(identity.id for identity in self.identities) or f"the judge of {self.benchmark}"
        return self.watch.run(who, len(images), lambda: self.inner(images))


@dataclass(frozen=True, slots=True)
class WatchedScorer:
    inner: Scorer
    watch: Watch

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def higher_is_better(self) -> bool:
        return self.inner.higher_is_better

    @property
    def differentiable(self) -> bool:
        return self.inner.differentiable

    @property
    def identities(self) -> tuple[Identity, ...]:
        return identities_of(self.inner)

    def __call__(self, batch: ImageBatch) -> Tensor:
        return self.watch.run(self.name, len(batch.prompts), lambda: self.inner(batch))

    def columns(self, batch: ImageBatch) -> dict[str, Tensor]:
        return self.watch.run(self.name, len(batch.prompts), lambda: tabulated(self.inner, batch))
