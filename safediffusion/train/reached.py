"""What a constrained run says at its end: which budgets its own costs kept, and by how much others were missed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from safediffusion.models.load import stopped_by_guard, without_weights
from safediffusion.train.metrics import read_metrics

PREFIX, BUDGET = "constraint/", "/budget"


def standing(run: Path) -> Mapping[str, float]:
    """Metrics of the step whose weights the run stands for: its last one, or the best of one that its guard stopped.

    No metrics where that is the base.
    """
    lines, guard = read_metrics(run), stopped_by_guard(run)
    if guard is not None and guard["use"] != "last":
        lines = [line for line in lines if line["step"] == guard["best"]]
    return lines[-1] if lines else {}


def closing(run: Path) -> Sequence[str]:
    """Lines for the end of a run: how it is measured, and which budgets its own costs kept."""
    if without_weights(run):
        lost = "; no budget was reached" if reached(read_metrics(run)[-1]) else ""
        return [f"its guard left no weights to measure{lost} (--resume guard.use=last takes the last ones)"]
    lines = [f"measure it: safediffusion evaluate {shlex.quote(str(run))}"]
    logged = read_metrics(run)
    lines += [*rested(logged), *worn(run, logged)]
    metrics = standing(run)
    if told := reached(metrics):
        step = f"up to step {metrics['step']:.0f}, whose weights the run stands for"
        lines.append(f"budgets, by the costs that training followed (averages {step}; no held-out judge):")
        lines += [f"  {sentence}" for sentence in told]
    return lines


def rested(lines: Sequence[Mapping[str, float]]) -> Sequence[str]:
    """One sentence where a learned reward was too often wrong to be followed (lasro)."""
    count = sum(line.get("policy/rests", 0.0) > 0 for line in lines)
    if not count:
        return []
    return [f"in {count} of {len(lines)} steps nothing was trained: the learned reward was wrong too often"]


def worn(run: Path, lines: Sequence[Mapping[str, float]]) -> Sequence[str]:
    """One sentence where nothing stopped the run and the guard's last look saw more change than it tolerates."""
    seen = [line for line in lines if "guard/beyond" in line]
    if stopped_by_guard(run) is not None or not seen or not seen[-1]["guard/beyond"]:
        return []
    last = seen[-1]
    best = f"step-{last['guard/best']:06.0f}"
    other = f"; the best look was at {run / 'checkpoints' / best}" if last["guard/best"] else "; no look was better"
    return [
        f"the guard's look at step {last['step']:.0f} found {last['guard/beyond']:.0f} of its measures beyond their "
        f"tolerance (the worst by {last['guard/worst']:.1f} times), which stops no run whose reward does not rise with "
        f"it{other}"
    ]


def reached(metrics: Mapping[str, float]) -> Sequence[str]:
    """One sentence a category, of a step's metrics; none where there are no budgets."""
    names = sorted(
        key[len(PREFIX) : -len(BUDGET)] for key in metrics if key.startswith(PREFIX) and key.endswith(BUDGET)
    )
    return [_sentence(name, metrics.get(f"{PREFIX}{name}/cost"), metrics[f"{PREFIX}{name}{BUDGET}"]) for name in names]


def _sentence(name: str, cost: float | None, budget: float) -> str:
    if cost is None:
        return f"{name}: not measured, as no picture of it was drawn; nothing is known of its budget of {budget:.2%}"
    if cost > budget:
        return f"{name}: NOT reached in training: cost {cost:.2%}, {cost - budget:.2%} above its budget of {budget:.2%}"
    return f"{name}: reached in training: cost {cost:.2%}, budget {budget:.2%}"
