"""More processes beside this one that share a command's work: on CPUs several threads alone outrun a team of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])
GRACE = 10.0  # seconds in which a process that shares a companion's error says so itself
MOST = 4  # of the processes that are started unasked; each holds the model once more


def processes_option(command: C) -> C:
    return click.option(
        "--processes",
        type=click.IntRange(min=1),
        help="How many share the work.  [default: one a CPU core, at most 4; 1 on a GPU]",
    )(command)


def launched() -> bool:
    """Whether torchrun, `accelerate launch` or `companions` started this process among others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def fitting(device: str, groups: int) -> int:
    """How many processes to share a run of `groups` a step among on this machine: 1 on an accelerator."""
    import torch

    from safediffusion.core.provenance import cores

    if device not in ("auto", "cpu") or (device == "auto" and torch.cuda.is_available()):
        return 1
    return max(count for count in range(1, min(MOST, cores()) + 1) if groups % count == 0)


@contextmanager
def companions(processes: int, arguments: list[str]) -> Iterator[None]:
    """Within the block this is process 0 of `processes`, the others run `safediffusion` with the same `arguments`.

    They end with this one, and this one with them: what is left of a run goes on from its last checkpoint. Nothing is
    started for 1, nor by a process that has company already.
    """
    if processes == 1 or launched():
        yield
        return
    import torch

    from safediffusion.core.fleet import Fleet

    before, threads = dict(os.environ), torch.get_num_threads()
    share = max(1, threads // processes)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    place |= {"WORLD_SIZE": str(processes), "OMP_NUM_THREADS": str(share)}
    command = [sys.executable, "-m", "safediffusion", *arguments]
    others = [
        subprocess.Popen(command, env={**before, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(1, processes)
    ]
    over = threading.Event()
    for rank, other in enumerate(others, start=1):
        threading.Thread(target=_watch, args=(rank, other, over), daemon=True).start()
    os.environ.update({**place, "RANK": "0", "LOCAL_RANK": "0"})
    torch.set_num_threads(share)
    try:
        yield
        for other in others:
            other.wait()
    finally:
        over.set()
        for other in others:
            other.terminate()
            other.wait()
        Fleet().close()
        torch.set_num_threads(threads)
        for name in ("RANK", "LOCAL_RANK", *place):
            os.environ.pop(name)
        os.environ.update(before)


def _watch(rank: int, other: subprocess.Popen[bytes], over: threading.Event) -> None:
    """End this process when a companion failed and this one does not end by itself: it may wait for it for ever."""
    status = other.wait()
    if status and not over.wait(GRACE):
        click.echo(f"safediffusion: process {rank} ended with status {status}, so all do", err=True)
        os._exit(1)
