"""Every method and ablation on one frontier, at equal UNet forwards and at equal training time: docs/results.md."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import records
from benchmarks.ablations import ABLATIONS, WHOLE
from benchmarks.frontier_page import drawings, page, risks
from benchmarks.guard import same_weights
from benchmarks.page import write_page
from benchmarks.records import BASE, OWN, Record
from benchmarks.start import command_line, commit, start
from safediffusion.cli.common import device_option, means_of, plan_for
from safediffusion.cli.evaluate import Asked as Evaluation
from safediffusion.cli.evaluate import evaluate_model
from safediffusion.cli.methods import METHODS
from safediffusion.cli.stopped import resumable
from safediffusion.cli.sweep import seeds_of
from safediffusion.cli.train import train_run
from safediffusion.config.check import check
from safediffusion.config.cost import forecast
from safediffusion.config.load import load_recipe
from safediffusion.config.schema import Recipe
from safediffusion.core import provenance
from safediffusion.core.errors import UserError
from safediffusion.evaluate.compare import compare
from safediffusion.evaluate.store import write_json, write_text
from safediffusion.train.metrics import read_metrics

MEASURED = Path(__file__).resolve().parents[1] / "safediffusion" / "cli" / "measured.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A method, an ablation of the default recipe, or (`whole`) a recipe that goes to its own end."""

    name: str
    recipe: str
    keys: tuple[str, ...]
    whole: bool = False

    def load(self, seed: int, steps: int, asked: Asked) -> Recipe:
        """Its guard looks once, at the end: no run ends before its budget."""
        scored = bool(load_recipe(self.recipe, self.keys).scorers)  # nothing else can be guarded
        watched = [f"guard.every={steps}", "guard.stop=false"] if scored else []
        own = [*self.keys, "evaluation.every=0", f"precision={asked.precision}", *watched]
        found = load_recipe(self.recipe, [*own, f"seed={seed}", f"steps={steps}"])
        check(found)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the budgets are, and how a run is measured."""

    seeds: tuple[int, ...]
    suite: str
    limit: int | None
    precision: str
    folder: Path
    device: str
    forwards: int
    minutes: float | None

    @property
    def words(self) -> str:
        limited = "" if self.limit is None else f", at most {self.limit} prompts a benchmark"
        return f"{self.suite}{limited}, {self.precision}"

    @property
    def by_forwards(self) -> str:
        return f"at most {self.forwards:,} UNet forwards"

    @property
    def by_time(self) -> str:
        return f"{self.minutes:g} minutes of training"


def entries_of(names: str | None) -> tuple[Entry, ...]:
    """Those of these names, or all there are. UserError names one that does not exist."""
    methods = {name: Entry(name=name, recipe=m.recipe, keys=m.keys) for name, m in METHODS.items()}
    known = methods | {name: Entry(name=name, recipe=a.recipe, keys=a.keys) for name, a in ABLATIONS.items()}
    known |= {name: Entry(name=name, recipe=a.recipe, keys=a.keys, whole=True) for name, a in WHOLE.items()}
    groups = {"whole": tuple(WHOLE), "methods": tuple(METHODS), "ablations": tuple(ABLATIONS)}
    given = tuple(groups) if names is None else tuple(names.split(","))
    chosen = [name for each in given for name in groups.get(each, (each,))]
    if unknown := [name for name in chosen if name not in known]:
        raise UserError(f"--only names '{unknown[0]}'; there are {', '.join([*groups, *known])}")
    return tuple(known[name] for name in dict.fromkeys(chosen))


@cache
def steps_by_forwards(entry: Entry, asked: Asked) -> int:
    """The most steps whose forecast stays within the budget, at least one: a step of some takes more than all of it.

    As many as the recipe has of one that goes to its own end.
    """
    if entry.whole:
        return load_recipe(entry.recipe, entry.keys).steps
    seed = asked.seeds[0]
    one, two = (forecast(entry.load(seed, steps, asked)).forwards for steps in (1, 2))
    return 1 + max(0, (asked.forwards - one) // (two - one))


def measure(entries: Sequence[Entry], asked: Asked, known: Sequence[Record]) -> Iterator[Record]:
    """Train and measure what there is no record of: every seed at equal forwards, then at equal time."""
    have = {record.key: record for record in known}
    if ("", BASE, 0) not in have:
        yield base(entries[0], asked)
    for seed in asked.seeds:
        for entry in entries:
            budget = OWN if entry.whole else asked.by_forwards
            if (budget, entry.name, seed) not in have:
                made = run(entry, asked, budget=budget, seed=seed, steps=steps_by_forwards(entry, asked))
                have[made.key] = made
                yield made
    for seed in asked.seeds if asked.minutes is not None else ():
        for entry in (each for each in entries if not each.whole):
            if (asked.by_time, entry.name, seed) not in have:
                first = [have[asked.by_forwards, entry.name, other] for other in asked.seeds]
                yield run(entry, asked, budget=asked.by_time, seed=seed, steps=steps_by_time(first, asked))


def steps_by_time(runs: Sequence[Record], asked: Asked) -> int:
    """By the seconds a step of the runs at equal forwards took, which were made here."""
    assert asked.minutes is not None
    seconds = sum(record.seconds for record in runs) / sum(record.steps for record in runs)
    return max(1, round(60 * asked.minutes / seconds))


def base(entry: Entry, asked: Asked) -> Record:
    folder, recipe = asked.folder / BASE, entry.load(0, 1, asked)
    record = Record(
        name=BASE,
        budget="",
        seed=0,
        keys=(recipe.model,),
        steps=0,
        images=0,
        forwards=0,
        backwards=0,
        seconds=0.0,
        gain=None,
        worst=None,
        commit=commit(provenance.source()),
        asked=asked.words,
        metrics=evaluated(recipe, recipe.model, folder, asked),
    )
    records.save(folder, record)
    return record


def run(entry: Entry, asked: Asked, *, budget: str, seed: int, steps: int) -> Record:
    """One training and its evaluation; both go on where they were."""
    folder = asked.folder / budget.replace(" ", "-") / entry.name / f"seed-{seed}"
    if (done := records.load(folder)) is not None:
        return done
    recipe = entry.load(seed, steps, asked)
    click.echo(f"{entry.name}, seed {seed}, {steps} steps ({budget}): {folder}")
    train_run(recipe, folder, device=asked.device, resume=True)
    metrics = evaluated(recipe, f"{recipe.model}+{folder}", folder, asked)
    last = read_metrics(folder)[-1]
    record = Record(
        name=entry.name,
        budget=budget,
        seed=seed,
        keys=(entry.recipe, *entry.keys),
        steps=steps,
        images=int(last["images"]),
        forwards=int(last["unet_forwards"]),
        backwards=int(last["unet_backwards"]),
        seconds=last["time/total"],
        gain=last.get("guard/gain"),
        worst=last.get("guard/worst"),
        commit=commit(provenance.source()),
        asked=asked.words,
        metrics=metrics,
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
    evaluate_model(evaluation, title=str(folder))
    own = Path("eval") / asked.suite
    return compare([asked.folder / BASE / own, folder / own], names=[BASE, folder.name]).estimates(1)


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
    out: str,
    target: str,
    device: str,
) -> None:
    """Train every method with every seed at equal budgets, measure all, write the page, its figures and records.

    What there is a record of (beside the page, or in a run folder) is not done again. Stopped at any moment, the same
    command goes on where it was. Two of these with other --only share one folder: each core its own.
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
    )
    file = Path(target).with_suffix(".jsonl")
    recipes = [entry.load(asked.seeds[0], 1, asked) for entry in entries]
    same_weights([replace(recipe, name=recipe.model) for recipe in recipes], asked.folder)
    with resumable(command_line(context)):
        for record in measure(entries, asked, records.read(file)):
            records.write(file, [record])
    found = records.read(file)
    for name, text in drawings(found).items():
        write_text(file.with_name(f"{file.stem}-{name}.svg"), text)
    write_page(Path(target), page(found, file.stem))
    if measured := risks(found):  # a page of other runs says nothing of the methods
        write_json(MEASURED, measured)
    click.echo(f"page: {target}")


if __name__ == "__main__":
    start(command)
