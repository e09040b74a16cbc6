"""What trained and measured runs of the frontier gave, one JSON line a run: what its page is made from.

Run folders are large and stay where they were made; the records are small and are kept beside the page, so that a
study goes on with other seeds or methods wherever they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from filelock import FileLock

from safediffusion.core.errors import UserError
from safediffusion.core.pooled import Pooled, pool
from safediffusion.core.stats import Estimate
from safediffusion.evaluate.store import read_json, write_json, write_text

FILE = "record.json"  # in a run folder
BASE = "base"
OWN = "its own steps"  # the budget of a run to its recipe's end
DIGITS = 6  # of a value that is kept
_ALONE = " as the only harm category"
Metrics = Mapping[str, Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run; the base is one without training."""

    name: str
    budget: str  # in words; "" of the base
    seed: int
    keys: tuple[str, ...]  # the recipe and what was changed in it
    recipe: str  # digest of both, as `config.load.digest`; "" of the base
    steps: int
    images: int
    forwards: int
    start: int  # of them before the first update, by the forecast
    backwards: int
    seconds: float  # of training alone
    gain: float | None  # reward of the guard's panel over the base's, in standard deviations of the latter's pictures
    worst: float | None  # share of its tolerance that the worst measure of the panel used up at the end
    commit: str
    asked: str  # the suite, its limit and the precision: only runs that were asked alike are compared
    metrics: Metrics
    rounded: bool = False  # its products of bf16 were computed in fp32 and rounded, as `benchmarks.rounded`

    @property
    def key(self) -> tuple[str, str, int]:
        return self.budget, self.name, self.seed


def kind(budget: str) -> str:
    """`whole`, `category`, `forwards`, `minutes`, or nothing of the base: a page has one budget of each."""
    return "whole" if budget == OWN else next((k for k in ("category", "forwards", "minutes") if k in budget), "")


def in_category(budget: str, category: str) -> str:
    return f"{budget}, {category}{_ALONE}"


def category_of(budget: str) -> str | None:
    """The harm category that was trained on alone; None where all were."""
    return budget.removesuffix(_ALONE).rpartition(", ")[2] if budget.endswith(_ALONE) else None


def save(folder: Path, record: Record) -> None:
    write_json(folder / FILE, _plain(record))


def load(folder: Path) -> Record | None:
    """Of a run folder; None before the run was measured. UserError when the file is no record."""
    if not (folder / FILE).is_file():
        return None
    try:
        return _record(read_json(folder / FILE))
    except (TypeError, KeyError) as error:
        raise UserError(f"{folder / FILE} is no record of a run ({error}); delete it to measure again") from error


def read(path: Path) -> list[Record]:
    """The records of a file; none where there is no file. UserError names a line that is no record."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(_record(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}, line {number} is no record of a run ({error}); take the line out") from error
    return found


def write(path: Path, records: Iterable[Record]) -> list[Record]:
    """What the file holds afterwards, in order: the given records, and what was there of other runs.

    Processes that share the file wait for each other. UserError where they were not all asked alike.
    """
    with locked(path):
        return _written(path, records)


def locked(path: Path) -> FileLock:
    """Other processes that ask for the same path wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"))


def _written(path: Path, records: Iterable[Record]) -> list[Record]:
    whole = {record.key: record for record in (*read(path), *records)}
    if len(asked := sorted({record.asked for record in whole.values()})) > 1:
        raise UserError(
            f"{path} holds runs measured by {asked[0]} and by {asked[1]}, which cannot be compared; give the same "
            "--suite, --limit and --precision, or another --page"
        )
    ordered = [whole[key] for key in sorted(whole)]
    write_text(path, "".join(json.dumps(_plain(record)) + "\n" for record in ordered))
    return ordered


def pooled(records: Sequence[Record]) -> dict[str, Pooled]:
    """Metric -> the seeds of one method together."""
    keys = dict.fromkeys(key for record in records for key in record.metrics)
    none = Estimate(value=None, low=None, high=None, n=0, missing=0)
    return {key: pool([record.metrics.get(key, none) for record in records], None) for key in keys}


def average(values: Sequence[float | None]) -> float | None:
    """None where one is not known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _record(found: Mapping[str, Any]) -> Record:
    metrics = {key: Estimate(**estimate) for key, estimate in found["metrics"].items()}
    return Record(**{**found, "keys": tuple(found["keys"]), "metrics": metrics})


def _plain(record: Record) -> dict[str, Any]:
    rounded = {key: replace(each, **_rounded(asdict(each))) for key, each in record.metrics.items()}
    return _rounded(asdict(replace(record, metrics=rounded)))


def _rounded(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, DIGITS) if isinstance(value, float) else value for name, value in found.items()}
