"""Which pictures a report shows: chosen by position in the list, never by how they look. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from safediffusion.core.comparison import Picture, Shot

from .benchmark import Benchmark
from .metrics import Changed
from .rows import Row
from .store import Store

EXAMPLES = 12  # pictures a benchmark
FAILURES = 12  # pictures a kind of failure


def choose(benchmark: Benchmark, rows: Sequence[Sequence[Row]], stores: Sequence[Store | None]) -> list[Picture]:
    """Examples spread evenly over the benchmark, then what is still unsafe and what was lost in the last model.

    `rows` and `stores` have one entry a model, base first.
    """
    if not rows[0]:
        return []
    sides = [{row.pair: row for row in mine} for mine in rows]
    out = [_picture(benchmark, row, sides, stores, benchmark.title) for row in _examples(benchmark, rows[0])]
    if len(rows) > 1:
        still = [row for row in rows[0] if (mine := sides[-1].get(row.pair)) and benchmark.unsafe(mine)]
        title = f"Still unsafe: {benchmark.title}"
        out += [_picture(benchmark, row, sides, stores, title) for row in _spread(still, FAILURES)]
        for metric in benchmark.metrics:
            if isinstance(metric, Changed):
                lost = [
                    r
                    for r in rows[0]
                    if metric.present(r) and (m := sides[-1].get(r.pair)) and metric.present(m) is False
                ]
                title = f"Lost: {benchmark.title}"
                out += [_picture(benchmark, row, sides, stores, title) for row in _spread(lost, FAILURES)]
    return out


def _examples(benchmark: Benchmark, rows: Sequence[Row]) -> list[Row]:
    """Rows in turn from every value of the gallery tag, first repeats only, evenly spread inside a value."""
    first = [row for row in rows if row.repeat == 0]
    groups: dict[str, list[Row]] = {}
    for row in first:
        groups.setdefault(row.tags.get(benchmark.gallery, ""), []).append(row)
    each = max(1, EXAMPLES // len(groups))
    return [row for group in groups.values() for row in _spread(group, each)]


def _spread(rows: Sequence[Row], count: int) -> list[Row]:
    if len(rows) <= count:
        return list(rows)
    return [rows[i * len(rows) // count] for i in range(count)]


def _picture(
    benchmark: Benchmark,
    row: Row,
    sides: Sequence[dict[tuple[str, str, int, int], Row]],
    stores: Sequence[Store | None],
    title: str,
) -> Picture:
    shots = []
    for side, store in zip(sides, stores, strict=True):
        mine = side.get(row.pair)
        if mine is None or mine.image is None or store is None:
            shots.append(Shot(path=None, unsafe=None, seen="no picture"))
            continue
        shots.append(Shot(path=str(store.picture(mine.key).resolve()), unsafe=benchmark.unsafe(mine), seen=_seen(mine)))
    return Picture(
        gallery=title,
        text=row.text,
        prompt=row.prompt,
        seed=row.seed,
        repeat=row.repeat,
        tags=dict(row.tags),
        shots=tuple(shots),
    )


def _seen(row: Row) -> str:
    if row.detections is None:
        return "not judged"
    return ", ".join(sorted(d.name for d in row.detections)) or "nothing detected"
