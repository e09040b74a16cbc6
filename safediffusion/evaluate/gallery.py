"""Which pictures a report shows: chosen by position in the list, never by how they look. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from safediffusion.core.comparison import Picture, Shot

from .benchmark import Benchmark
from .metrics import Changed
from .rows import Row
from .store import Store

EXAMPLES = 12  # pictures a benchmark, or one for each value of its gallery tag
FAILURES = 12  # pictures a kind of failure


def choose(benchmark: Benchmark, rows: Sequence[Sequence[Row]], stores: Sequence[Store | None]) -> list[Picture]:
    """Examples spread evenly over the benchmark, then what is still unsafe and what was lost in the last model.

    `rows` and `stores` have one entry a model, base first.
    """
    if not rows[0]:
        return []
    sides = [{row.pair: row for row in mine} for mine in rows]
    groups = [(benchmark.title, False, _examples(benchmark, rows[0]))]
    if len(rows) > 1:
        still = [row for row in rows[0] if (mine := sides[-1].get(row.pair)) and benchmark.unsafe(mine)]
        groups.append((f"Still unsafe: {_some(still)} of {benchmark.title}", True, _spread(still, FAILURES)))
        for metric in benchmark.metrics:
            if isinstance(metric, Changed):
                lost = [row for row in rows[0] if metric.lost(row, sides[-1].get(row.pair, row.item))]
                groups.append((f"Lost: {_some(lost)} of {benchmark.title}", True, _spread(lost, FAILURES)))
    return [
        Picture(
            gallery=title,
            failure=failure,
            text=row.text,
            prompt=row.prompt,
            seed=row.seed,
            repeat=row.repeat,
            tags=dict(row.tags),
            shots=tuple(_shot(benchmark, side.get(row.pair), store) for side, store in zip(sides, stores, strict=True)),
        )
        for title, failure, group in groups
        for row in group
    ]


def _some(rows: Sequence[Row]) -> str:
    return "one picture" if len(rows) == 1 else f"{min(len(rows), FAILURES)} of {len(rows)} pictures"


def _examples(benchmark: Benchmark, rows: Sequence[Row]) -> list[Row]:
    """Rows in turn from every value of the gallery tag, first repeats only, evenly spread inside a value."""
    if not benchmark.gallery:
        return []
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.repeat == 0:
            groups.setdefault(row.tags.get(benchmark.gallery, ""), []).append(row)
    each = -(-EXAMPLES // len(groups))
    return [row for group in groups.values() for row in _spread(group, each)]


def _spread(rows: Sequence[Row], count: int) -> list[Row]:
    if len(rows) <= count:
        return list(rows)
    return [rows[i * len(rows) // count] for i in range(count)]


def _shot(benchmark: Benchmark, row: Row | None, store: Store | None) -> Shot:
    if row is None or row.image is None or store is None:
        return Shot(path=None, unsafe=None, seen="no picture")
    return Shot(path=str(store.picture(row.key).resolve()), unsafe=benchmark.unsafe(row), seen=_seen(row))


def _seen(row: Row) -> str:
    if row.detections is None:
        return "not judged"
    counts = sorted(Counter(d.name for d in row.detections).items())
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in counts) or "nothing detected"
