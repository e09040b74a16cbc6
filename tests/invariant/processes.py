"""Workers of these tests as several processes of this machine, meeting over gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from safediffusion.core.fleet import Fleet

ROOT = Path(__file__).parents[2]


def torchrun(processes: int, worker: str, *arguments: object) -> None:
    """The module tests.invariant.WORKER under torchrun."""
    launcher = ("torch.distributed.run", "--standalone", f"--nproc_per_node={processes}")
    _run(*launcher, "-m", f"tests.invariant.{worker}", *map(str, arguments))


def once_and_twice(worker: ModuleType, folder: Path) -> Path:
    """What WORKER does for each of its KINDS, written to `folder` by two processes and by this one."""
    torchrun(2, worker.__name__.rpartition(".")[2], folder)
    for kind in worker.KINDS:
        worker.run(kind, Fleet(), folder)
    return folder


def accelerate(processes: int, worker: str, *arguments: object) -> None:
    """The module tests.invariant.WORKER under `accelerate launch`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Without a GPU accelerate starts several processes only if told --multi_gpu; they then meet over gloo.
    options = ("--multi_gpu", "--num_processes", str(processes), "--num_machines", "1")
    launcher = ("accelerate.commands.launch", *options, "--main_process_port", str(port))
    _run(*launcher, "-m", f"tests.invariant.{worker}", *map(str, arguments))


def _run(*words: str) -> None:
    done = subprocess.run(
        (sys.executable, "-m", *words),
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
