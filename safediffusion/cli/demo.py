"""`safediffusion demo`: the whole story on the embedded model, from the base to the report."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from safediffusion.cli.common import device_option, is_main, plan_for
from safediffusion.cli.companions import companions, fitting, processes_option
from safediffusion.cli.evaluate import Asked, evaluate_model
from safediffusion.cli.stopped import resumable
from safediffusion.cli.train import train_run

if TYPE_CHECKING:
    from safediffusion.config.schema import Recipe
    from safediffusion.core.comparison import Comparison
    from safediffusion.train.run import RunResult

RECIPE = "emoji-steer-direct"  # the best of what was measured: docs/results.md


class Stopwatch:
    """Seconds by part over all sessions of a demo, kept in a file; a session that is killed does not count."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.seconds: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            if is_main():
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._file.write_text(json.dumps(self.seconds, indent=1) + "\n")

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def summary(comparison: Comparison, result: RunResult, *, wall_s: float) -> dict[str, Any]:
    """What `summary.json` holds: every metric of base and aligned with its interval, and what training took."""
    base, aligned = ({key: asdict(e) for key, e in comparison.estimates(i).items()} for i in (0, 1))
    trained = {
        "wall_s": round(result.wall_s, 1),
        "images": result.images,
        "unet_forwards": result.unet_forwards,
        "steps": result.steps,
    }
    return {"base": base, "aligned": aligned, "train": trained, "wall_s": round(wall_s, 1)}


@click.command("demo", short_help="The whole story on the embedded model, with a report.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--recipe", default=RECIPE, show_default=True, help="What to train by.")
@click.option("--suite", default="emoji-full", show_default=True, help="What to measure before and after.")
@click.option("--out", default="runs/demo", show_default=True, metavar="DIR", help="Where everything goes.")
@processes_option
@device_option
def command(overrides: tuple[str, ...], recipe: str, suite: str, out: str, processes: int | None, device: str) -> None:
    """Measure the embedded model, make it safe, measure it again, and write the report.

    Needs no download and no GPU. Stopped at any moment, the same command goes on where it was.
    """
    from safediffusion.config.check import check
    from safediffusion.config.load import load_recipe

    found = load_recipe(recipe, overrides)
    check(found)
    same = _same(overrides, recipe=recipe, suite=suite, out=out, device=device)
    with (
        resumable(shlex.join(["safediffusion", *same])),
        companions(processes or fitting(device, found.groups), same),
    ):
        _story(found, Path(out), suite=suite, device=device)


def _story(recipe: Recipe, folder: Path, *, suite: str, device: str) -> None:
    watch = Stopwatch(folder / "seconds.json")
    with watch.part("base"):
        _say(1, f"the base model: {recipe.model} on the suite {suite}")
        _measure(recipe.model, suite, folder / "base", device)
    with watch.part("train"):
        _say(2, f"training by {recipe.name}: {recipe.about}")
        result = train_run(recipe, folder / "aligned", device=device, resume=True)
    with watch.part("aligned"):
        _say(3, f"the aligned model on the suite {suite}")
        _measure(f"{recipe.model}+{folder / 'aligned'}", suite, folder / "aligned", device)
    _say(4, "the report")
    if is_main():
        _report(folder, result, watch)


def _measure(model: str, suite: str, folder: Path, device: str) -> None:
    plan = plan_for(model, steps=None, guidance=None, eta=None)
    place = folder / "eval" / suite
    evaluate_model(Asked(model=model, suite=suite, folder=place, plan=plan, device=device), title=folder.name)


def _report(folder: Path, result: RunResult, watch: Stopwatch) -> None:
    from rich.console import Console

    from safediffusion.evaluate.compare import compare
    from safediffusion.report.html import write_report
    from safediffusion.report.terminal import show

    with watch.part("report"):
        comparison = compare([folder / "base", folder / "aligned"], names=["base", "aligned"])
        page = write_report(comparison, folder, title="SafeDiffusion demo")
    _write(folder / "summary.json", summary(comparison, result, wall_s=watch.total))
    show(comparison, Console())
    click.echo(
        f"training: {result.wall_s:.0f} s, {result.images:,} images, {result.unet_forwards:,} UNet forwards; "
        f"the whole demo: {watch.total:.0f} s\nreport: {page}"
    )


def _write(path: Path, document: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    partial.replace(path)


def _say(number: int, text: str) -> None:
    if is_main():
        click.echo(f"[{number}/4] {text}")


def _same(overrides: tuple[str, ...], *, recipe: str, suite: str, out: str, device: str) -> list[str]:
    """The command line that does, or goes on with, this demo; the number of processes is free."""
    options = [
        part
        for flag, value, default in (
            ("--recipe", recipe, RECIPE),
            ("--suite", suite, "emoji-full"),
            ("--out", out, "runs/demo"),
            ("--device", device, "auto"),
        )
        if value != default
        for part in (flag, value)
    ]
    return ["demo", *options, *overrides]
