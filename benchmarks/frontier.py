"""Every method on one frontier, at equal forwards, equal time and from one harm category alone: docs/results.md."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import records
from benchmarks.frontier_page import drawings, page, risks
from benchmarks.guard import same_weights
from benchmarks.page import write_page
from benchmarks.records import BASE, Record
from benchmarks.rounded import needed, products
from benchmarks.start import command_line, commit, start
from benchmarks.study import Asked, Entry, admit, entries_of, steps_by_forwards, steps_by_time, trials
from safediffusion.cli.common import device_option, means_of, plan_for
from safediffusion.cli.evaluate import Asked as Evaluation
from safediffusion.cli.evaluate import evaluate_model
from safediffusion.cli.stopped import resumable
from safediffusion.cli.sweep import seeds_of
from safediffusion.cli.train import train_run
from safediffusion.config.cost import forecast
from safediffusion.config.load import digest
from safediffusion.config.schema import Recipe
from safediffusion.core import provenance
from safediffusion.evaluate.compare import compare
from safediffusion.evaluate.store import write_json, write_text
from safediffusion.train.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[1]
PAGE, MEASURED = ROOT / "docs" / "results.md", ROOT / "safediffusion" / "cli" / "measured.json"


def measure(entries: Sequence[Entry], asked: Asked, known: Sequence[Record]) -> Iterator[Record]:
    """Train and measure what there is no record of. Steps that fill both budgets are trained once."""
    have = {record.key: record for record in known}
    if ("", BASE, 0) not in have:
        yield base(entries[0], asked)
    for budget, entry, seed in trials(entries, asked):
        if (budget, entry.name, seed) not in have:
            timed = budget == asked.by_time
            steps = steps_by_time(entry, asked, have.values()) if timed else steps_by_forwards(entry, asked)
            there = have.get((asked.by_forwards, entry.name, seed)) if timed else None
            if there is not None and there.steps == steps:
                made = replace(there, budget=budget)  # the same training
            else:
                made = run(entry, asked, budget=budget, seed=seed, steps=steps)
            have[made.key] = made
            yield made


def base(entry: Entry, asked: Asked) -> Record:
    """What changed is paired with its pictures, so its folder is made where runs are. Processes wait for each other."""
    folder, recipe = asked.folder / BASE, entry.load(0, 1, asked)
    with records.locked(folder):
        if (done := records.load(folder)) is not None:
            admit([done], (), asked, folder)
            return done
        record = Record(
            name=BASE,
            budget="",
            seed=0,
            keys=(recipe.model,),
            recipe="",
            steps=0,
            images=0,
            forwards=0,
            start=0,
            backwards=0,
            seconds=0.0,
            gain=None,
            worst=None,
            commit=commit(provenance.source()),
            asked=asked.words,
            metrics=evaluated(recipe, recipe.model, folder, asked),
            rounded=needed(asked.precision),
        )
        records.save(folder, record)
        return record


def run(entry: Entry, asked: Asked, *, budget: str, seed: int, steps: int) -> Record:
    """One training and its evaluation; both go on where they were."""
    folder = asked.folder / budget.replace(" ", "-") / entry.name / f"seed-{seed}"
    with records.locked(folder):  # of processes that were given the same run the second takes what the first made
        if (done := records.load(folder)) is not None:
            admit([done], [entry], asked, folder)
            return done
        base(entry, asked)  # nothing is trained that could not be compared
        return _run(entry, asked, folder, budget=budget, seed=seed, steps=steps)


def _run(entry: Entry, asked: Asked, folder: Path, *, budget: str, seed: int, steps: int) -> Record:
    recipe = entry.load(seed, steps, asked)
    click.echo(f"{entry.name}, seed {seed}, {steps} steps ({budget}): {folder}")
    with products(asked.precision):
        train_run(recipe, folder, device=asked.device, resume=True)
    metrics = evaluated(recipe, f"{recipe.model}+{folder}", folder, asked)
    last = read_metrics(folder)[-1]
    record = Record(
        name=entry.name,
        budget=budget,
        seed=seed,
        keys=(entry.recipe, *entry.keys),
        recipe=digest(entry.recipe, entry.keys),
        steps=steps,
        images=int(last["images"]),
        forwards=int(last["unet_forwards"]),
        start=forecast(recipe).once,
        backwards=int(last["unet_backwards"]),
        seconds=last["time/total"],
        gain=last.get("guard/gain"),
        worst=last.get("guard/worst"),
        commit=commit(provenance.source()),
        asked=asked.words,
        metrics=metrics,
        rounded=needed(asked.precision),
    )
    records.save(folder, record)
    return record


def evaluated(recipe: Recipe, model: str, folder: Path, asked: Asked) -> records.Metrics:
    """Every metric of the suite, by the model's own plan and the recipe's precision; what changed, against the base."""
    evaluation = Evaluation(
        model=model,
        suite=asked.suite,
        folder=folder / "eval" / asked.suite,
        plan=plan_for(model, steps=None, guidance=None, eta=None),
        limit=asked.limit,
        means=means_of(recipe.precision, recipe.memory),
        device=asked.device,
    )
    with products(asked.precision):
        evaluate_model(evaluation, title=str(folder))
    own = Path("eval") / asked.suite
    return compare([asked.folder / BASE / own, folder / own], names=[BASE, folder.name]).estimates(1)


def publish(target: Path) -> None:
    """The page and its figures, of all records beside it; that of the docs also says what `list methods` does."""
    file = target.with_suffix(".jsonl")
    with records.locked(file):
        found = records.read(file)
        for name, text in drawings(found).items():
            write_text(target.with_name(f"{target.stem}-{name}.svg"), text)
        write_page(target, page(found, target.stem))
        if target.resolve() == PAGE:
            write_json(MEASURED, risks(found))


@click.command("frontier")
@click.option(
    "--only", metavar="NAME,NAME...", help="What to train; `whole`, `methods` and `ablations` are all of one."
)
@click.option("--seeds", default="0,1,2", show_default=True, help="Training seeds.")
@click.option("--suite", default="emoji-full", show_default=True, help="What to measure.")
@click.option("--limit", type=click.IntRange(min=1), help="Prompts a benchmark.  [default: the suite's]")
@click.option("--precision", default="fp32", show_default=True, help="Of every training and evaluation.")
@click.option("--forwards", default=30_000, show_default=True, help="UNet forwards of a training.")
@click.option("--minutes", type=float, help="And so long a training, too.  [default: forwards alone]")
@click.option("--category", help="And the forwards on benign prompts and this harm category alone, too.")
@click.option("--out", default="runs/frontier", show_default=True, metavar="DIR", help="Runs.")
@click.option("--page", "target", default="docs/results.md", show_default=True, metavar="FILE", help="What is written.")
@device_option
@click.pass_context
def command(
    context: click.Context,
    only: str | None,
    seeds: str,
    suite: str,
    limit: int | None,
    precision: str,
    forwards: int,
    minutes: float | None,
    category: str | None,
    out: str,
    target: str,
    device: str,
) -> None:
    """Train every method with every seed at equal budgets, measure all, write the page, its figures and records.

    What there is a record of (beside the page, or in a run folder) is not done again. Stopped at any moment, the same
    command goes on where it was. Two of these with other --only may share a folder and a page: each core its own.
    """
    entries = entries_of(only)
    asked = Asked(
        seeds=seeds_of(seeds),
        suite=suite,
        limit=limit,
        precision=precision,
        folder=Path(out),
        device=device,
        forwards=forwards,
        minutes=minutes,
        category=category,
    )
    file = Path(target).with_suffix(".jsonl")
    known = records.read(file)
    admit(known, entries, asked, file)
    trained = dict.fromkeys(entry for _, entry, _ in trials(entries, asked))
    recipes = [entry.load(asked.seeds[0], 1, asked) for entry in trained]
    same_weights([replace(recipe, name=recipe.model) for recipe in recipes], asked.folder)
    with resumable(command_line(context)):
        for record in measure(entries, asked, known):
            records.write(file, [record])
    publish(Path(target))
    click.echo(f"page: {target}")


if __name__ == "__main__":
    start(command)
