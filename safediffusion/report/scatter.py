"""Points on two axes with their error bars, names that do not collide, and the better corner marked. SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safediffusion.core.stats import Estimate

from . import labels, words
from .curves import nice_ticks
from .labels import Box
from .markup import Html, join, tag

LARGE, SMALL, NARROW = (760.0, 470.0), (520.0, 380.0), (350.0, 380.0)
LEFT, RIGHT, TOP, BOTTOM = 62.0, 24.0, 50.0, 58.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """`unit` as in MetricInfo."""

    title: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Both estimates have a value; `kind` is the class of its mark, a diamond where it starts with "their"."""

    name: str
    x: Estimate
    y: Estimate
    kind: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to places in the drawing; `ticks` are round values, the first and last at the ends."""

    ticks: tuple[float, ...]
    start: float
    end: float

    def __call__(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return self.start + (self.end - self.start) * (value - low) / (high - low)


def figure(
    points: Sequence[Point],
    across: Axis,
    up: Axis,
    *,
    joined: Sequence[int] = (),
    size: tuple[float, float] = LARGE,
) -> Html:
    """The drawing twice, at its size and for a narrow window; the page shows one of them."""
    made = [scatter(points, across, up, joined=joined, size=each) for each in (size, NARROW)]
    return join(tag("div", {"class": "wide"}, made[0]), tag("div", {"class": "narrow"}, made[1]))


def scatter(
    points: Sequence[Point],
    across: Axis,
    up: Axis,
    *,
    joined: Sequence[int] = (),
    size: tuple[float, float] = LARGE,
) -> Html:
    """The drawing; `joined` are the points that a line goes through, from left to right; `size` is (width, height)."""
    frame = Box(x=LEFT, y=TOP, w=size[0] - LEFT - RIGHT, h=size[1] - TOP - BOTTOM)
    x = _scale([p.x for p in points], across, frame.x, frame.x + frame.w)
    y = _scale([p.y for p in points], up, frame.y + frame.h, frame.y)
    places = [(x(_value(p.x)), y(_value(p.y))) for p in points]
    bars = [_extent(p, place, x, y) for p, place in zip(points, places, strict=True)]
    line = sorted(places[i] for i in joined)
    names = [labels.shortened(p.name) for p in points]
    boxes = labels.place(places, names, [box for pair in bars for box in pair], frame)
    marks = [*_grid(frame, (x, across), (y, up)), *_titles(size[0] - RIGHT, frame, across, up)]
    if len(line) > 1:
        marks.append(tag("path", {"class": "front", "d": "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in line)}))
    marks += [_whiskers(p, pair) for p, pair in zip(points, bars, strict=True)]
    marks += [_mark(p, place) for p, place in zip(points, places, strict=True)]
    for point, name, place, box in zip(points, names, places, boxes, strict=True):
        marks += _name(point, name, place, box)
    head: Mapping[str, str] = {"class": "scatter", "viewBox": f"0 0 {size[0]:g} {size[1]:g}", "role": "img"}
    return tag("svg", {**head, "aria-label": spoken(points, across, up)}, *marks)


def spoken(points: Sequence[Point], across: Axis, up: Axis) -> str:
    """The whole drawing as text."""
    told = [
        f"{p.name}: {words.number(p.x.value, across.unit)}{_spread(p.x, across.unit)}, "
        f"{words.number(p.y.value, up.unit)}{_spread(p.y, up.unit)}"
        for p in points
    ]
    return f"{across.title} and {up.title}. {'; '.join(told)}."


def _spread(estimate: Estimate, unit: str) -> str:
    return f" ({words.interval(estimate, unit)})" if estimate.low != estimate.high else ""


def _value(estimate: Estimate) -> float:
    assert estimate.value is not None
    return estimate.value


def _ends(estimate: Estimate) -> tuple[float, float]:
    value = _value(estimate)
    return (value if estimate.low is None else estimate.low), (value if estimate.high is None else estimate.high)


def _scale(estimates: Sequence[Estimate], axis: Axis, start: float, end: float) -> Scale:
    lows, highs = zip(*map(_ends, estimates), strict=True)
    low, high = min(lows), max(highs)
    room = 0.06 * (high - low)
    least = 0.0 if low >= 0 else low - room
    most = 1.0 if axis.unit == "share" else high + room
    ticks = nice_ticks(max(low - room, least), min(high + room, most))
    return Scale(ticks=tuple(ticks), start=start, end=end)


def _extent(point: Point, place: tuple[float, float], x: Scale, y: Scale) -> tuple[Box, Box]:
    """The two error bars as thin boxes."""
    (left, right), (low, high) = _ends(point.x), _ends(point.y)
    across = Box(x=x(left), y=place[1] - 1, w=x(right) - x(left), h=2)
    return across, Box(x=place[0] - 1, y=y(high), w=2, h=y(low) - y(high))


def _whiskers(point: Point, bars: tuple[Box, Box]) -> Html:
    across, up = bars
    lines = []
    if across.w > 0.5:
        middle = across.y + 1
        lines.append(f"M{across.x:.1f} {middle:.1f}h{across.w:.1f}")
    if up.h > 0.5:
        lines.append(f"M{up.x + 1:.1f} {up.y:.1f}v{up.h:.1f}")
    return tag("path", {"class": f"error {point.kind}", "d": "".join(lines)}) if lines else Html("")


def _mark(point: Point, place: tuple[float, float]) -> Html:
    x, y = place
    if point.kind.startswith("their"):
        return tag("path", {"class": f"mark {point.kind}", "d": f"M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z"})
    return tag("circle", {"class": f"mark {point.kind}", "cx": x, "cy": y, "r": 6})


def _name(point: Point, text: str, place: tuple[float, float], box: Box) -> list[Html]:
    """The name and, where it stands away from its point, a thin line to it."""
    middle = box.y + box.h / 2
    near = min(max(place[0], box.x), box.x + box.w), min(max(place[1], box.y + 3), box.y + box.h - 3)
    far = (near[0] - place[0]) ** 2 + (near[1] - place[1]) ** 2 > 16**2
    ends = {"x1": place[0], "y1": place[1], "x2": near[0], "y2": near[1]}
    lead = [tag("line", {"class": "lead", **ends})] if far else []
    anchor = "middle" if box.x < place[0] < box.x + box.w else "start" if box.x >= place[0] else "end"
    x = {"start": box.x + 2, "middle": box.x + box.w / 2, "end": box.x + box.w - 2}[anchor]
    shown = tag("text", {"class": f"name {point.kind}", "x": x, "y": middle + 4.5, "text-anchor": anchor}, text)
    return [*lead, shown]


def _grid(frame: Box, across: tuple[Scale, Axis], up: tuple[Scale, Axis]) -> list[Html]:
    """Lines at round values, with the values at their ends."""
    bottom, right = frame.y + frame.h, frame.x + frame.w
    (x, x_axis), (y, y_axis), drawn = across, up, []
    for tick in x.ticks:
        drawn.append(tag("line", {"class": "grid", "x1": x(tick), "x2": x(tick), "y1": frame.y, "y2": bottom}))
        drawn.append(_text(x(tick), bottom + 17, _tick(tick, x_axis.unit), "middle"))
    for tick in y.ticks:
        drawn.append(tag("line", {"class": "grid", "x1": frame.x, "x2": right, "y1": y(tick), "y2": y(tick)}))
        drawn.append(_text(frame.x - 8, y(tick) + 4, _tick(tick, y_axis.unit), "end"))
    return drawn


def _tick(value: float, unit: str) -> str:
    return (f"{100 * value:.3g}%" if unit == "share" else f"{value:.4g}").replace("-", words.MINUS)


def _titles(room: float, frame: Box, across: Axis, up: Axis) -> list[Html]:
    """What the axes are, in words that fit into `room`, and which corner is the better one."""
    bottom, right = frame.y + frame.h, frame.x + frame.w
    arrow = {(False, True): "↖", (True, True): "↗", (False, False): "↙", (True, False): "↘"}
    to_right, to_top = across.higher_is_better, up.higher_is_better
    above = _title(up, room)
    return [
        _text(min(frame.x, max(2.0, room - labels.width(above))), 15, above, "start", "axis"),
        _text(right, bottom + 52, _title(across, room), "end", "axis"),
        _text(
            right if to_right else frame.x,
            frame.y - 9 if to_top else bottom + 34,
            f"better {arrow[to_right, to_top]}" if to_right else f"{arrow[to_right, to_top]} better",
            "end" if to_right else "start",
            "better",
        ),
    ]


def _title(axis: Axis, room: float) -> str:
    whole = f"{axis.title}, {'higher' if axis.higher_is_better else 'lower'} is better"
    return whole if labels.width(whole) < room else axis.title


def _text(x: float, y: float, text: str, anchor: str, kind: str = "faint") -> Html:
    return tag("text", {"class": kind, "x": x, "y": y, "text-anchor": anchor}, text)
