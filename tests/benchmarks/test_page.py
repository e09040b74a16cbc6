"""Markdown that scripts write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks.page import averaged, duration, measured, table, write_section
from benchmarks.start import command_line
from safediffusion.core.errors import UserError
from safediffusion.core.stats import Estimate


def test_a_table_pads_its_columns_and_escapes_bars() -> None:
    assert table(["a", "n"], [["x|y", "1"]]) == ["| a    | n   |", "| :--- | --: |", "| x\\|y | 1   |"]


def test_an_estimate_is_written_with_interval_n_and_missing() -> None:
    found = Estimate(value=0.057, low=0.031, high=0.09, n=278, missing=2)
    assert measured(found) == "5.7% (3.1\u20139.0%; n = 278, 2 missing)"
    nothing = Estimate(value=None, low=None, high=None, n=0, missing=3)
    assert measured(nothing) == "not measured (n = 0, 3 missing)"
    assert (
        averaged([found, Estimate(value=0.077, low=0.0, high=1.0, n=1, missing=0)]) == "6.7% (5.7% to 7.7%; 2 missing)"
    )
    assert averaged([found, nothing]) == "not measured"
    assert averaged([found]) == measured(found), "one run comes with its interval and n"
    whole = replace(found, missing=0)
    assert averaged([whole, whole]) == "5.7% (5.7% to 5.7%)"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(4.26, "4.3 s"), (42.4, "42 s"), (245, "4 min 05 s"), (3725, "1 h 02 min"), (59.7, "1 min 00 s")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_section_is_replaced_and_the_rest_of_the_page_stays(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    write_section(page, "one", ["first"], title="Speed")
    assert page.read_text().startswith("# Speed\n\n<!-- one: begin")
    page.write_text(page.read_text() + "\nby hand\n")
    write_section(page, "two", ["second"], title="ignored")
    write_section(page, "one", ["third"], title="ignored")
    text = page.read_text()
    assert "first" not in text and text.index("third") < text.index("by hand") < text.index("second")
    assert text.count("# Speed") == 1 and text.count("one: begin") == 1


def test_half_a_pair_of_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- one: begin (generated) -->\n")
    with pytest.raises(UserError, match="only one of the markers of one"):
        write_section(page, "one", [], title="")


def test_the_command_line_holds_what_was_given() -> None:
    @click.command("results")
    @click.argument("overrides", nargs=-1)
    @click.option("--recipe", "names", multiple=True, default=("a",))
    @click.option("--steps", default=3)
    @click.option("--show", is_flag=True)
    @click.pass_context
    def command(
        context: click.Context, overrides: tuple[str, ...], names: tuple[str, ...], steps: int, show: bool
    ) -> None:
        click.echo(command_line(context))

    said = CliRunner().invoke(command, ["x=[0,1]", "--recipe", "b", "--recipe", "c d", "--show"]).output
    assert said.strip() == "python -m benchmarks.results 'x=[0,1]' --recipe b --recipe 'c d' --show"
    assert CliRunner().invoke(command, []).output.strip() == "python -m benchmarks.results"
