"""What a study of the frontier trains and how it measures, and that records are of the same study. No training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from benchmarks.ablations import ABLATIONS, WHOLE
from benchmarks.records import OWN, Record, category_of, in_category, kind
from safediffusion.cli.methods import METHODS
from safediffusion.config.check import check
from safediffusion.config.cost import Forecast, forecast
from safediffusion.config.load import digest, load_recipe
from safediffusion.config.schema import Recipe
from safediffusion.core.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A method, a recipe with one choice changed, or (`whole`) a recipe that goes to its own end."""

    name: str
    recipe: str
    keys: tuple[str, ...]
    whole: bool = False

    def load(self, seed: int, steps: int, asked: Asked) -> Recipe:
        """Its guard looks once, at the end: no run ends before its budget."""
        watched = [f"guard.every={steps}", "guard.stop=false"]
        own = [*self.keys, "evaluation.every=0", f"precision={asked.precision}", *watched]
        found = load_recipe(self.recipe, [*own, f"seed={seed}", f"steps={steps}"])
        check(found)
        return found

    def within(self, budget: str) -> Entry:
        """Trained on benign prompts and one harm category, where the budget is of one."""
        category = category_of(budget)
        return self if category is None else replace(self, keys=(*self.keys, f"prompts.unsafe.categories=[{category}]"))


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
    category: str | None

    @property
    def words(self) -> str:
        limited = "" if self.limit is None else f", at most {self.limit} prompts a benchmark"
        return f"{self.suite}{limited}, {self.precision}"

    @property
    def by_forwards(self) -> str:
        return f"at most {self.forwards:,} UNet forwards"

    @property
    def by_time(self) -> str | None:
        return None if self.minutes is None else f"{self.minutes:g} minutes of training"

    @property
    def by_category(self) -> str | None:
        return None if self.category is None else in_category(self.by_forwards, self.category)

    @property
    def budgets(self) -> tuple[str, ...]:
        return tuple(each for each in (self.by_forwards, self.by_time, self.by_category) if each is not None)


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
def budgeted(entry: Entry, asked: Asked, steps: int) -> Forecast:
    return forecast(entry.load(0, steps, asked))


def trials(entries: Sequence[Entry], asked: Asked) -> Iterator[tuple[str, Entry, int]]:
    """What is trained, as budget, entry and seed: every seed within one budget, then the next."""
    for budget in asked.budgets:
        for seed in asked.seeds:
            for entry in entries:
                if not entry.whole:
                    yield budget, entry.within(budget), seed
                elif budget == asked.by_forwards:
                    yield OWN, entry, seed


def steps_by_forwards(entry: Entry, asked: Asked) -> int:
    """The most steps whose forecast stays within the budget, at least one: a step of some takes more than all of it.

    As many as the recipe has of one that goes to its own end.
    """
    if entry.whole:
        return load_recipe(entry.recipe, entry.keys).steps
    one, two = (budgeted(entry, asked, steps).forwards for steps in (1, 2))
    return 1 + max(0, (asked.forwards - one) // (two - one))


def steps_by_time(entry: Entry, asked: Asked, known: Iterable[Record]) -> int:
    """Those of another seed; at first, by the fastest run at equal forwards: beside other work a step takes longer."""
    assert asked.minutes is not None
    mine = [record for record in known if record.name == entry.name]
    if timed := [record.steps for record in mine if record.budget == asked.by_time]:
        return timed[0]
    runs = [record for record in mine if record.budget == asked.by_forwards]
    return max(1, round(60 * asked.minutes / min(record.seconds / record.steps for record in runs)))


def admit(known: Sequence[Record], entries: Sequence[Entry], asked: Asked, where: Path) -> None:
    """UserError when what `where` holds is of another study: what is there of other names is not looked at."""
    mine, budgets = {entry.name: entry for entry in entries}, {kind(budget): budget for budget in asked.budgets}
    for record in known:
        if record.asked != asked.words:
            raise UserError(
                f"{where} holds runs measured by {record.asked}, which cannot be compared with {asked.words}; give the "
                "same --suite, --limit and --precision, or another --page and --out"
            )
        which = kind(record.budget)
        if record.budget != budgets.get(which, record.budget):
            raise UserError(f"{where} holds runs with {record.budget}; give the same --{which}, or another --page")
        if record.name in mine:
            _same(record, mine[record.name].within(record.budget), asked, where)


def _same(record: Record, entry: Entry, asked: Asked, where: Path) -> None:
    """UserError when what was trained is no longer what the entry says."""
    by_time = kind(record.budget) == "minutes"
    then = (record.keys, record.steps, record.recipe)
    steps = record.steps if by_time else steps_by_forwards(entry, asked)
    now = ((entry.recipe, *entry.keys), steps, digest(entry.recipe, entry.keys))
    if then != now:
        was, is_ = (f"{' '.join(keys)}, {steps} steps, recipe {recipe}" for keys, steps, recipe in (then, now))
        raise UserError(
            f"{record.name}, seed {record.seed}, in {where} was trained as '{was}', and would be '{is_}' now; take its "
            "line or folder away to train it again"
        )
