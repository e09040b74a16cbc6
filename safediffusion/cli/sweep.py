"""`safediffusion sweep`: a recipe with some keys varied, every combination trained, measured and compared."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from safediffusion.cli.common import device_option, is_main, means_of, plan_for, writable
from safediffusion.cli.companions import companions, fitting, launched, processes_option
from safediffusion.cli.evaluate import Asked, evaluate_model
from safediffusion.cli.stopped import resumable
from safediffusion.cli.train import train_run
from safediffusion.core.errors import Diverged, UserError

if TYPE_CHECKING:
    from safediffusion.config.schema import Recipe
    from safediffusion.report.sweep import Measured


NO_WEIGHTS = "stopped by its guard, no weights to take"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One combination of the varied keys; a run a seed."""

    name: str
    keys: dict[str, str]
    recipes: tuple[Recipe, ...]  # one a seed

    @property
    def slug(self) -> str:
        """Its folder: the same for the same keys and values, whatever else is swept."""
        plain = re.sub(r"[^A-Za-z0-9._=-]+", "-", self.name).strip("-")[:60]
        return f"{plain}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What is trained and measured, and where: base/, POINT/seed-N/, report.html, sweep.json, sweep.csv."""

    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    suite: str
    folder: Path
    device: str

    @property
    def model(self) -> str:
        return self.points[0].recipes[0].model

    def runs(self, point: Point) -> tuple[Path, ...]:
        return tuple(self.folder / point.slug / f"seed-{seed}" for seed in self.seeds)


@click.command("sweep", short_help="Train a recipe with keys varied, measure all, draw the frontier.")
@click.argument("recipe")
@click.argument("keys", nargs=-1, required=True, metavar="KEY=V1,V2... [KEY=V...]...")
@click.option("--out", required=True, metavar="DIR", help="Where everything goes.")
@click.option("--seeds", default="0", show_default=True, metavar="N,N...", help="Training seeds of every combination.")
@click.option("--suite", help="What to measure.  [default: full; for emoji emoji-full]")
@processes_option
@device_option
def command(
    recipe: str,
    keys: tuple[str, ...],
    out: str,
    seeds: str,
    suite: str | None,
    processes: int | None,
    device: str,
) -> None:
    """Train RECIPE once for every combination of the values given and for every seed, measure the base and every run.

    Commas part the values of a key, but not within brackets: plan.window=[0,5],[2,7]. A key with one value holds for
    all. Stopped at any moment, the same command goes on where it was; what is trained and measured is not done again.
    """
    from safediffusion.config.check import check

    numbers = seeds_of(seeds)
    points = points_of(recipe, keys, numbers)
    for point in points:
        check(point.recipes[0])
    model = points[0].recipes[0].model
    chosen = suite or ("emoji-full" if model.split("+")[0] == "emoji" else "full")
    asked = Sweep(points=points, seeds=numbers, suite=chosen, folder=writable(Path(out)), device=device)
    line = ["sweep", recipe, *keys, "--out", out, "--seeds", seeds, "--suite", chosen, "--device", device]
    shared = math.gcd(*(point.recipes[0].groups for point in points))
    with resumable(shlex.join(["safediffusion", *line])), companions(processes or fitting(device, shared), line):
        failed = measure(asked)
        if is_main():
            report(asked, failed)
    if failed and is_main():
        raise UserError(
            f"{len(failed)} of {len(points) * len(numbers)} runs of the sweep could not be trained or measured: "
            f"{'; '.join(f'{run}: {why}' for run, why in failed.items())}. The same command tries them again"
        )


