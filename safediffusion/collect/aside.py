"""Work done beside the main thread: the scoring of pictures while the next ones are drawn."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import torch

T = TypeVar("T")


class Aside:
    """Does what it is given in order, without gradients: if `threaded` in one thread, on one CUDA stream; else at once.

    The same kernels run on the same numbers either way. What is handed over must stay alive until its result is asked
    for. An error is raised where the result is asked for.
    """

    def __init__(self, device: torch.device, *, threaded: bool) -> None:
        self._device = device
        self._pool = ThreadPoolExecutor(1) if threaded else None
        self._stream: torch.cuda.Stream | None = None
        if threaded and device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def submit(self, work: Callable[[], T]) -> Callable[[], T]:
        """A function that waits for the result of `work`, which sees everything that was computed up to here."""
        if self._pool is None:
            found = work()
            return lambda: found
        ready = None if self._stream is None else torch.cuda.current_stream(self._device).record_event()
        return self._pool.submit(self._run, work, ready).result

    @torch.no_grad()
    def _run(self, work: Callable[[], T], ready: torch.cuda.Event | None) -> T:
        if self._stream is None or ready is None:
            return work()
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(ready)
            found = work()
            self._stream.synchronize()
        return found
