"""`safediffusion list`."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from safediffusion.cli.listing import KINDS, entries, names
from safediffusion.cli.main import run
from safediffusion.cli.methods import METHODS, Measured
from safediffusion.config.cost import forecast
from safediffusion.config.load import load_recipe, recipe_names, to_plain
from safediffusion.evaluate.registry import SUITES


def test_every_kind_has_names_and_says_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in KINDS:
        found = entries(kind)
        assert found and all(found.values()), kind
        assert names(kind) == tuple(found), kind
    assert run(["list"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()] == list(KINDS)
    assert ", ".join(recipe_names()) in shown


def test_a_kind_is_listed_a_line_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "suites"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(SUITES)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_a_recipe_that_can_be_forecast(method: str) -> None:
    found = METHODS[method]
    recipe = load_recipe(found.recipe, found.keys)
    assert forecast(recipe).forwards > 0
    told = str(to_plain(recipe)).replace(" ", "").replace("'", "").replace("None", "null")
    assert all(key.partition("=")[2].replace(" ", "") in told for key in found.keys)
    assert shlex.split(found.command) == ["safediffusion", "train", found.recipe, *found.keys]
    page = (Path(__file__).parents[2] / "docs" / "methods" / f"{found.page}.md").read_text(encoding="utf-8")
    assert f"`{method}`" in page or f"`{found.recipe}`" in page


@pytest.mark.parametrize(
    ("panel", "backwards", "told"),
    [
        (0.4, 3.0, "0.40 of the tolerance at +0.20 std of reward after 1 step"),
        (None, 3.0, "not measured"),
        (0.0, 0.0, "not measured: its policy rested"),
    ],
)
def test_the_risk_of_what_never_moved_is_not_measured(panel: float | None, backwards: float, told: str) -> None:
    found = Measured(steps=1, forwards=8.0, backwards=backwards, panel=panel, reward=0.2, seeds=3)
    assert found.risk == told and f"guard's panel: {told}" in found.words


def test_the_risk_of_what_nothing_rewards_is_what_it_lost() -> None:
    found = Measured(steps=2, forwards=8.0, backwards=3.0, panel=0.4, reward=None, seeds=3)
    assert found.risk == "0.40 of the tolerance without a reward after 2 steps"