def measure(sweep: Sweep) -> dict[Path, str]:
    """Evaluate the base, train and evaluate every run; what is there already is not done again.

    Returns the runs that failed, and why. Of several processes all have to fail alike for the others to be waited for.
    """
    from safediffusion.models.load import without_weights

    _say(f"base: {sweep.model} on the suite {sweep.suite}")
    _evaluate(sweep, sweep.points[0].recipes[0], sweep.folder / "base")
    todo = [(p, r, run) for p in sweep.points for r, run in zip(p.recipes, sweep.runs(p), strict=True)]
    failed: dict[Path, str] = {}
    for number, (point, recipe, run) in enumerate(todo, start=1):
        _say(f"[{number}/{len(todo)}] {point.name}, seed {recipe.seed}: {run}")
        try:
            train_run(recipe, run, device=sweep.device, resume=True)
            if without_weights(run):
                _say(f"{run}: {NO_WEIGHTS}")
            else:
                _evaluate(sweep, recipe, run, trained=True)
        except UserError as error:
            if launched() and not isinstance(error, Diverged):
                raise
            failed[run] = str(error)
            _say(f"{run}: {error}")
    return failed


def _evaluate(sweep: Sweep, recipe: Recipe, folder: Path, *, trained: bool = False) -> None:
    """As `evaluate` of a run of this recipe, with what its section `evaluation` names; its base is drawn alike."""
    from safediffusion.config.kit import kit_of
    from safediffusion.config.parts import build_drawing

    model = f"{recipe.model}+{folder}" if trained else recipe.model
    asked = Asked(
        model=model,
        suite=sweep.suite,
        folder=folder / "eval" / sweep.suite,
        plan=plan_for(model, steps=None, guidance=None, eta=None),
        drawing=build_drawing(recipe),
        means=means_of(recipe.precision, recipe.memory),
        kit=kit_of(recipe.evaluation),
        device=sweep.device,
    )
    evaluate_model(asked, title=str(folder))


def report(sweep: Sweep, failed: Mapping[Path, str]) -> None:
    """report.html with every run as a point of the frontier, sweep.json and sweep.csv with the seeds together.

    Runs that `failed` and those without weights are named, and stand in none of them.
    """
    from rich.console import Console

    from safediffusion.evaluate.compare import compare
    from safediffusion.evaluate.pooled import pooled
    from safediffusion.evaluate.store import write_json, write_text
    from safediffusion.report.frontier import axes
    from safediffusion.report.html import write_report
    from safediffusion.report.sweep import document, standings, table
    from safediffusion.report.terminal import show

    ground, suite = sweep.folder / "base" / "eval" / sweep.suite, Path("eval") / sweep.suite
    runs = [(p.name, seed, run) for p in sweep.points for seed, run in zip(sweep.seeds, sweep.runs(p), strict=True)]
    named = {run: f"{name} seed {seed}" if len(sweep.seeds) > 1 else name for name, seed, run in runs}
    lost = {run: why for run in named if (why := _lost(run, failed))}
    kept = [run for run in named if run not in lost]
    if not kept:
        told = [f"{named[run]}: {why}" for run, why in lost.items()]
        click.echo("\n".join(["no run has anything to compare:", *told]))
        return
    comparison = compare([ground, *(run / suite for run in kept)], names=["base", *(named[run] for run in kept)])
    found = [_measured(sweep, point, lost) for point in sweep.points]
    base, pair = comparison.estimates(0), axes(comparison) or ()
    stands = standings(base, found, pair)
    gaps = [f"{each.name}: {each.note}" for each in found if each.note]
    told = [*(f"Seeds together: {each.text}." for each in stands), *(f"{each}." for each in gaps)]
    page = write_report(
        replace(comparison, notes=(*comparison.notes, *told)), sweep.folder, title="SafeDiffusion sweep"
    )
    pooled_keys = pooled([ground], ground)
    rows = [row for row in comparison.metrics if row.info.key in pooled_keys]
    asked = {"model": sweep.model, "suite": sweep.suite, "seeds": list(sweep.seeds)}
    write_json(sweep.folder / "sweep.json", {**asked, **document(base, found, stands, pair)})
    write_text(sweep.folder / "sweep.csv", table(base, found, rows))
    show(comparison, Console())
    click.echo("\n".join([*(each.text for each in stands), *gaps, f"report: {page}"]))


