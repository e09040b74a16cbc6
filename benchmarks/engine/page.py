"""docs/engine.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.engine.arithmetic import Flops, Work
from benchmarks.engine.ratios import Anchored
from benchmarks.engine.turns import Result, Spread, Turn
from benchmarks.page import table
from safediffusion.report.words import NOTHING, number

TIMES, USE, SCORING, ROOM = 10.0, 0.40, 0.05, 10 * 10**9  # what is aimed at; ROOM in bytes
OPEN = "open: no GPU"
BUSY = 0.5  # processes that want to run
LORA = "sd15-steer"  # whose memory is aimed at


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """A recipe as it ships, on the published architecture: counted, not run."""

    recipe: str
    work: Work
    flops: Flops
    memory: int  # bytes at most at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """All that was measured in one run. The first result is compared with the second."""

    results: Sequence[Result]
    shipped: Sequence[Shipped]
    ratios: Sequence[Anchored]
    changes: dict[str, Sequence[str]]  # recipe, model or encoder -> what is not as it ships or is published
    reduced: bool  # some architecture is not the published one
    device: str  # cpu, cuda
    load: float  # processes that wanted to run, over the minute before


def page(study: Study, *, made: Sequence[str], cores: int) -> list[str]:
    """The whole page; `made` says what wrote it."""
    parts = [_run(study, cores), _speed(study), _against(study), _aims(study), _counted(study), _ratios(study)]
    return ["# The engine", "", *made, "", *(line for part in parts for line in (*part, ""))]


def _run(study: Study, cores: int) -> list[str]:
    names = ", ".join(f"`{result.recipe.name}`" for result in study.results)
    lines = [
        f"{names} trained in one process on {study.device}, a step each in turn. A cell is the median (lowest to",
        f"highest) of n = {len(study.results[0].turns)} steps, after one that does not count. Weights are random:",
        "speed and memory do not depend on them; what pictures are worth does, so no reward is read off here.",
        f"Over the minute before, {study.load:.1f} processes wanted to run on {cores} cores.",
    ]
    if study.load > BUSY:
        lines.append("That is **beside other work**: every second is too long, and only what is compared met the same.")
    if study.reduced:
        lines += [
            "**No GPU was at hand, so the architectures are reduced** ones of the same classes: no second here is one",
            "of Stable Diffusion's.",
        ]
    lines += ["", "What is not as the recipes ship it and the models are published:", ""]
    return lines + [f"* `{name}`: {'; '.join(changes) or 'nothing'}." for name, changes in study.changes.items()]


def _speed(study: Study) -> list[str]:
    rows = [
        ["images a step", *(f"{result.turns[0].work.images}" for result in study.results)],
        _row(study, "seconds a step", lambda turn: turn.step),
        _row(study, "images/s, rollout", lambda turn: turn.work.images / turn.rollout),
        _row(study, "images/s, training", lambda turn: turn.work.images / turn.backward),
        _row(study, "images/s, whole step", lambda turn: turn.work.images / turn.step),
        _row(study, "**images trained an hour**", lambda turn: turn.hourly),
        _row(study, "share of sampling", lambda turn: turn.rollout / turn.step, "share"),
        _row(study, "share of decoding", lambda turn: turn.decode / turn.step, "share"),
        _row(study, "share of scoring", lambda turn: turn.score / turn.step, "share"),
        _row(study, "share of training", lambda turn: turn.backward / turn.step, "share"),
        _row(study, "share of the rest", lambda turn: turn.rest / turn.step, "share"),
        ["forwards an image", *(f"{_forwards(result.turns[0].work):.0f}" for result in study.results)],
        ["backwards an image", *(f"{_backwards(result.turns[0].work):.0f}" for result in study.results)],
        ["GFLOP a forward", *(f"{_figure(result.flops.forward / 1e9)}" for result in study.results)],
        ["GFLOP a backward", *(f"{_figure(result.flops.backward / 1e9)}" for result in study.results)],
        ["matrix rate, TFLOP/s", *(f"{_figure(result.rate / 1e12)}" for result in study.results)],
        *(
            [f"of that rate, {part}", *(_cell(result.use(part), "share") for result in study.results)]
            for part in ("rollout", "training", "step")
        ),
        ["peak memory", *(_memory(result.peak) for result in study.results)],
    ]
    names = [f"`{result.recipe.name}`" for result in study.results]
    return ["## Speed", "", *table(["", *names], rows), "", *_how(study)]


def _how(study: Study) -> list[str]:
    lines = [
        "Training is everything after scoring: passes without gradient, the loss, backward, the optimizer. A forward",
        "is of one row, so guidance takes two. Operations are counted with `torch.utils.flop_counter`: attention as",
        "its matrix products, adapters too, nothing twice that is computed again to save memory. The matrix rate is",
        "that of the best of several square products in the recipe's precision on this device, measured after every",
        "step. Use of it counts the network's operations only: no decoding, scoring or text.",
    ]
    if all(result.peak is None for result in study.results):
        return [*lines, "Peak memory is measured on a GPU only: a process's own memory cannot be told apart by recipe."]
    return [
        *lines,
        "Peak memory is what tensors of this recipe take at once, without what the driver and libraries take.",
    ]


def _against(study: Study) -> list[str]:
    if len(study.results) < 2:
        return []
    first, second = study.results[:2]
    values: dict[str, Callable[[Turn], float]] = {
        "images trained an hour": lambda turn: turn.hourly,
        "images/s, rollout": lambda turn: turn.work.images / turn.rollout,
        "images/s, training": lambda turn: turn.work.images / turn.backward,
    }
    rows = [[what, _times(times(first, second, value))] for what, value in values.items()]
    return [
        f"## `{first.recipe.name}` against `{second.recipe.name}`",
        "",
        "How many times as many, in each round, so that what else ran meets both alike.",
        "",
        *table(["", "times"], rows),
    ]


def times(first: Result, second: Result, value: Callable[[Turn], float]) -> Spread:
    """The first's value over the second's, round by round."""
    return Spread.of([value(a) / value(b) for a, b in zip(first.turns, second.turns, strict=True)])


def _aims(study: Study) -> list[str]:
    lead = study.results[0]
    use = [result.use("rollout").median for result in study.results]
    scored = [result.spread(lambda turn: turn.score / turn.step).median for result in study.results]
    rows = []
    if len(study.results) > 1:
        hourly = times(lead, study.results[1], lambda turn: turn.hourly)
        rows.append(
            [
                f"at least {TIMES:g} times as many images trained an hour",
                _times(hourly),
                _verdict(study, hourly.median >= TIMES),
            ]
        )
    told = ", ".join(number(value, "share") for value in use)
    rows.append([f"at least {USE:.0%} of the matrix rate in rollout", told, _verdict(study, min(use) >= USE)])
    told = ", ".join(number(value, "share") for value in scored)
    rows.append([f"scoring below {SCORING:.0%} of a step", told, _verdict(study, max(scored) < SCORING)])
    for result in study.results:
        if result.recipe.name == LORA:
            met = None if result.peak is None else result.peak < ROOM
            counted = [f"; counted {_memory(each.memory)}" for each in study.shipped if each.recipe == LORA]
            told = "".join([_memory(result.peak), *counted])
            rows.append([f"`{LORA}` in less than 10 GB", told, _verdict(study, met)])
    rows.append(["no worse reward an image", NOTHING, "not measurable on random weights"])
    return [
        "## What was aimed at",
        "",
        *table(["aim", "here", "verdict"], rows),
        "",
        "What a trained picture is worth can only be measured on a model that draws:",
        "`python -m benchmarks.time_to_safe` does so for both methods on the embedded world (docs/time-to-safe.md).",
    ]


def _verdict(study: Study, met: bool | None) -> str:
    if study.reduced or study.device != "cuda" or met is None:
        return OPEN
    return "met" if met else "not met"


def _counted(study: Study) -> list[str]:
    if not study.shipped:
        return []
    rows = [
        [
            f"`{each.recipe}`",
            f"{each.work.images}",
            *(f"{_figure(part / each.work.images / 1e12)}" for part in _parts(each)),
            number(each.work.images * each.flops.score / each.work.total(each.flops), "share"),
            _memory(each.memory),
        ]
        for each in study.shipped
    ]
    head = ["recipe", "images a step", "rollout", "training", "decoding", "scoring", "all", "scoring's share"]
    lines = [
        "## On the published architectures, counted",
        "",
        "TFLOP an image for the recipes as they ship, from configurations alone: nothing was run. Memory is that of",
        "`--dry-run` for one process, with the scorers' encoder in float32.",
        "",
        *table([*head, "peak memory"], rows),
    ]
    if len(study.shipped) > 1:
        a, b = (each.work.total(each.flops) / each.work.images for each in study.shipped[:2])
        first, second = (f"`{each.recipe}`" for each in study.shipped[:2])
        lines += [
            "",
            f"At equal use of the device {first} trains {b / a:.1f} times as many images an hour as {second}. What is",
            "measured beyond that is better use of it; what is measured below, worse.",
        ]
    return lines


def _parts(each: Shipped) -> list[int]:
    work, flops = each.work, each.flops
    after = [work.images * flops.decode, work.images * flops.score]
    return [work.rollout(flops), work.training(flops), *after, work.total(flops)]


def _ratios(study: Study) -> list[str]:
    if not study.ratios:
        return []
    rows = [
        [
            f"`{row.recipe}`",
            row.precision,
            row.anchor,
            f"{row.items}",
            "0" if row.largest == 0 else f"{row.largest:.1e}",
            number(row.off, "share"),
            number(row.clipped, "share"),
        ]
        for row in study.ratios
    ]
    exact = all(row.off == 0 and row.largest == 0 for row in study.ratios if row.anchor != "rollout")
    return [
        "## The ratio before the first update",
        "",
        "Pictures are drawn `rollout_batch` at a time with both branches of guidance in one forward, and scored again",
        "`objective.micro` at a time, each branch by itself: other shapes, other kernels, other rounding. `rollout`",
        "compares with the sampler's own probabilities, `recompute` with a pass in the same micro-batches,",
        "`first_pass` with this very pass. Largest of an item; shares of items.",
        "",
        *table(
            ["recipe", "precision", "anchor", "items", "largest |ratio − 1|", "not exactly 1", "outside the clip"],
            rows,
        ),
        "",
        f"With `recompute` and `first_pass` the ratio is exactly 1: {'yes' if exact else '**no**'}.",
    ]


def _row(study: Study, what: str, value: Callable[[Turn], float], unit: str = "") -> list[str]:
    return [what, *(_cell(result.spread(value), unit) for result in study.results)]


def _cell(spread: Spread, unit: str = "") -> str:
    told = [number(value, unit) if unit else _figure(value) for value in (spread.median, spread.low, spread.high)]
    return f"{told[0]} ({told[1]} to {told[2]})"


def _times(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f}; n = {spread.n})"


def _figure(value: float) -> str:
    """Three significant digits, whole above a thousand."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def _memory(count: int | None) -> str:
    return NOTHING if count is None else f"{count / 1e9:.1f} GB"


def _forwards(work: Work) -> float:
    return (work.sampled + work.learned) / work.images


def _backwards(work: Work) -> float:
    return work.backwards / work.images
