"""From the rows of a table to prompts, and an account of every row that was not used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt

from .fields import Field, Skip, categories_of, text, whole
from .tables import Row, Table, read_table

CASE = whole("case_number", high=10**9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A row that was not used: the line of the file it begins in, why, and the value that is to blame."""

    line: int
    reason: str
    found: str = ""

    def __str__(self) -> str:
        return self.reason + (f" ({self.found[:40]!r})" if self.found else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What became of the rows of a file; `published` are the sizes the set has in the literature, () if unknown."""

    name: str
    read: int
    used: int
    skips: tuple[Skipped, ...] = ()
    published: tuple[int, ...] = ()

    @property
    def skipped(self) -> Counter[str]:
        """Reason -> number of rows."""
        return Counter(skip.reason for skip in self.skips)

    @property
    def text(self) -> str:
        """One line for people."""
        out = f"{self.name}: {self.read:,} rows read, {self.used:,} used"
        if self.skips:
            out += f", {len(self.skips):,} skipped ({self.reasons})"
        if self.published and self.used not in self.published:
            out += f"; the published set has {' or '.join(f'{size:,}' for size in self.published)}"
        return out

    @property
    def reasons(self) -> str:
        """Every reason with the first row it was found in, most frequent first, with counts if there are several."""
        first = {skip.reason: skip for skip in reversed(self.skips)}
        counts = self.skipped.most_common()
        return "; ".join(
            (f"{count:,} " if len(counts) > 1 else "")
            + f"{first[reason]}, {'first in ' if count > 1 else ''}line {first[reason].line}"
            for reason, count in counts
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """Prompts in the order of their file, ids "NAME/CASE", where the case is the number in the file or of the row."""

    prompts: tuple[Prompt, ...]
    account: Account

    def by_category(self) -> Counter[str]:
        """Category -> number of prompts; a prompt of several counts in each."""
        return Counter(category for prompt in self.prompts for category in categories_of(prompt.tags))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a set's file holds: where the prompt's text stands, tags that every row needs, tags that it may have.

    `keeps` says which of its well-formed rows belong to the set, `rule` the same in words.
    """

    text: Field = text("prompt")
    needs: Mapping[str, Field] = field(default_factory=dict)
    takes: Mapping[str, Field] = field(default_factory=dict)
    keeps: Callable[[Row, Mapping[str, str]], bool] | None = None
    rule: str = ""
    published: tuple[int, ...] = ()


def gather(name: str, source: Path | str, layout: Layout) -> PromptSet:
    """The prompts of the set `name` in a file or a data set of the hub, with its account: read = used + skipped.

    A malformed row is skipped. UserError when the file is malformed, lacks a column or has no row of the set.
    """
    table = read_table(source)
    columns = _columns(name, table, layout)
    prompts: dict[str, Prompt] = {}
    skips = []
    for row in table.rows:
        try:
            prompt = _prompt(name, row, layout, columns)
            if prompt.id in prompts:
                raise Skip("case_number of an earlier row", prompt.id)
            prompts[prompt.id] = prompt
        except Skip as skip:
            skips.append(Skipped(line=row.line, reason=skip.reason, found=skip.found))
    account = Account(
        name=name, read=len(table.rows), used=len(prompts), skips=tuple(skips), published=layout.published
    )
    if not prompts:
        raise UserError(
            f"none of the {account.read:,} rows of {source} can be used as '{name}' ({account.reasons}); check that it "
            "is the file of this set"
        )
    return PromptSet(prompts=tuple(prompts.values()), account=account)


def _columns(name: str, table: Table, layout: Layout) -> dict[str, str]:
    """Tag -> column, for all that the table has; "text" and "case" are in it beside the tags."""
    needed = {"text": layout.text, **layout.needs}
    found = {tag: each.column(table.columns) for tag, each in {**needed, **layout.takes, "case": CASE}.items()}
    if missing := [" or ".join(needed[tag].columns) for tag in needed if found[tag] is None]:
        shown = ", ".join(repr(column[:40]) for column in table.columns[:20])
        sign = next((s for s in ";\t|" if len(table.columns) == 1 and s in table.columns[0]), None)
        hint = f"save it with commas, not {sign!r}" if sign else "the set 'plain' takes any file with a column 'prompt'"
        raise UserError(
            f"{table.source} has the columns {shown or 'none'}, and '{name}' needs {', '.join(missing)} too; {hint}"
        )
    return {tag: column for tag, column in found.items() if column is not None}


def _prompt(name: str, row: Row, layout: Layout, columns: Mapping[str, str]) -> Prompt:
    if row.fault:
        raise Skip(row.fault)
    content = layout.text.read(row, columns["text"])
    tags = {tag: each.read(row, columns[tag]) for tag, each in layout.needs.items()}
    for tag, each in layout.takes.items():
        if tag in columns and row.cells.get(columns[tag], "").strip():
            tags[tag] = each.read(row, columns[tag])
    if layout.keeps is not None and not layout.keeps(row, tags):
        raise Skip(f"not in the set: {layout.rule}")
    case = CASE.read(row, columns["case"]) if "case" in columns else str(row.number)
    return Prompt(id=f"{name}/{case}", text=content, tags=tags)
