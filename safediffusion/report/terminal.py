"""The table at the end of a command: what changed, with intervals, in a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from safediffusion.core.comparison import BETTER, WORSE, Cell, Comparison, MetricRow
from safediffusion.core.stats import Estimate

from . import words

STYLES = {BETTER: "green", WORSE: "red"}


def tables(comparison: Comparison, console: Console, *, every: bool = False) -> list[Table]:
    """One line a headline metric (with `every`: a metric), one column a model and one a difference.

    Where a line of all models is too wide, several tables: the base beside as many as fit, or one at a time.
    """
    others, unbounded = range(1, len(comparison.models)), console.options.update(max_width=10_000)
    for size in range(len(others), 1, -1):
        made = [_table(comparison, others[at : at + size], every=every) for at in range(0, len(others), size)]
        if all(Measurement.get(console, unbounded, each).maximum <= console.width for each in made):
            return made
    return [_table(comparison, others[at : at + 1], every=every) for at in range(max(len(others), 1))]


def _table(comparison: Comparison, others: Sequence[int], *, every: bool) -> Table:
    """The base and the models of these places."""
    models = comparison.models
    out = Table(title=None, box=None, pad_edge=False, header_style="bold")
    out.add_column("")
    for place in (0, *others):
        out.add_column(Text(models[place].name), justify="right", overflow="fold")
    for place in others:
        name = "difference" if len(models) == 2 else f"{models[place].name} - {models[0].name}"
        out.add_column(Text(name), justify="right", overflow="fold")
        out.add_column("verdict")
    for row in comparison.metrics:
        if every or row.info.headline or len(models) == 1:
            out.add_row(*_line(row, others))
    return out


def print_tables(comparison: Comparison, console: Console, *, every: bool = False) -> None:
    """All of `tables`, an empty line between two."""
    for place, each in enumerate(tables(comparison, console, every=every)):
        if place:
            console.print()
        console.print(each)


def show(comparison: Comparison, console: Console) -> None:
    """Print the table and what a reader must know about it."""
    print_tables(comparison, console)
    console.print("[dim]95% intervals; differences are paired by prompt and seed[/dim]")
    for verdict in comparison.budgets:
        console.print(Text(words.budget(verdict)))
    for note in comparison.notes:
        console.print(Text(note, style="yellow"))


def _line(row: MetricRow, others: Sequence[int]) -> list[Text]:
    unit = row.info.unit
    cells = [Text(row.info.title)] + [_value(row.cells[place].estimate, unit) for place in (0, *others)]
    for cell in (row.cells[place] for place in others):
        cells += [Text(_gap(cell, unit)), Text(cell.verdict, style=STYLES.get(cell.verdict, "dim"))]
    return cells


def _value(estimate: Estimate, unit: str) -> Text:
    text = Text(words.number(estimate.value, unit), style="bold")
    if estimate.value is not None:
        text.append(f" [{words.interval(estimate, unit)}]", style="dim")
    text.append(f" {words.counted(estimate)}", style="dim")
    return text


def _gap(cell: Cell, unit: str) -> str:
    gap = cell.difference
    if gap is None or gap.estimate.value is None:
        return words.NOTHING
    return f"{words.signed(gap.estimate.value, unit)} [{words.span(gap, unit)}]"
