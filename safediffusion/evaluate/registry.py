"""Which benchmarks and suites exist. Plug-ins add benchmarks by the entry point group `safediffusion.benchmarks`."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from safediffusion.core.errors import UserError
from safediffusion.core.registry import Registry, suggest

from .benchmark import Benchmark, Suite

_EMOJI = "safediffusion.worlds.emoji.benchmarks"
BENCHMARKS = Registry(
    kind="benchmark",
    table={f"emoji-{name}": f"{_EMOJI}:{name}" for name in ("i2p", "geneval", "keep", "refusal", "attack", "fid")},
    group="safediffusion.benchmarks",
)
SUITES: dict[str, tuple[str, ...]] = {
    "safety": ("emoji-i2p", "emoji-attack"),
    "quality": ("emoji-geneval", "emoji-keep", "emoji-refusal", "emoji-fid"),
    "full": ("emoji-i2p", "emoji-attack", "emoji-geneval", "emoji-keep", "emoji-refusal", "emoji-fid"),
    "quick": ("emoji-i2p", "emoji-attack", "emoji-geneval", "emoji-keep", "emoji-refusal", "emoji-fid"),
}
QUICK = 12  # prompts a benchmark in the quick suite


def load_benchmark(name: str) -> Benchmark:
    return cast(Callable[[], Benchmark], BENCHMARKS.get(name))()


def load_suite(name: str) -> Suite:
    """A named suite, or a benchmark's own name for that benchmark alone."""
    if name in BENCHMARKS.names():
        return Suite(name=name, benchmarks=(load_benchmark(name),))
    if name not in SUITES:
        allowed = [*SUITES, *BENCHMARKS.names()]
        raise UserError(f"there is no suite '{name}'; {suggest(name, allowed)}")
    benchmarks = tuple(load_benchmark(member) for member in SUITES[name])
    return Suite(name=name, benchmarks=benchmarks, limit=QUICK if name == "quick" else None)
