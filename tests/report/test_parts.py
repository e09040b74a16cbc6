"""The report's parts: how numbers are written, charts, markup, the terminal table."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from safediffusion.core.comparison import Cell, Comparison, Difference, MetricRow, Model
from safediffusion.core.stats import Estimate
from safediffusion.evaluate.compare import compare
from safediffusion.report import curves, words
from safediffusion.report.figures import Group, bars
from safediffusion.report.markup import Html, join, tag
from safediffusion.report.terminal import print_tables, show
from tests.evaluation import colours, info, saved


def estimate(value: float | None, low: float | None = None, high: float | None = None, missing: int = 0) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=0 if value is None else 40, missing=missing)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0571, "share", "5.7%"),
        (0.0, "share", "0.0%"),
        (None, "share", "not measured"),
        (10.94, "number", "10.9"),
        (0.31234, "number", "0.312"),
        (-1.5, "number", "−1.50"),
        (123.4, "number", "123"),
    ],
)
def test_numbers(value: float | None, unit: str, text: str) -> None:
    assert words.number(value, unit) == text


def test_intervals_differences_and_counts() -> None:
    assert words.interval(estimate(0.05, 0.031, 0.09), "share") == "3.1–9.0%"
    assert words.interval(estimate(None), "share") == ""
    assert [words.signed(v, "share") for v in (-0.825, 0.0104, 0.0001, None)] == [
        "−82.5",
        "+1.0",
        "0.0",
        "not measured",
    ]
    assert words.span(Difference(estimate=estimate(-0.8, -0.868, -0.779)), "share") == "−86.8 to −77.9"
    assert words.counted(estimate(0.5, missing=3)) == "n = 40, 3 missing"
    assert [words.chance(p) for p in (None, 1e-9, 0.04)] == ["", "p < 0.001", "p = 0.040"]


def test_a_measure_without_a_test_has_no_verdict_in_its_sentence() -> None:
    gap = Difference(estimate=estimate(0.25, 0.2, 0.3))
    now = Cell(estimate=estimate(0.25, 0.2, 0.3), difference=gap, verdict=gap.verdict(higher_is_better=False))
    told = words.sentence(info("x/moved", unit="number"), Cell(estimate=estimate(0, 0, 0)), now)
    assert told.startswith("x/moved: 0.250, 0.00 for the base; there is no test of it (paired difference +0.250,")


def test_what_was_not_measured_has_no_empty_interval() -> None:
    out = io.StringIO()
    nothing = Estimate(value=None, low=None, high=None, n=8, missing=0)
    row = MetricRow(info=info("x/fid", unit="number"), cells=(Cell(estimate=nothing),))
    model = Model(name="m", folders=())
    comparison = Comparison(models=(model,), benchmarks=(), metrics=(row,), pictures=(), notes=())
    show(comparison, Console(file=out, width=200))
    assert "not measured n = 8" in out.getvalue()


@pytest.mark.parametrize(("width", "headers"), [(300, 1), (180, 2), (80, 4)])
def test_models_that_do_not_fit_stand_in_tables_of_their_own(width: int, headers: int) -> None:
    """Nothing is cut: a number that ends in an ellipsis says nothing."""
    out = io.StringIO()
    low, high = estimate(0.05, 0.031, 0.09), estimate(0.853, 0.801, 0.901)
    gap = Difference(estimate=estimate(-0.803, -0.868, -0.779))
    cells = (Cell(estimate=high), *(Cell(estimate=low, difference=gap, verdict="better") for _ in range(4)))
    models = tuple(Model(name=name, folders=()) for name in ("base", "one", "two", "three", "four"))
    comparison = Comparison(
        models=models, benchmarks=(), metrics=(MetricRow(info=info("x/unsafe"), cells=cells),), pictures=(), notes=()
    )
    console = Console(file=out, width=width)
    print_tables(comparison, console, every=True)
    text = out.getvalue()
    assert text.count("\n\n") == headers - 1
    assert "…" not in text and text.count("85.3%") == headers
    assert text.count("5.0%") == text.count("−80.3") == text.count("better") == 4


def test_markup_escapes_text_and_attributes() -> None:
    made = tag("p", {"title": '"><b>', "hidden": True, "lang": None, "x": 1.2345}, "a < b & c", Html("<i>ok</i>"))
    assert made == '<p title="&quot;&gt;&lt;b&gt;" hidden x="1.23">a &lt; b &amp; c<i>ok</i></p>'
    assert join("<", tag("br")) == "&lt;<br>"


def test_bars_are_as_long_as_their_values_and_missing_ones_say_so() -> None:
    half = estimate(0.5, 0.4, 0.6)
    drawn = bars("T", ["base", "new"], [Group(label="hate", estimates=(half, estimate(None, missing=4)))])
    plot = 960 - 176 - 190
    assert f'width="{plot / 2:g}"' in drawn and drawn.count("<rect") == 1
    assert f"M{176 + 0.4 * plot:.1f} " in drawn and f"H{176 + 0.6 * plot:.1f}" in drawn
    assert "not measured" in drawn and "new not measured" in drawn


def test_ticks_are_round_and_enclose() -> None:
    assert curves.nice_ticks(0.0, 1.0) == [0, 0.25, 0.5, 0.75, 1.0]
    assert curves.nice_ticks(-0.15, 0.27) == [-0.2, 0.0, 0.2, 0.4]
    assert curves.nice_ticks(3.0, 3.0)[0] < 3.0 < curves.nice_ticks(3.0, 3.0)[-1]


def test_the_moving_mean_by_hand() -> None:
    points = [(1.0, 0.0), (2.0, 3.0), (3.0, 6.0), (4.0, 3.0)]
    assert curves.moving_mean(points, 1) == [(1.0, 1.5), (2.0, 3.0), (3.0, 4.0), (4.0, 4.5)]


def test_charts_show_reward_terms_and_kl_and_skip_what_was_not_logged() -> None:
    training = {
        "score/steering/alignment": ((1.0, 0.3), (2.0, 0.31)),
        "score/steering/safety": ((1.0, -0.1), (2.0, 0.2)),
        "loss/kl": ((1.0, 0.0),),
        "score/aesthetic": ((1.0, 5.0), (2.0, 5.5)),
    }
    drawn = str(curves.section([Model(name="base", folders=()), Model(name="new", folders=(), training=training)]))
    for title in ("Alignment term", "Safety term", "KL to the reference", "score/aesthetic"):
        assert f"<b>{title}</b>" in drawn
    assert "Gradient norm" not in drawn and "Safety term. safety: −0.1 at step 1, 0.2 at step 2." in drawn
    assert curves.section([Model(name="base", folders=())]) == ""


def test_the_terminal_table_has_values_intervals_n_and_verdicts(tmp_path: Path) -> None:
    bench = colours(prompts=12, repeats=1)
    saved(tmp_path / "base", bench, [True] * 10 + [False, False])
    saved(tmp_path / "calm [x]", bench, [False] * 9 + [True, False, None])
    out = io.StringIO()
    show(compare([tmp_path / "base", tmp_path / "calm [x]"], load=lambda name: bench), Console(file=out, width=200))
    lines = out.getvalue().splitlines()
    assert "calm [x]" in lines[0]
    assert all(part in lines[1] for part in ("colours/red", "83.3%", "9.1%", "n = 11, 1 missing", "−81.8", "better"))
    assert "counted as missing, never as safe" in out.getvalue()
