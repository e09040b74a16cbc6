"""The first two acts: draw the pictures that are missing, judge those without a row.

Pictures are drawn in tiles: fixed neighbours of a benchmark's list, always sent through the network together. A tile is
the unit that processes share out, and a kill costs at most one round of tiles. Because a picture always has the same
neighbours, its bytes do not depend on the number of processes, on the order of work or on what was there before.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch

from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.noise import Generators, Noise
from safediffusion.diffusion.denoise import Plan, denoise
from safediffusion.models.policy import Policy

from .benchmark import Benchmark
from .examine import Examiner, Said, beside, prompts_of, same_judges, unsettled
from .owners import added, adders, judges_of
from .pixels import as_pixels
from .rows import Row
from .store import Pixels, Store

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to evaluate.

    `batch` is how many pictures are handled between two writes. On an accelerator it is also the number the network
    sees at once; on a CPU that number is `tile_of`, so that any batch gives the same bytes. `model` says whose pictures
    these are and goes into eval.json. `replace` deletes what the folder holds of other weights or prompts, instead of
    refusing. `format` is how they are written, "png" or "webp"; None is the folder's own, or
    PNG in a new one.
    """

    plan: Plan
    batch: int = 64
    limit: int | None = None
    format: str | None = None
    replace: bool = False
    model: Mapping[str, str] = field(default_factory=dict)


def at_least_one(name: str, value: int) -> None:
    """UserError when it is not."""
    if value < 1:
        raise UserError(f"{name} is {value}; it must be at least 1")


@dataclass(frozen=True, slots=True)
class Tile:
    benchmark: Benchmark
    rows: tuple[Row, ...]


