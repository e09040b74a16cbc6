"""The second act again: judgements or a new column over pictures that are already saved. Nothing is generated."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.scorers.base import ImageBatch, Scorer

from .benchmark import Benchmark, Suite, identities_of
from .examine import beside, columns, prompts_of, same_judges, without
from .generate import Bench, Progress, at_least_one
from .owners import adders, admit, drop_stale, judges_of, same_version
from .pixels import as_tensor
from .rows import Row
from .run import reduce
from .saved import Task, through
from .store import Pixels, Store, find, write_json
from .watch import Failed

Load = Callable[[str, Path], Benchmark]


def judge(
    folder: Path,
    load: Load,
    *,
    batch: int = 64,
    device: torch.device | str = "cpu",
    again: bool = False,
    progress: Progress = lambda done, total: None,
) -> dict[str, int]:
    """Let each benchmark's own judges see its saved pictures of which they have not said all; `score`'s counts.

    `load` gives the benchmark of a name for an evaluation's folder. With `again` all are judged, and what fails
    then has no judgement, so that no folder holds those of two judges. Columns that were added stay as they are.

    UserError, before anything is written, when other judges spoke of these pictures or the folder was asked another
    version of a benchmark.
    """
    at_least_one("batch", batch)
    tasks = [_judging(store, load, device=device, again=again) for store in _stores(folder)]
    return through(tasks, batch, progress)


def _judging(store: Store, load: Load, *, device: torch.device | str, again: bool) -> Task:
    rows = {row.key: row for row in store.pictured()}
    names = dict.fromkeys(row.benchmark for row in rows.values())
    benchmarks = {name: load(name, store.folder) for name in names}
    for benchmark in benchmarks.values():
        same_version(benchmark, store.read_manifest(), f"{store.folder} was asked")
    seen = [row for row in rows.values() if row.image is not None]
    bench = Bench(store, Fleet(), {} if again else rows, device=device)
    examiners = {name: bench.examiner(benchmarks[name]) for name in dict.fromkeys(row.benchmark for row in seen)}

    def say(part: Sequence[Row], pictures: Sequence[Pixels]) -> list[Row]:
        fresh = examiners[part[0].benchmark](part, pictures, [row.image or "" for row in part])
        return [beside(row, rows[row.key]) for row in fresh]

    def begin() -> None:
        store.replace_rows(rows.values())  # no kill leaves rows of others under the names of these judges
        bench.note()

    def finish() -> None:
        store.consolidate()
        drop_stale(store)
        reduce(Suite(name=store.read_manifest().get("suite", ""), benchmarks=tuple(benchmarks.values())), store)

    return Task(
        store=store,
        rows=rows,
        todo=[bench.kept(row) for row in seen if not bench.settled(row)],
        say=say,
        count=lambda part: bench.count(rows.values(), part),
        begin=begin,
        finish=finish,
    )


@torch.no_grad()
def score(
    folder: Path,
    scorer: Scorer,
    *,
    batch: int = 64,
    device: torch.device | str = "cpu",
    again: bool = False,
    progress: Progress = lambda done, total: None,
) -> dict[str, int]:
    """Add `scores[scorer.name]` to every row in `folder`; how many were scored, unscorable, kept, without a picture.

    The terms or other columns of a scorer are stored beside it, as NAME/TERM.
    Rows that already hold a number are kept unless `again`; UserError when another judge gave it, or when a judge of
    the folder's own benchmarks writes that column. NaN is written as null: unscorable, not 0, as is a picture that
    cannot be read or whose batch failed.
    """
    at_least_one("batch", batch)
    stores = _stores(folder)
    for store in stores:
        _not_own(store, scorer)
    tasks = [_scoring(store, scorer, device=device, again=again) for store in stores]
    return through(tasks, batch, progress)


def _scoring(store: Store, scorer: Scorer, *, device: torch.device | str, again: bool) -> Task:
    rows, name, who = {row.key: row for row in store.rows()}, scorer.name, identities_of(scorer)
    if not again and any(row.score(name) is not None for row in rows.values()):
        what = f"the scores '{name}' in {store.folder}"
        adder = adders(store).get(name)
        same_judges(
            () if adder is None else (adder,),
            who,
            what,
            f"score {shlex.quote(str(store.folder))} --scorer {name} --again",
        )

    def say(part: Sequence[Row], pictures: Sequence[Pixels]) -> list[Row]:
        try:
            found = columns(scorer, ImageBatch(as_tensor(pictures).to(device), prompts_of(part)))
        except Failed:
            return []
        by = tuple(each.mark for each in who)
        fresh = [{column: values[i] for column, values in found.items()} for i in range(len(part))]
        return [beside(replace(row, scores=new, by=by), row) for row, new in zip(part, fresh, strict=True)]

    def finish() -> None:
        manifest = store.read_manifest()
        write_json(store.manifest, {**manifest, "scorers": {**manifest.get("scorers", {}), name: _facts(scorer)}})

    seen = [row for row in rows.values() if row.image is not None]
    return Task(
        store=store,
        rows=rows,
        todo=[without(row, name) for row in seen if again or row.score(name) is None],
        say=say,
        count=lambda part: sum(row.score(name) is not None for row in part),
        finish=finish,
    )


def _stores(folder: Path) -> list[Store]:
    stores = [Store(place) for place in find(folder)]
    for store in stores:
        admit(store)
    return stores


def _not_own(store: Store, scorer: Scorer) -> None:
    """UserError when a judge of one of the folder's benchmarks writes these columns itself."""
    names = {scorer.name, *(each.id for each in identities_of(scorer))}
    for benchmark, judges in judges_of(store).items():
        for own in (judge.id for judge in judges if judge.id in names):
            raise UserError(
                f"'{own}' is a judge of {benchmark} in {store.folder} itself, and its columns are there; `score` adds "
                "those of others. For its verdict by other weights judge all anew: "
                f"`safediffusion judge {shlex.quote(str(store.folder))} --again --source {own}=...`, or --encoder"
            )


def _facts(scorer: Scorer) -> dict[str, Any]:
    """What eval.json says of a scorer."""
    named = [asdict(who) for who in identities_of(scorer)]
    return {"higher_is_better": scorer.higher_is_better, **({"judge": named[0]} if named else {})}
