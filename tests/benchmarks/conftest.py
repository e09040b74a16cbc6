"""The emoji benchmarks replaced by tiny ones."""

from __future__ import annotations

import pytest

from safediffusion.core.registry import Registry
from safediffusion.evaluate import registry
from tests.benchmarks import world


@pytest.fixture
def tiny_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """`emoji-i2p` and `emoji-geneval` are 4 prompts, twice each; the suite `both` has the two."""
    monkeypatch.setattr(registry, "BENCHMARKS", Registry("benchmark", world.TABLE))
    monkeypatch.setitem(registry.SUITES, "both", ("emoji-i2p", "emoji-geneval"))
