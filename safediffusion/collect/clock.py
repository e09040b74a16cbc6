"""How long the parts of a step take."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Seconds by part, waiting at both ends of each for what this thread gave the accelerator to do.

    Threads may share a clock if no two of them time the same part at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds[name] += time.perf_counter() - start

    def metrics(self) -> dict[str, float]:
        """`time/<part>` in seconds."""
        return {f"time/{name}": value for name, value in self.seconds.items()}

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
