"""Whether a constrained run keeps its budgets, by the benchmarks that measure its categories. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, pstdev
from typing import Any

from safediffusion.core.comparison import MET, NOT_MET, UNTOLD, BudgetVerdict, MetricRow
from safediffusion.core.stats import Estimate, mean
from safediffusion.data.fields import categories_of

from .metrics import SEED
from .rows import Row
from .side import Side
from .store import read_json
from .training import read_training, rewards

START, END = "constraint/", "/budget"
FEWEST = 6  # prompts whose mean cost says anything: of fewer all agree by chance in 2^(1 - n) > 5 % of cases


def verdicts(side: Side, index: int, metrics: Sequence[MetricRow]) -> Iterator[BudgetVerdict]:
    """One for every category under a budget and benchmark that measures it; `index` is the side's among the models.

    A benchmark measures a category by its metric of that name of which less is better, a share. Where `score` added
    the constraint's own costs to its pictures, one more by their mean: whether training kept what it was given, or
    the judge sees what those costs do not.
    """
    if side.run is None:
        return
    constraint, learned = _constraint(side), rewards(side.run)
    for category, budget in _budgets(side, constraint).items():
        told = BudgetVerdict(
            model=side.name,
            category=category,
            budget=budget,
            benchmark="",
            estimate=Estimate(value=None, low=None, high=None, n=0, missing=0),
            verdict=UNTOLD,
        )
        own = [row for row in metrics if _measures(row, category) and row.info.benchmark in side.rows]
        if not own:
            yield told
        for row in own:
            name, estimate = row.info.benchmark, row.cells[index].estimate
            told = replace(told, benchmark=name, estimate=estimate, verdict=verdict(estimate, budget))
            yield replace(told, trained_on=bool(side.judges(name) & learned))
            if (found := _cost(side, name, category, constraint)) is not None:
                cost, prompts = found
                said = verdict(cost, budget) if prompts >= FEWEST else UNTOLD
                yield replace(told, estimate=cost, verdict=said, trained_on=True, by=" + ".join(constraint["costs"]))


def verdict(estimate: Estimate, budget: float) -> str:
    """Met or not met only when the whole interval says so, and whatever the pictures that are missing show."""
    low, high = estimate.low, estimate.high
    if low is None or high is None:
        return UNTOLD
    if high <= budget:
        return UNTOLD if estimate.missing else MET
    return NOT_MET if low * estimate.n / (estimate.n + estimate.missing) > budget else UNTOLD


def _measures(row: MetricRow, category: str) -> bool:
    info = row.info
    return info.key.rpartition("/")[2] == category and info.unit == "share" and not info.higher_is_better


def _cost(side: Side, benchmark: str, category: str, constraint: Mapping[str, Any]) -> tuple[Estimate, int] | None:
    """The mean cost of a category's pictures, as training measures it, and of how many prompts they are.

    None unless every cost is among the columns.
    Of a cost that is an ensemble by itself its terms (columns `NAME/TERM`) are the members, as in training; a judge is
    one by its own score, whatever columns it has beside.
    """
    names = [str(name) for name in constraint["costs"]]
    scored = side.manifests.get(benchmark, {}).get("scorers", {})
    if not set(names) <= set(scored):
        return None
    rows = [row for row in side.rows[benchmark] if category in (row.tags.get("category"), *categories_of(row.tags))]
    spread = float(constraint.get("std", 1.0))
    known = dict.fromkeys(column for row in rows for column in row.scores)
    made = [name for name in names if "judge" not in scored[name]]
    terms = {name: [column for column in known if column.startswith(f"{name}/")] for name in made}
    members = [member for name in names for member in terms.get(name) or [name]]

    def value(row: Row) -> float | None:
        found = [score for name in members if (score := row.score(name)) is not None]
        return fmean(found) + spread * pstdev(found) if len(found) == len(members) else None

    values = [value(row) for row in rows]
    measured = {row.prompt for row, cost in zip(rows, values, strict=True) if cost is not None}
    return mean(values, seed=SEED, clusters=[row.prompt for row in rows]), len(measured)


def _constraint(side: Side) -> Mapping[str, Any]:
    config = read_json(side.run / "run.json").get("config") if side.run is not None else None
    found = config.get("constraint") if isinstance(config, dict) else None
    return found if isinstance(found, dict) else {}


def _budgets(side: Side, constraint: Mapping[str, Any]) -> dict[str, float]:
    """Those the recipe names, and those that one number gave to the other categories, as training logged them."""
    if not constraint.get("costs"):
        return {}
    logged = {key[len(START) : -len(END)]: points[-1][1] for key, points in read_training(side.run).items() if _is(key)}
    named = constraint.get("budgets")
    return logged | ({str(k): float(v) for k, v in named.items()} if isinstance(named, dict) else {})


def _is(key: str) -> bool:
    return key.startswith(START) and key.endswith(END)
