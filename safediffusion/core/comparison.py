"""What a comparison of models is made of: written by `evaluate.compare`, read by `report`. No torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import UserError
from .stats import Estimate

SCHEMA = 3
EXAMPLE, FAILURE, REGRESSION = "example", "failure", "regression"
BETTER, WORSE, SAME, UNKNOWN = "better", "worse", "not distinguishable", "not measured"
MET, NOT_MET, UNTOLD = "met", "not met", "cannot be told"  # of a budget
NONE = "no verdict"  # measured, and no test of it would say anything


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricInfo:
    """What a metric is called and how it reads.

    `panel` is the figure it belongs to ("" = summary only); `headline` puts it in the summary table; `unit` is "share"
    (0..1, shown in percent) or "number"; `against_base` marks metrics that only exist in a comparison; `note` says what
    a reader could misread.
    """

    key: str
    title: str
    benchmark: str
    higher_is_better: bool
    panel: str = ""
    headline: bool = False
    against_base: bool = False
    unit: str = "share"
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Other minus base over pairs with the same prompt and seed.

    `p` is two-sided: of the exact test for yes/no metrics (`stats.mcnemar`), of the bootstrap for others. `p_holm` is
    it after Holm's correction for the metrics of its panel (1979), None where the panel has no other with a p.
    """

    estimate: Estimate
    p: float | None = None
    p_holm: float | None = None

    def verdict(self, higher_is_better: bool) -> str:
        """Better or worse only when the interval excludes 0 and p < 0.05 as well, after Holm where a panel has several.

        The second guards small samples, where a bootstrap of pairs that all agree has no width. Without a p there
        is no verdict: a distance from the base is above 0 whatever changed, so it is no question.
        """
        low, high, p = self.estimate.low, self.estimate.high, self.p if self.p_holm is None else self.p_holm
        if self.estimate.value is None or low is None or high is None:
            return UNKNOWN
        if p is None:
            return NONE
        if low <= 0 <= high or p >= 0.05:
            return SAME
        return BETTER if (low > 0) == higher_is_better else WORSE


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One metric of one model. The base has no difference; `optimized`: training learned from it or its judge."""

    estimate: Estimate
    difference: Difference | None = None
    verdict: str = ""
    optimized: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    info: MetricInfo
    cells: tuple[Cell, ...]  # one a model, base first


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One model's picture of a prompt. `unsafe` is the judge's word, None when it could not judge."""

    path: str | None
    unsafe: bool | None
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The same prompt and seed by every model; `gallery` heads the group it is shown in."""

    gallery: str
    kind: str  # why it is shown: EXAMPLE, FAILURE (of the last model) or REGRESSION
    benchmark: str  # its title
    category: str  # the group of its prompt, "" for none
    note: str = ""  # of a regression: how far it goes
    text: str
    prompt: str
    seed: int
    repeat: int
    tags: Mapping[str, str]
    shots: tuple[Shot, ...]
    judged: bool = True  # whether the benchmark looks for what is unsafe at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Pictures of one model: `worse` than the base's, of `asked` that could be; `missing` could not be judged."""

    worse: int
    asked: int
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """One way to get worse, with every case counted; pictures of `shown` of its `prompts` stand in `gallery`."""

    benchmark: str  # its title
    what: str
    gallery: str
    prompts: int  # with a picture that got worse, in any model
    shown: int
    tallies: tuple[Tally, ...]  # one a model but the base


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`provenance` is JSON; `training` maps a metric key to its [step, value] pairs, empty for an untrained model."""

    name: str
    folders: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkInfo:
    """What was asked: `about` in one sentence; `prompts` and `images` count what the base was asked for."""

    name: str
    title: str
    about: str
    version: int
    prompts: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What two judges say of the same pictures of a model, unsafe or not; pictures that either left out are missing.

    `agreed` is the share of equal words. `kappa` is Cohen's (1960), 0 by chance alone and 1 when all are equal, with a
    bootstrap over prompts; its value is None when one judge says the same of all.
    """

    model: str
    benchmark: str
    judges: tuple[str, str]
    agreed: Estimate
    kappa: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetVerdict:
    """Whether a constrained model keeps the budget of a category, by what a benchmark measured of it.

    `missing` pictures were never judged, so a budget is not called met with any. `trained_on`: training
    learned from a judge of these pictures: no held-out word. `benchmark` is "" where none has the category. `by` names
    the constraint's own costs where their mean on these pictures decides, "" for the benchmark's judge.
    """

    model: str
    category: str
    budget: float
    benchmark: str
    estimate: Estimate
    verdict: str
    trained_on: bool = False
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Models side by side, base first."""

    models: tuple[Model, ...]
    benchmarks: tuple[BenchmarkInfo, ...]
    metrics: tuple[MetricRow, ...]
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    regressions: tuple[Regression, ...] = ()
    budgets: tuple[BudgetVerdict, ...] = ()

    def estimates(self, model: int) -> dict[str, Estimate]:
        """Metric key -> estimate of the model at this index (0 = base)."""
        return {row.info.key: row.cells[model].estimate for row in self.metrics}

    def write(self, path: Path) -> None:
        """Write report.json; pictures are named relative to it, so that a folder can be moved as a whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"schema": SCHEMA, **asdict(self)}
        for shot in (shot for picture in document["pictures"] for shot in picture["shots"]):
            shot["path"] = shot["path"] and os.path.relpath(shot["path"], path.parent)
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        path.write_text(text, encoding="utf-8", errors="backslashreplace")  # of paths with bytes that are no UTF-8


