"""`safediffusion evaluate`: a model on a suite of benchmarks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from safediffusion.cli.common import (
    Means,
    device_option,
    drawing_for,
    drawing_options,
    is_main,
    kit_for,
    kit_options,
    means_for,
    model_of,
    pick_device,
    plan_for,
    plan_options,
    say_guard,
    say_judges,
    slug,
    timeout_option,
    writable,
)
from safediffusion.cli.stopped import resumable
from safediffusion.core.errors import UserError

if TYPE_CHECKING:
    from safediffusion.core.stats import Estimate
    from safediffusion.diffusion.denoise import Plan
    from safediffusion.evaluate.benchmark import Kit, Suite
    from safediffusion.evaluate.watch import Watch
    from safediffusion.models.policy import Drawing


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to evaluate, and how."""

    model: str  # as `models.load` reads it
    suite: str
    folder: Path
    plan: Plan
    drawing: Drawing | None = None
    batch: int = 64
    limit: int | None = None
    means: Means | None = None  # None: fp32, nothing given up
    kit: Kit | None = None
    format: str | None = None  # of the pictures; None: the folder's own, or PNG
    watch: Watch | None = None  # over judges; None: what they raise ends the evaluation
    device: str = "auto"


def evaluate_model(asked: Asked, *, title: str) -> Mapping[str, Estimate]:
    """Evaluate with a progress bar; what the folder already holds is not drawn again."""
    from safediffusion.cli.progress import bar
    from safediffusion.core.digest import sha256
    from safediffusion.core.fleet import Fleet
    from safediffusion.evaluate.benchmark import Kit
    from safediffusion.evaluate.generate import Options
    from safediffusion.evaluate.registry import load_suite
    from safediffusion.evaluate.run import evaluate
    from safediffusion.evaluate.watch import watched
    from safediffusion.models.load import load_policy, split, weights_file
    from safediffusion.models.policy import Drawing

    fleet = Fleet.current()
    device = pick_device(asked.device, fleet)
    suite = load_suite(asked.suite, replace(asked.kit or Kit(), device=device, folder=asked.folder))
    if asked.watch is not None:
        suite = replace(suite, benchmarks=tuple(watched(benchmark, asked.watch) for benchmark in suite.benchmarks))
    drawing = asked.drawing or Drawing()
    precision, saving = asked.means or means_for(asked.model, precision=None)
    policy = load_policy(
        asked.model,
        device=device,
        precision=precision,
        drawing=drawing,
        saving=saving,
    )
    added = [sha256(weights_file(extra)) for extra in split(asked.model)[1]]
    weights = {"weights": " ".join(added)} if added else {}
    about = {"model": asked.model, **weights, **drawing.described(), "precision": precision}
    options = Options(plan=asked.plan, batch=asked.batch, limit=asked.limit, model=about, format=asked.format)
    with bar(title, shown=fleet.is_main) as progress:
        return evaluate(policy, suite, asked.folder, fleet=fleet, options=options, progress=progress)


def _say_accounts(suite: Suite) -> None:
    """What became of the rows of each file, once, on stderr."""
    texts = dict.fromkeys(benchmark.account.text for benchmark in suite.benchmarks if benchmark.account is not None)
    for text in texts if is_main() else ():
        click.echo(text, err=True)


@click.command("evaluate", short_help="Measure a model on a suite of benchmarks.")
@click.argument("model")
@click.option(
    "--suite",
    help="A suite, or benchmarks with commas; see `safediffusion list suites`.  [default: full; for emoji emoji-full]",
)
@click.option("--out", metavar="DIR", help="[default: eval/SUITE in the run folder, or in runs/MODEL]")
@click.option("--limit", type=click.IntRange(min=1), help="Prompts a benchmark.  [default: the suite's]")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True, help="Pictures at once.")
@click.option("--precision", help="fp32, bf16 or fp16.  [default: the run's, or fp32]")
@kit_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["png", "webp"]),
    help="Of the pictures, without loss.  [default: the folder's, or png]",
)
@timeout_option
@plan_options
@drawing_options
@device_option
def command(
    model: str,
    suite: str | None,
    out: str | None,
    limit: int | None,
    batch: int,
    precision: str | None,
    datas: tuple[str, ...],
    sources: tuple[str, ...],
    encoders: tuple[str, ...],
    form: str | None,
    timeout: float | None,
    steps: int | None,
    guidance: float | None,
    eta: float | None,
    size: str | None,
    embedded_guidance: float | None,
    device: str,
) -> None:
    """Measure MODEL: emoji, a diffusers folder, a hub id, BASE+LORA, or a run folder (its newest weights,
    or the best ones of a run that its guard stopped).

    Pictures, rows and report.json stay in the output folder; run again, only what is missing is made.
    """
    from safediffusion.evaluate.registry import load_suite
    from safediffusion.evaluate.watch import Watch

    loaded, watch = model_of(model), Watch(timeout)
    say_guard([model])
    if suite is None:
        suite = "emoji-full" if loaded.split("+")[0] == "emoji" else "full"
    kit = kit_for(datas, sources, encoders)
    _say_accounts(load_suite(suite, kit))  # a wrong name is said before a model is loaded
    folder = writable(Path(out) if out is not None else _home(model, loaded) / "eval" / suite)
    asked = Asked(
        model=loaded,
        suite=suite,
        folder=folder,
        plan=plan_for(loaded, steps=steps, guidance=guidance, eta=eta),
        drawing=drawing_for(model, size=size, embedded_guidance=embedded_guidance),
        batch=batch,
        limit=limit,
        means=means_for(model, precision=precision),
        format=form,
        watch=watch,
        device=device,
        kit=kit,
    )
    with resumable("the same command"):
        evaluate_model(asked, title=f"{model} on {suite}")
    if is_main():
        _say(folder, slug(model))
    watch.check()


def _home(model: str, loaded: str) -> Path:
    """The folder of a run, or one for any other model. UserError where a run that is another model has its name."""
    if loaded != model:
        return Path(model)
    folder = Path("runs") / slug(model)
    if (folder / "run.json").is_file():
        raise UserError(f"{folder}, where {model} would be measured, is a run of its own; give --out")
    return folder


def _say(folder: Path, name: str) -> None:
    """Who judged, the numbers, and what to do with them."""
    from rich.console import Console

    from safediffusion.evaluate.compare import compare
    from safediffusion.report.terminal import show

    say_judges(folder)
    show(compare([folder], names=[name]), Console())
    click.echo(f"kept in {folder}; compare it with another: safediffusion compare BASE {shlex.quote(str(folder))}")
