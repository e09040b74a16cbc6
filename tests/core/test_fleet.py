"""The fleet: one process is the identity, two agree with the sum worked out in one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from safediffusion.core.fleet import Fleet

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import json, sys, torch
from torch import nn
from safediffusion.core.fleet import Fleet
fleet = Fleet.current()
a, b = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))
a.grad = torch.tensor([1.0, 2.0, 3.0]) * (fleet.rank + 1)
if fleet.rank == 1:
    b.grad = torch.full((2, 2), 8.0)
fleet.mean_gradients([a, b])
fleet.barrier()
rows = torch.arange(fleet.rank + 1, dtype=torch.float32)[:, None] + 10 * fleet.rank
print(json.dumps({
    "rank": [fleet.rank, fleet.world, fleet.is_main],
    "mean": fleet.mean({"x": float(fleet.rank), "a": 4.0 * fleet.rank}),
    "a": a.grad.tolist(), "b": b.grad.tolist(),
    "rows": fleet.gather_tensor(rows).tolist(),
    "sent": fleet.broadcast(torch.tensor([5.0 + fleet.rank])).tolist(),
}))
fleet.close()
"""


def test_two_processes_average_gather_and_broadcast(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "PYTHONPATH": str(ROOT),
    }
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    for rank, (text, _) in enumerate(outputs):
        assert json.loads(text.splitlines()[-1]) == {
            "rank": [rank, 2, rank == 0],
            "mean": {"x": 0.5, "a": 2.0},
            "a": [1.5, 3.0, 4.5],
            "b": [[4.0, 4.0], [4.0, 4.0]],
            "rows": [[0.0], [10.0], [11.0]],
            "sent": [5.0],
        }


def test_one_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    fleet = Fleet.current()
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    fleet.mean_gradients([parameter])
    fleet.barrier()
    fleet.close()
    assert fleet == Fleet(0, 1, 0) and fleet.is_main
    assert parameter.grad.tolist() == [1.0, 2.0]
    assert fleet.mean({"x": 3.0}) == {"x": 3.0}
    assert fleet.gather_tensor(torch.tensor([1, 2])).tolist() == [1, 2]
    assert fleet.broadcast(torch.tensor([1])).tolist() == [1]