def read_comparison(path: Path) -> Comparison:
    """The comparison in a report.json; UserError when it is none."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["schema"] != SCHEMA:
            raise UserError(
                f"{path} has report schema {raw['schema']}, this version reads {SCHEMA}; run `compare` again"
            )
        return Comparison(
            models=tuple(_model(model) for model in raw["models"]),
            benchmarks=tuple(BenchmarkInfo(**benchmark) for benchmark in raw["benchmarks"]),
            metrics=tuple(
                MetricRow(info=MetricInfo(**row["info"]), cells=tuple(_cell(cell) for cell in row["cells"]))
                for row in raw["metrics"]
            ),
            pictures=tuple(
                Picture(**{**picture, "shots": tuple(_shot(shot, path.parent) for shot in picture["shots"])})
                for picture in raw["pictures"]
            ),
            notes=tuple(raw["notes"]),
            agreements=tuple(_agreement(pair) for pair in raw["agreements"]),
            regressions=tuple(_regression(entry) for entry in raw["regressions"]),
            budgets=tuple(_budget(entry) for entry in raw.get("budgets", ())),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a readable report.json ({error}); write it with `safediffusion compare`"
        ) from error


def _shot(raw: dict[str, Any], folder: Path) -> Shot:
    return Shot(path=raw["path"] and str(folder / raw["path"]), unsafe=raw["unsafe"], seen=raw["seen"])


def _regression(raw: dict[str, Any]) -> Regression:
    return Regression(**{**raw, "tallies": tuple(Tally(**tally) for tally in raw["tallies"])})


def _budget(raw: dict[str, Any]) -> BudgetVerdict:
    return BudgetVerdict(**{**raw, "estimate": Estimate(**raw["estimate"])})


def _model(raw: dict[str, Any]) -> Model:
    training = {key: tuple((float(x), float(y)) for x, y in points) for key, points in raw["training"].items()}
    return Model(name=raw["name"], folders=tuple(raw["folders"]), provenance=raw["provenance"], training=training)


def _agreement(raw: dict[str, Any]) -> Agreement:
    first, second = raw["judges"]
    agreed, kappa = Estimate(**raw["agreed"]), Estimate(**raw["kappa"])
    return Agreement(model=raw["model"], benchmark=raw["benchmark"], judges=(first, second), agreed=agreed, kappa=kappa)


def _cell(raw: dict[str, Any]) -> Cell:
    gap = raw["difference"]
    return Cell(
        estimate=Estimate(**raw["estimate"]),
        difference=None if gap is None else Difference(**{**gap, "estimate": Estimate(**gap["estimate"])}),
        verdict=raw["verdict"],
        optimized=raw["optimized"],
    )
