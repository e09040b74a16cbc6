"""Training curves: one small chart a quantity, the raw values faint and their moving mean on top."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safediffusion.core.comparison import Model

from .markup import Html, join, tag

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 360.0, 208.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 14.0, 34.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What one chart shows: metric keys with the words for them."""

    title: str
    about: str
    keys: tuple[tuple[str, str], ...]


CHARTS = (
    Chart(title="Reward", about="Mean steering reward of a step's pictures", keys=(("score/steering", "reward"),)),
    Chart(
        title="Alignment term",
        about="Mean z(x)·z(p): does the picture show what was asked?",
        keys=(("score/steering/alignment", "alignment"),),
    ),
    Chart(
        title="Safety term",
        about="Mean z(x)·v_safe: how far towards safe?",
        keys=(("score/steering/safety", "safety"),),
    ),
    Chart(
        title="Reward by label",
        about="Mean steering reward on safe and on unsafe prompts",
        keys=(("score/steering/safe", "safe prompts"), ("score/steering/unsafe", "unsafe prompts")),
    ),
    Chart(
        title="Measured while training",
        about="By the judge, on a small suite",
        keys=(("eval/emoji-i2p/unsafe", "unsafe pictures"), ("eval/emoji-geneval/overall", "prompt following")),
    ),
    Chart(
        title="Reward against the guard's panel",
        about="Reward gained on the panel's prompts, in standard deviations of the base's; and how much of its "
        "tolerance the worst held-out measure has used up: from 1 on the reward is bought with the pictures",
        keys=(("guard/gain", "reward gained"), ("guard/worst", "worst held-out measure")),
    ),
    *(
        Chart(
            title=f"Panel: {title}",
            about=f"{about}, against the base at the same prompts and noise",
            keys=((f"guard/change/{name}", title),),
        )
        for name, title, about in (
            ("unsafe", "unsafe pictures", "Change of the share, by a judge that is no reward"),
            ("follow", "prompt following", "Change, by a network that is not the reward's"),
            ("diversity", "diversity", "Relative change of the distance between pictures of a prompt"),
            ("frechet", "Frechet distance", "In units of that between two halves of the base's own pictures"),
            ("entropy", "colour entropy", "Relative change"),
            ("edges", "edge density", "Relative change"),
        )
    ),
    Chart(title="KL to the reference", about="Mean over trained steps, closed form", keys=(("loss/kl", "KL"),)),
    Chart(
        title="Spread inside a group",
        about="Standard deviation of each term among pictures of one prompt",
        keys=(("spread/alignment", "alignment"), ("spread/safety", "safety")),
    ),
    Chart(
        title="Groups without signal",
        about="Share of groups whose rewards are all equal",
        keys=(("group/zero_variance", "share"),),
    ),
    Chart(title="Clipped ratios", about="Share of items outside the trust region", keys=(("loss/clipped", "share"),)),
    Chart(
        title="Learned reward",
        about="Share of fresh pairs that the surrogate puts in the wrong order (chance: 0.5), and steps in which the "
        "policy therefore rested",
        keys=(("surrogate/error", "error"), ("policy/rests", "rests")),
    ),
    Chart(title="Gradient norm", about="Before clipping", keys=(("grad/norm", "norm"),)),
)


def charts(models: Sequence[Model]) -> list[Html]:
    """The charts for which some model has values; empty when nothing was trained."""
    known = {key for chart in CHARTS for key, _ in chart.keys}
    rest = {key for model in models for key in model.training if key.startswith("score/") and key not in known}
    others = [Chart(title=key, about="Mean over a step's pictures", keys=((key, key),)) for key in sorted(rest)]
    drawn = [_draw(chart, models) for chart in (*CHARTS, *_budgeted(models), *others)]
    return [figure for figure in drawn if figure]


def _budgeted(models: Sequence[Model]) -> list[Chart]:
    """For every category under a budget its cost beside that, and the multipliers that follow the excess."""
    names = sorted(
        {
            key.removeprefix("constraint/").removesuffix("/budget")
            for model in models
            for key in model.training
            if key.startswith("constraint/") and key.endswith("/budget")
        }
    )
    return [
        chart
        for name in names
        for chart in (
            Chart(
                title=f"Cost of {name}",
                about="Measured in training by the constraint's own scorers, and its budget",
                keys=((f"constraint/{name}/cost", "cost"), (f"constraint/{name}/budget", "budget")),
            ),
            Chart(
                title=f"Multipliers of {name}",
                about="What a picture's cost weighs beside the reward",
                keys=((f"constraint/{name}/u", "u, with the penalty"), (f"constraint/{name}/lambda", "lambda")),
            ),
        )
    ]


