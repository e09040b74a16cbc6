"""LaSRO and Focus-N-Fix: two processes train as one does, the surrogate too."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from safediffusion.core.fleet import Fleet
from tests.invariant import surrogate_worker
from tests.invariant.processes import once_and_twice
from tests.invariant.surrogate_worker import KINDS


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training, once in this process and once in two."""
    return once_and_twice(surrogate_worker, tmp_path_factory.mktemp("worlds"))


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_end_where_one_does(ended: Path, kind: str) -> None:
    one = load_file(ended / f"{kind}-1-rank0.safetensors")
    many = [load_file(ended / f"{kind}-2-rank{rank}.safetensors") for rank in range(2)]
    start = surrogate_worker.made(kind, Fleet()).policy.state()
    assert max(float((one[f"live/{name}"] - value).abs().max()) for name, value in start.items()) > 1e-4
    assert any(name.startswith("network/") for name in one) is (kind == "lasro")
    for name, value in one.items():
        assert (many[0][name] == many[1][name]).all(), name
        assert_close(many[0][name], value, atol=1e-5 if name.startswith("live/") else 1e-4, rtol=1e-4)