def tile_of(latent_shape: tuple[int, ...], device: torch.device, batch: int) -> int:
    """Pictures a network call: on a CPU 16 small latents (more is no faster) down to 1 large one."""
    if device.type != "cpu":
        return batch
    return max(1, min(16, 65_536 // math.prod(latent_shape)))


def tiles(benchmarks: Sequence[Benchmark], items: Sequence[Row], size: int) -> list[Tile]:
    out = []
    for benchmark in benchmarks:
        own = [item for item in items if item.benchmark == benchmark.name]
        for pixels in dict.fromkeys(item.size for item in own):
            mine = [item for item in own if item.size == pixels]
            out += [Tile(benchmark, tuple(mine[start : start + size])) for start in range(0, len(mine), size)]
    return out


@torch.no_grad()
def fill(
    policy: Policy, store: Store, work: Sequence[Tile], *, fleet: Fleet, options: Options, progress: Progress
) -> dict[str, float]:
    """Draw and judge what is missing in this process's share of `work`; seconds by kind of work."""
    mine, judged = work[fleet.rank :: fleet.world], store.judged()
    total = sum(len(tile.rows) for tile in mine)
    spent = dict.fromkeys(("generate", "write", "judge"), 0.0)
    bench = Bench(store, fleet, judged, device=policy.device)
    done, pending = 0, list[Row]()
    for tile in mine:
        if not all(row.key in judged and bench.settled(judged[row.key]) for row in tile.rows):
            examine = bench.examiner(tile.benchmark)
            bench.note()
            pixels, digests = _pictures(policy, store, tile.rows, options.plan, spent)
            start = time.perf_counter()
            pending += [_beside(row, judged, bench) for row in examine(tile.rows, pixels, digests)]
            spent["judge"] += time.perf_counter() - start
        done += len(tile.rows)
        if len(pending) >= options.batch:
            store.append(pending, rank=fleet.rank, world=fleet.world)
            pending = []
        progress(done, total)
    store.append(pending, rank=fleet.rank, world=fleet.world)
    return spent


def _beside(fresh: Row, judged: Mapping[str, Row], bench: Bench) -> Row:
    """With what else was said of the same picture; a judgement is not lost to a later one that failed."""
    before = judged.get(fresh.key)
    return fresh if before is None or before.image != fresh.image else beside(fresh, bench.kept(before))


class Bench:
    """The examiners of an evaluation, each loaded when it is first asked for, and what `judged` has of their words."""

    def __init__(self, store: Store, fleet: Fleet, judged: Mapping[str, Row], *, device: torch.device | str) -> None:
        self._store, self._fleet, self._device = store, fleet, device
        self._before, self._adders = judges_of(store), adders(store)
        self._made: dict[str, Examiner] = {}
        self._noted: dict[str, object] = {}
        self._said = self._words(judged.values())
        self._known = {row.benchmark for row in judged.values() if self._said[row.benchmark].some(row)}

    def examiner(self, benchmark: Benchmark) -> Examiner:
        """UserError when this benchmark has rows that others judged."""
        name, folder = benchmark.name, self._store.folder
        if name not in self._made:
            made = Examiner.of(benchmark, self._device)
            if name in self._known:
                command = f"judge {shlex.quote(str(folder))} --again"
                same_judges(self._before.get(name, ()), made.identities, f"the rows of {name} in {folder}", command)
            self._made[name] = made
        return self._made[name]

    def note(self) -> None:
        """Write down who the examiners are that were loaded; before they judge."""
        named = {key: list(map(asdict, each.identities)) for key, each in self._made.items() if each.identities}
        if named != self._noted:
            self._store.note_judges(named, rank=self._fleet.rank, world=self._fleet.world)
            self._noted = dict(named)

    def settled(self, row: Row) -> bool:
        """Whether all was said of its picture that the benchmark's own judges and scorers say."""
        return row.benchmark in self._said and self._said[row.benchmark].all(row)

    def kept(self, row: Row) -> Row:
        """What stays of a row until its picture is judged: words of these very judges, and columns of others."""
        said = self._said.get(row.benchmark)
        return row if said is not None and said.some(row) else unsettled(row, self._added(row.benchmark))

    def count(self, rows: Iterable[Row], part: Iterable[Row]) -> int:
        """How many of `part` are judged in full, going by what `rows`, all of the folder's, have."""
        said = self._words(rows)
        return sum(said[row.benchmark].all(row) for row in part)

    def _words(self, rows: Iterable[Row]) -> dict[str, Said]:
        groups: dict[str, list[Row]] = {}
        for row in rows:
            groups.setdefault(row.benchmark, []).append(row)
        return {name: Said.of(mine, self._added(name)) for name, mine in groups.items()}

    def _added(self, benchmark: str) -> frozenset[str]:
        """The columns of others."""
        made = self._made.get(benchmark)
        return added(self._adders, self._before.get(benchmark, ()) if made is None else made.identities)


def _pictures(
    policy: Policy, store: Store, rows: Sequence[Row], plan: Plan, spent: dict[str, float]
) -> tuple[list[Pixels], list[str]]:
    """Pixels and digest of the file of every row of a tile; drawn together when one of them is not on disk."""
    saved = [store.open(row.key) for row in rows]
    if all(picture is not None for picture in saved):
        return [p for p in saved if p is not None], [store.digest(row.key) or "" for row in rows]
    start = time.perf_counter()
    drawn = draw(policy, rows, plan)
    middle = time.perf_counter()
    digests = [store.save(row.key, picture) for row, picture in zip(rows, drawn, strict=True)]
    spent["generate"] += middle - start
    spent["write"] += time.perf_counter() - middle
    return drawn, digests


def draw(policy: Policy, rows: Sequence[Row], plan: Plan) -> list[Pixels]:
    """The pictures of these rows, all of one size and benchmark, as one batch: uint8 [H, W, 3] each."""
    (size,) = {row.size for row in rows}
    policy = policy if size is None else policy.resized(size)
    if any(row.guidance is not None for row in rows):
        assert isinstance(plan.guidance, float)
        plan = replace(plan, guidance=tuple(plan.guidance if r.guidance is None else r.guidance for r in rows))
    latents, _ = denoise(policy, policy.encode(prompts_of(rows)), _noise(rows, policy.latent_shape), plan)
    return list(as_pixels(policy.decode(latents)))


def _noise(rows: Sequence[Row], shape: tuple[int, ...]) -> Noise | Generators:
    (repeats,) = {row.repeats for row in rows}
    if repeats is None:
        return Noise(tuple((row.seed, row.prompt, row.repeat) for row in rows), shape)
    return Generators(tuple((row.seed, row.repeat) for row in rows), shape, repeats)
