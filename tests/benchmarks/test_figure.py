"""Charts: well-formed SVG whose marks lie where the numbers say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from benchmarks.figure import HIGH, LEFT, RIGHT, WIDE, Limit, Line, Panel, figure, log_ticks

NAMESPACE = "{http://www.w3.org/2000/svg}"


def drawn(*panels: Panel) -> ET.Element:
    return ET.fromstring(figure("A & B", panels))


def test_points_lie_between_the_axes_and_the_highest_is_on_top() -> None:
    line = Line(label="one", points=[(0, 0.0), (10, 1.0)])
    root = drawn(Panel(title="t", x="s", lines=(line,), share=True))
    path = next(p for p in root.iter(f"{NAMESPACE}path") if p.get("class") == "line s0")
    numbers = [float(n) for n in re.findall(r"[\d.]+", path.get("d", ""))]
    assert numbers[0] == LEFT and numbers[2] == WIDE - RIGHT
    assert numbers[3] < numbers[1] < HIGH
    assert "100%" in [text.text for text in root.iter(f"{NAMESPACE}text")]


def test_equal_labels_share_a_colour_and_empty_panels_are_left_out() -> None:
    one, two = Line(label="<one>", points=[(0, 1.0), (1, 2.0)]), Line(label="two", points=[(0, 3.0)])
    empty = Panel(title="empty", x="s", lines=(Line(label="three", points=()),))
    root = drawn(Panel(title="p", x="s", lines=(one, two)), empty, Panel(title="q", x="s", lines=(two,)))
    words = [text.text for text in root.iter(f"{NAMESPACE}text")]
    assert "<one>" in words and "empty" not in words and "three" not in words
    assert len([c for c in root.iter(f"{NAMESPACE}circle") if c.get("class") == "f1"]) == 2
    assert "A & B. p against s: <one>: 1 at 0, 2 at 1" in root.get("aria-label", "")


def test_a_limit_beyond_the_points_is_still_inside() -> None:
    panel = Panel(
        title="p", x="s", lines=(Line(label="a", points=[(0, 0.8)]),), limits=(Limit(value=0.1, label="10%"),)
    )
    root = drawn(panel)
    limit = next(line for line in root.iter(f"{NAMESPACE}line") if line.get("class") == "limit")
    assert 0 < float(limit.get("y1", "nan")) < HIGH


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.3, 6.6, [0.2, 0.5, 1, 2, 5, 10]),
        (1.0, 1.0, [1, 2]),
        (1e-4, 1e2, [1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100]),
    ],
)
def test_logarithmic_ticks_enclose_the_values(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)
