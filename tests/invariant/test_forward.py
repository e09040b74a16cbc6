"""Objectives on the forward process: two processes train as one does, with divided weights too."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from safediffusion.core.fleet import Fleet
from tests.invariant import forward_worker
from tests.invariant.forward_worker import KINDS
from tests.invariant.processes import once_and_twice


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training, once in this process and once in two."""
    return once_and_twice(forward_worker, tmp_path_factory.mktemp("worlds"))


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_end_in_the_weights_of_one(ended: Path, kind: str) -> None:
    one = load_file(ended / f"{kind}-1-rank0.safetensors")
    many = [load_file(ended / f"{kind}-2-rank{rank}.safetensors") for rank in range(2)]
    start = forward_worker.policy(kind, Fleet()).state()
    assert max(float((one[f"live/{name}"] - value).abs().max()) for name, value in start.items()) > 1e-4
    sets = {name.partition("/")[0] for name in one}
    assert sets == {"live"} | {"nft": {"behavior"}, "awm": {"ema"}, "rwr": set()}[kind.partition("-")[0]]
    for name, value in one.items():
        assert (many[0][name] == many[1][name]).all(), name
        assert_close(many[0][name], value, atol=1e-5, rtol=0)
