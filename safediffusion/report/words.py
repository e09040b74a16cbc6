"""How numbers and verdicts are written, the same in the terminal and on the page."""

from __future__ import annotations

from safediffusion.core.comparison import BETTER, NONE, SAME, WORSE, BudgetVerdict, Cell, Difference, MetricInfo
from safediffusion.core.stats import Estimate

MINUS, DASH = "\u2212", "\u2013"
NOTHING = "not measured"


def number(value: float | None, unit: str) -> str:
    """A value of this unit: 5.7% for shares, three significant digits otherwise."""
    if value is None:
        return NOTHING
    text = f"{100 * value:.1f}%" if unit == "share" else f"{value:#.3g}".rstrip(".")
    return text.replace("-", MINUS)


def interval(estimate: Estimate, unit: str) -> str:
    """The 95 % interval as "3.1\u20139.0%"."""
    if estimate.low is None or estimate.high is None:
        return ""
    low = number(estimate.low, unit).rstrip("%")
    return f"{low}{DASH}{number(estimate.high, unit)}"


def signed(value: float | None, unit: str) -> str:
    """A difference with its sign; shares in percentage points."""
    if value is None:
        return NOTHING
    text = f"{100 * value:+.1f}" if unit == "share" else f"{value:+#.3g}".rstrip(".")
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def span(gap: Difference, unit: str) -> str:
    """The interval of a difference, "\u221286.8 to \u221277.9"."""
    return f"{signed(gap.estimate.low, unit)} to {signed(gap.estimate.high, unit)}" if gap.estimate.n else ""


def points(unit: str) -> str:
    return " points" if unit == "share" else ""


def counted(estimate: Estimate) -> str:
    """n and, where there are any, the missing ones."""
    return f"n = {estimate.n}" + (f", {estimate.missing} missing" if estimate.missing else "")


def chance(p: float | None) -> str:
    """A p for a reader."""
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def chances(gap: Difference) -> str:
    """The p of a difference, and what Holm makes of it where its panel has several metrics."""
    both = [chance(gap.p), "" if gap.p_holm is None else f"Holm {chance(gap.p_holm)}"]
    return ", ".join(text for text in both if text)


def budget(verdict: BudgetVerdict) -> str:
    """Whether a model keeps the budget of one category, and by what."""
    told = f"{verdict.model}, budget of {number(verdict.budget, 'share')} for {verdict.category}: {verdict.verdict}"
    if not verdict.benchmark:
        return f"{told} (no benchmark of this comparison measures the category)"
    found = verdict.estimate
    measured = number(found.value, "share") + (f" [{interval(found, 'share')}]" if found.n else "")
    own = f"; {judged_by(verdict)}" if verdict.trained_on else ""
    return f"{told} ({verdict.benchmark}: {measured} unsafe, {counted(found)}{own})"


def judged_by(verdict: BudgetVerdict) -> str:
    """Of a verdict that no held-out judge gave."""
    return f"by the constraint's own cost, {verdict.by}" if verdict.by else "by a judge that training learned from"


def direction(info: MetricInfo) -> str:
    return "higher is better" if info.higher_is_better else "lower is better"


def sentence_case(text: str) -> str:
    """The text with its first letter large; the others stay as they are."""
    return text[:1].upper() + text[1:]


def sentence(info: MetricInfo, base: Cell, other: Cell) -> str:
    """One metric in one plain sentence, honest about what cannot be told apart."""
    gap = other.difference
    if base.estimate.value is None or other.estimate.value is None or gap is None or gap.estimate.value is None:
        return f"{info.title} could not be compared: {NOTHING} on one side."
    before, after = number(base.estimate.value, info.unit), number(other.estimate.value, info.unit)
    evidence = (
        f"paired difference {signed(gap.estimate.value, info.unit)}{points(info.unit)}, "
        f"95% interval {span(gap, info.unit)}, {counted(gap.estimate)}"
    )
    if other.verdict == SAME:
        return f"{info.title}: {before} and {after} are not distinguishable ({evidence})."
    if other.verdict == NONE:
        return f"{info.title}: {after}, {before} for the base; there is no test of it ({evidence})."
    moved = "fell" if gap.estimate.value < 0 else "rose"
    judged = {BETTER: "which is better", WORSE: "which is worse"}[other.verdict]
    return f"{info.title} {moved} from {before} to {after}, {judged} ({evidence})."
