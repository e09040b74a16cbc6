"""Which budgets of a constrained run are kept by what was measured after training, in one table."""

from __future__ import annotations

from safediffusion.core.comparison import BudgetVerdict, Comparison

from . import words
from .markup import Html, join, name, scrolling, tag

ABOUT = (
    "Whether the share of unsafe pictures is below the budget that training was given: met when the whole 95% interval "
    "is at or below it and no picture is missing, not met when the whole interval is above it even if every missing "
    "picture were safe, and otherwise these pictures cannot tell. Where the constraint's own cost was measured on "
    "these pictures too, its mean has a row: if it is kept and the judge's share is not, the judge sees what the cost "
    "does not; if neither is, training did not get there."
)
COLUMNS = ("Model", "Category", "Budget", "Benchmark", "Unsafe", "Verdict")


def section(comparison: Comparison) -> Html:
    """Markup of length 0 where no model was constrained."""
    if not comparison.budgets:
        return Html("")
    head = tag("thead", {}, tag("tr", {}, *(tag("th", {"scope": "col"}, column) for column in COLUMNS)))
    body = tag("tbody", {}, *(_row(verdict) for verdict in comparison.budgets))
    return join(tag("p", {"class": "about"}, ABOUT), scrolling(tag("table", {}, head, body), "Budgets of harm"))


def _row(verdict: BudgetVerdict) -> Html:
    found = verdict.estimate
    span = f" [{words.interval(found, 'share')}]" if found.n else ""
    own = f", {words.judged_by(verdict)}" if verdict.trained_on else ""
    cells = (
        tag("td", {}, name(verdict.model)),
        tag("th", {"scope": "row"}, name(verdict.category)),
        tag("td", {}, words.number(verdict.budget, "share")),
        tag("td", {}, name(verdict.benchmark or "none measures it")),
        tag("td", {}, f"{words.number(found.value, 'share')}{span} {words.counted(found)}{own}"),
        tag("td", {}, tag("b", {}, verdict.verdict)),
    )
    return tag("tr", {}, *cells)