def _draw(chart: Chart, models: Sequence[Model]) -> Html:
    lines = [
        (f"{model.name}: {label}" if _several(models) else label, index, style, model.training[key])
        for index, model in enumerate(models)
        for style, (key, label) in enumerate(chart.keys)
        if model.training.get(key)
    ]
    if not lines:
        return Html("")
    legend = [tag("span", {"class": f"key m{index % 8} s{style}"}, label) for label, index, style, _ in lines]
    caption = tag("figcaption", {}, tag("b", {}, chart.title), " ", tag("span", {"class": "faint"}, chart.about))
    spoken = f"{chart.title}. " + " ".join(_spoken(label, points) for label, _, _, points in lines)
    marks = _marks([(index, style, points) for _, index, style, points in lines])
    head: Mapping[str, str | float] = {"class": "curve", "viewBox": f"0 0 {WIDTH:g} {HEIGHT:g}", "role": "img"}
    svg = tag("svg", {**head, "aria-label": spoken}, *marks)
    keys = tag("p", {"class": "legend"}, *legend) if len(lines) > 1 else Html("")
    return tag("figure", {"class": "chart"}, caption, svg, keys)


def _several(models: Sequence[Model]) -> bool:
    return sum(bool(model.training) for model in models) > 1


def _marks(lines: Sequence[tuple[int, int, Points]]) -> list[Html]:
    values = [y for _, _, points in lines for _, y in points]
    steps = [x for _, _, points in lines for x, _ in points]
    ticks = nice_ticks(min(values), max(values))
    low, high, first, last = ticks[0], ticks[-1], min(steps), max(steps)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        up = (y - low) / (high - low)
        return LEFT + (WIDTH - LEFT - RIGHT) * across, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * up

    marks = []
    for tick in ticks:
        y = place(first, tick)[1]
        marks.append(tag("line", {"class": "grid", "x1": LEFT, "x2": WIDTH - RIGHT, "y1": y, "y2": y}))
        marks.append(tag("text", {"class": "faint", "x": LEFT - 8, "y": y + 4, "text-anchor": "end"}, _short(tick)))
    for x, anchor in ((first, "start"), (last, "end")):
        left = place(x, low)[0]
        marks.append(tag("text", {"class": "faint", "x": left, "y": HEIGHT - 14, "text-anchor": anchor}, f"step {x:g}"))
    for index, style, points in lines:
        smooth = moving_mean(points, max(1, len(points) // 12))
        marks.append(_path(f"raw m{index % 8} s{style}", [place(x, y) for x, y in points]))
        marks.append(_path(f"line m{index % 8} s{style}", [place(x, y) for x, y in smooth]))
        if len(points) == 1:
            across, down = place(*points[0])
            marks.append(tag("circle", {"class": f"dot m{index % 8} s{style}", "cx": across, "cy": down, "r": 3}))
    return marks


def _path(kind: str, points: Points) -> Html:
    return tag("path", {"class": kind, "d": "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)})


def _spoken(label: str, points: Points) -> str:
    (first, start), (last, end) = points[0], points[-1]
    return f"{label}: {_short(start)} at step {first:g}, {_short(end)} at step {last:g}."


def moving_mean(points: Points, reach: int) -> list[tuple[float, float]]:
    """Each value's mean with up to `reach` neighbours on either side, fewer at the ends."""
    out = []
    for i, (x, _) in enumerate(points):
        window = [y for _, y in points[max(0, i - reach) : i + reach + 1]]
        out.append((x, sum(window) / len(window)))
    return out


def nice_ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers whose first and last enclose [low, high]."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "\u2212")


def section(models: Sequence[Model]) -> Html:
    """All charts in a grid, or markup of length 0."""
    drawn = charts(models)
    return tag("div", {"class": "charts"}, join(*drawn)) if drawn else Html("")
