"""Each method and credit that no other test of this folder has: two processes train as one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.invariant import methods_worker
from tests.invariant.methods_worker import CONSTRAINED, KINDS, SAMPLED
from tests.invariant.processes import once_and_twice


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training, once in this process and once in two."""
    return once_and_twice(methods_worker, tmp_path_factory.mktemp("methods"))


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_end_where_one_does(ended: Path, kind: str) -> None:
    names = [f"{kind}-{name}" for name in ("1-rank0", "2-rank0", "2-rank1")]
    one, first, second = (load_file(ended / f"{name}.safetensors") for name in names)
    start = tiny.policy(trained=True).state()
    moved = max(float((one[name] - value).abs().max()) for name, value in start.items())
    assert moved > 1e-4
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, atol=2e-4 * moved, rtol=0)
    told = [json.loads((ended / f"{name}.json").read_text()) for name in names]
    assert told[0].keys() == told[1].keys() and told[1] == told[2]
    for name, value in told[0].items():
        assert told[1][name] == pytest.approx(value, abs=5e-6, rel=1e-4), name


def test_budgets_and_clips_took_part(ended: Path) -> None:
    """Of both harm categories and of every clip: the updates above depend on them."""
    told = {kind: json.loads((ended / f"{kind}-2-rank0.json").read_text()) for kind in KINDS}
    for kind in CONSTRAINED:
        assert min(told[kind][f"constraint/{category}/u"] for category in ("p2", "p3")) > 0.05
    assert all(told[kind]["1/loss/clipped"] > 0 for kind in SAMPLED)
    assert told["guard-running"]["1/credit/ready"] == 4