def _lost(run: Path, failed: Mapping[Path, str]) -> str:
    """Why nothing was measured of a run, or nothing."""
    from safediffusion.models.load import without_weights

    return failed.get(run) or (NO_WEIGHTS if without_weights(run) else "")


def _measured(sweep: Sweep, point: Point, lost: Mapping[Path, str]) -> Measured:
    """The seeds of a point together; without values where one of them is lost."""
    from safediffusion.evaluate.pooled import pooled
    from safediffusion.report.sweep import Measured

    runs, suite = sweep.runs(point), Path("eval") / sweep.suite
    gaps = [f"{lost[run]} (seed {seed})" for seed, run in zip(sweep.seeds, runs, strict=True) if run in lost]
    return Measured(
        name=point.name,
        keys=point.keys,
        runs=tuple(map(str, runs)),
        metrics={} if gaps else pooled([run / suite for run in runs], sweep.folder / "base" / suite),
        note="; ".join(gaps),
    )


def points_of(recipe: str, keys: Sequence[str], seeds: Sequence[int]) -> tuple[Point, ...]:
    """Every combination, in the order of the values. UserError where there is nothing to compare."""
    from safediffusion.config.load import load_recipe

    given = [_values(text) for text in keys]
    varied = [key for key, values in given if len(values) > 1]
    if twice := [key for key, _ in given if [name for name, _ in given].count(key) > 1]:
        raise UserError(f"{twice[0]} is given twice; write its values in one, {twice[0]}=V1,V2")
    if "seed" in dict(given):
        raise UserError("seed is not swept, its runs are of one point; use --seeds 0,1,2")
    if not varied:
        raise UserError(f"no key has several values, so there is nothing to sweep; write {given[0][0]}=V1,V2")
    points = []
    for values in itertools.product(*(values for _, values in given)):
        whole = dict(zip((key for key, _ in given), values, strict=True))
        lines = [f"{key}={value}" for key, value in whole.items()]
        own = {key: whole[key] for key in varied}
        recipes = tuple(load_recipe(recipe, [*lines, f"seed={seed}"]) for seed in seeds)
        points.append(Point(name=" ".join(f"{key}={value}" for key, value in own.items()), keys=own, recipes=recipes))
    models = sorted({point.recipes[0].model for point in points})
    if len(models) > 1:
        raise UserError(f"a sweep has one base, these have {' and '.join(models)}; sweep them one after the other")
    if drawn := [key for key in varied if key in ("plan.size", "plan.embedded_guidance")]:
        raise UserError(
            f"{drawn[0]} says how pictures are drawn, and a sweep compares all runs with one base that is drawn once; "
            "sweep its values one after the other"
        )
    return tuple(points)


def _values(text: str) -> tuple[str, list[str]]:
    """KEY=V1,V2 as the key and its values; commas within brackets or quotes part none."""
    key, found, rest = text.partition("=")
    if not found or not key:
        raise UserError(f"'{text}' is no KEY=VALUE; write e.g. objective.kl=0,0.1")
    values, depth, quote, start = [], 0, "", 0
    for place, letter in enumerate(rest):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and depth == 0:
            values.append(rest[start:place])
            start = place + 1
    values.append(rest[start:])
    if len(values) > 1 and ("" in values or len(set(values)) < len(values)):
        raise UserError(f"'{text}' has an empty value or one twice; write each once, e.g. {key}=1,2")
    return key, values


def seeds_of(text: str) -> tuple[int, ...]:
    """0,1,2 as numbers. UserError names what is none."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise UserError(f"--seeds {text} is no list of whole numbers; write e.g. --seeds 0,1,2")
    found = tuple(int(part) for part in text.split(","))
    if len(set(found)) < len(found):
        raise UserError(f"--seeds {text} names a seed twice")
    return found


def _say(text: str) -> None:
    if is_main():
        click.echo(text)
