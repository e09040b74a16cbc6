"""What a careful reader must know about the very numbers of a comparison. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .benchmark import Benchmark
from .side import Side, judged


def notes(benchmarks: Sequence[Benchmark], sides: Sequence[Side]) -> Iterator[str]:
    """One sentence each: what is missing, left out or not alike."""
    yield from dict.fromkeys(told for side in sides if (told := _subsets(benchmarks, side)))
    yield from dict.fromkeys(told for side in sides for told in _skipped(benchmarks, side))
    for side in sides[1:]:
        if unlike := [told for benchmark in benchmarks if (told := _unpaired(benchmark, sides[0], side))]:
            yield (
                f"{side.name} was not asked the same as {sides[0].name}: {', '.join(unlike)}. Its values are of its "
                "own pictures, differences of the shared ones alone."
            )
    yield from dict.fromkeys(told for side in sides for told in _unofficial(benchmarks, side))
    for side in sides:
        rows = [row for group in side.rows.values() for row in group]
        if lost := len(rows) - judged(rows):
            yield f"{side.name}: {lost} of {len(rows)} pictures are missing and are counted as missing, never as safe."
        if absent := [b.name for b in benchmarks if b.name not in side.rows]:
            yield f"{side.name} was not evaluated on {', '.join(absent)}."
        if any("imported" in manifest for manifest in side.manifests.values()):
            yield (
                f"{side.name} was drawn by another program and imported: pairs share a prompt, and are not known to "
                "share noise."
            )
            continue
        shared = [name for name in side.manifests if name in sides[0].manifests]
        before, now = ([_precision(each, name) for name in shared] for each in (sides[0], side))
        if unlike := [name for name, a, b in zip(shared, before, now, strict=True) if a and b and a != b]:
            at = shared.index(unlike[0])
            yield (
                f"{side.name} was drawn in {now[at]} and {sides[0].name} in {before[at]} ({', '.join(unlike)}); "
                "differences include that (evaluate both with the same --precision)."
            )
        if any(side.manifests[name].get("plan") != sides[0].manifests[name].get("plan") for name in shared):
            yield f"{side.name} was sampled with another plan than {sides[0].name}; differences include that."


def _precision(side: Side, benchmark: str) -> str:
    """Of its pictures; "" where an older version did not keep it, and of what was imported."""
    model = side.manifests[benchmark].get("model")
    return str(model.get("precision", "")) if isinstance(model, dict) else ""


def _asked(benchmark: Benchmark, side: Side) -> dict[str, Any]:
    found: dict[str, Any] = side.manifests[benchmark.name].get("asked", {}).get(benchmark.name, {})
    return found


def _subsets(benchmarks: Sequence[Benchmark], side: Side) -> str:
    parts = [told for benchmark in benchmarks if (told := _subset(benchmark, side))]
    if not parts:
        return ""
    return (
        f"Not every prompt was asked: {', '.join(parts)}. Values and intervals are of these prompts, not of the whole "
        "benchmarks."
    )


def _unpaired(benchmark: Benchmark, base: Side, side: Side) -> str:
    """How many of the base's pictures have a partner, where not all have or it has more; "" where both are alike."""
    if benchmark.name not in side.rows:
        return ""
    before, now = ({row.pair for row in each.rows[benchmark.name]} for each in (base, side))
    return "" if before == now else f"{benchmark.name} shares {len(before & now):,} of {len(before):,} ({len(now):,})"


def _subset(benchmark: Benchmark, side: Side) -> str:
    """Which part of the prompts was asked, "" for all of them."""
    if benchmark.name not in side.rows:
        return ""
    drawn, whole = len({row.prompt for row in side.rows[benchmark.name]}), _asked(benchmark, side).get("prompts")
    if whole is None or drawn >= whole:
        return ""
    strata = f"in proportion to every {benchmark.gallery}" if benchmark.gallery else "evenly spread"
    return f"{benchmark.name} {drawn} of {whole:,} ({strata})"


def _unofficial(benchmarks: Sequence[Benchmark], side: Side) -> Iterator[str]:
    """Where pictures were not drawn as the benchmark's authors draw them."""
    for benchmark in (benchmark for benchmark in benchmarks if benchmark.name in side.rows):
        manifest, theirs = side.manifests[benchmark.name], benchmark.official
        plan = manifest.get("plan") or {}
        facts = {"steps": (theirs.steps, plan.get("steps")), "guidance": (theirs.guidance, plan.get("guidance"))}
        unlike = [f"{name} {own} (theirs {asked})" for name, (asked, own) in facts.items() if asked not in (None, own)]
        if unlike and "imported" not in manifest:
            yield f"{benchmark.name} was not drawn as its authors draw it: {', '.join(unlike)}."


def _skipped(benchmarks: Sequence[Benchmark], side: Side) -> Iterator[str]:
    for benchmark in (benchmark for benchmark in benchmarks if benchmark.name in side.rows):
        source = _asked(benchmark, side).get("source")
        if source and source["skipped"]:
            yield f"{benchmark.name}: {source['text']}."
