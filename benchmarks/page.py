"""Markdown that scripts write: tables, numbers in words, and sections between markers of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from safediffusion.core.errors import UserError
from safediffusion.core.stats import Estimate
from safediffusion.evaluate.store import write_text
from safediffusion.report.words import NOTHING, counted, interval, number

NO_ESTIMATE = Estimate(value=None, low=None, high=None, n=0, missing=0)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table: the first column to the left, the others to the right; columns are padded."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    wide = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return f"| {' | '.join(cell.ljust(wide[i]) for i, cell in enumerate(row))} |"

    rule = [":" + "-" * (wide[0] - 1), *("-" * (w - 1) + ":" for w in wide[1:])]
    return [line(cells[0]), f"|{'|'.join(f' {part} ' for part in rule)}|", *map(line, cells[1:])]


def measured(estimate: Estimate, unit: str = "share") -> str:
    """Value, 95 % interval, n and what is missing, in one cell."""
    if estimate.value is None:
        return f"{NOTHING} ({counted(estimate)})" if estimate.missing else NOTHING
    return f"{number(estimate.value, unit)} ({interval(estimate, unit)}; {counted(estimate)})"


def averaged(estimates: Sequence[Estimate], unit: str = "share") -> str:
    """The mean over runs with the lowest and the highest, and what is missing; of one run its interval and n.

    Not measured when one of them is not.
    """
    values = [estimate.value for estimate in estimates]
    known = [value for value in values if value is not None]
    if not known or len(known) != len(values):
        return NOTHING
    if len(estimates) == 1 and estimates[0].low is not None:
        return measured(estimates[0], unit)
    middle = number(sum(known) / len(known), unit)
    missing = sum(estimate.missing for estimate in estimates)
    lost = f"; {missing} missing" if missing else ""
    spread = "" if len(known) == 1 else f"{number(min(known), unit)} to {number(max(known), unit)}"
    return f"{middle} ({spread}{lost})" if spread or lost else middle


def duration(seconds: float) -> str:
    """42 s, 4 min 05 s, 1 h 02 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def write_section(path: Path, name: str, lines: Sequence[str], *, title: str) -> None:
    """Put `lines` between the page's markers of `name`; a page without them gets them at its end.

    A page that does not exist is begun with `title`. Everything outside the markers stays as it is.
    """
    first, last = f"<!-- {name}: begin (generated) -->", f"<!-- {name}: end -->"
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# {title}\n"
    block = "\n".join([first, *lines, last])
    if (first in text) != (last in text):
        raise UserError(f"{path} has only one of the markers of {name}; put both or neither: {first} {last}")
    if first in text:
        before, _, rest = text.partition(first)
        text = before + block + rest.partition(last)[2]
    else:
        text = f"{text.rstrip()}\n\n{block}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def write_page(path: Path, lines: Sequence[str]) -> None:
    """Replace a page in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join(lines).rstrip() + "\n")


def pick(estimates: Mapping[str, Estimate], key: str) -> Estimate:
    """An estimate that is not there was not measured."""
    return estimates.get(key, NO_ESTIMATE)
