"""Exclusive seconds by part: the time inside an inner part is not the outer part's."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

Name = str | Callable[["Meter"], str]


class Spot(NamedTuple):
    """A function to time: where it is looked up, its name there, and the part its own time belongs to."""

    owner: Any
    attribute: str
    part: Name


class Meter:
    """Waits for the accelerator at both ends of a part, so that its work is counted where it was asked for."""

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._device, self._clock = device, clock
        self._open: list[str] = []
        self._since = 0.0

    def inside(self, part: str) -> bool:
        """Whether `part` is open now, however deep."""
        return part in self._open

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def _switch(self) -> None:
        """Book the time since the last switch to the innermost open part."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = self._clock()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def watching(self, spots: Sequence[Spot]) -> Iterator[None]:
        """Time every call of these functions within the block."""
        with ExitStack() as stack:
            for owner, attribute, part in spots:
                timed = self._timed(getattr(owner, attribute), part)
                stack.enter_context(patch.object(owner, attribute, timed))
            yield

    def _timed(self, function: Callable[..., Any], part: Name) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*given: Any, **named: Any) -> Any:
            with self.part(part if isinstance(part, str) else part(self)):
                return function(*given, **named)

        return timed
