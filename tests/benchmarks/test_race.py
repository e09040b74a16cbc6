"""The race to safe: what counts as there, whose turn it is, and that a stopped one goes on exactly."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import race as racing
from benchmarks import time_to_safe
from benchmarks.race import QUALITY, UNSAFE, Base, Point, Progress, Racer, Rules, in_words, passes, promising, race
from safediffusion.config.load import load_recipe
from safediffusion.config.schema import Recipe
from safediffusion.core.errors import UserError
from safediffusion.core.stats import Estimate
from safediffusion.evaluate.benchmark import Suite
from safediffusion.models.policy import Policy
from tests import small, tiny

RULES = Rules(minutes=60, probe_images=8, probe_limit=2, confirm_limit=None, device="cpu")


def found(unsafe: float | None, quality: float | None) -> dict[str, Estimate]:
    values = {UNSAFE: unsafe, QUALITY: quality}
    return {key: Estimate(value=value, low=value, high=value, n=8, missing=0) for key, value in values.items()}


BASE = Base(probe=found(0.9, 0.70), confirm=found(0.9, 0.72))


@pytest.mark.parametrize(
    ("unsafe", "quality", "there"),
    [
        (0.10, 0.68, True),
        (0.11, 0.68, False),
        (0.10, 0.679, False),
        (0.0, 0.9, True),
        (None, 0.9, False),
        (0.0, None, False),
    ],
)
def test_what_counts_as_there(unsafe: float | None, quality: float | None, there: bool) -> None:
    assert passes(found(unsafe, quality), BASE.probe) is there


@pytest.mark.parametrize(
    ("unsafe", "quality", "high", "asked"),
    [(0.10, 0.60, 0.68, True), (0.10, 0.60, 0.679, False), (0.11, 0.70, 0.8, False), (0.0, None, None, False)],
)
def test_a_few_prompts_do_not_rule_out_what_all_may_show(
    unsafe: float, quality: float | None, high: float | None, asked: bool
) -> None:
    seen = found(unsafe, quality)
    wide = {**seen, QUALITY: replace(seen[QUALITY], high=high)}
    assert promising(wide, BASE.probe) is asked


@pytest.fixture
def recipe(folders: small.Folders) -> Recipe:
    return load_recipe("emoji-steer", [*folders.small, "steps=4"])


Script = Callable[[str, int], dict[str, Estimate]]  # (probe or confirm, training step) -> what is measured


def scripted(monkeypatch: pytest.MonkeyPatch, script: Script) -> list[str]:
    """Measurements from a script instead of pictures; returns the list of folders asked for."""
    asked: list[str] = []

    def measure(policy: Policy, recipe: Recipe, suite: Suite, folder: Path) -> Mapping[str, Estimate]:
        (folder / "images").mkdir(parents=True)
        asked.append(folder.name)
        return script(suite.name, int(folder.name.rpartition("-")[2]))

    monkeypatch.setattr(racing, "_measure", measure)
    return asked


def racer(recipe: Recipe, folder: Path, *, rules: Rules = RULES) -> Racer:
    return Racer(recipe, rules, folder, BASE, say=lambda text: None)


@pytest.mark.usefixtures("tiny_world")
def test_a_probe_that_passes_is_confirmed_on_all_prompts(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(name: str, step: int) -> dict[str, Estimate]:
        return found(0.05, 0.71 if name == "probe" or step == 4 else 0.69)

    asked = scripted(monkeypatch, script)
    runner = racer(recipe, tmp_path)
    runner.turn(1e9)
    assert asked == ["probe-000002", "confirm-000002", "probe-000004", "confirm-000004"]
    assert [point.confirmed for point in runner.progress.points] == [None, False, True]
    there = runner.progress.reached
    assert there is not None and (there.step, there.images) == (4, 16) and there.seconds > 0
    assert there.forwards == runner.trainer.totals["unet_forwards"] > 0
    assert runner.finished and runner.progress.measuring > 0
    assert not list(tmp_path.glob("probes/*/images"))


@pytest.mark.usefixtures("tiny_world")
def test_a_stopped_racer_goes_on_exactly(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, lambda name, step: found(0.9 - 0.1 * step, 0.7))
    whole = racer(recipe, tmp_path / "whole")
    whole.turn(1e9)
    first = racer(recipe, tmp_path / "parts")
    first.turn(1e-9)
    assert first.progress.step == 1
    first.trainer.step(1)  # lost: the process stops before the turn's end
    second = racer(recipe, tmp_path / "parts")
    assert second.progress.step == 1 and second.progress.seconds == first.progress.seconds
    second.turn(1e9)
    assert torch.equal(tiny.flat(whole.trainer.policy), tiny.flat(second.trainer.policy))

    def timeless(point: Point) -> Point:
        return replace(point, seconds=0.0)

    assert [*map(timeless, whole.progress.points)] == [*map(timeless, second.progress.points)]
    assert Progress.read(json.loads(json.dumps(second.progress.json()))) == second.progress
    with pytest.raises(UserError, match="another version of recipe emoji-steer"):
        racer(replace(recipe, seed=9), tmp_path / "parts")
    state = tmp_path / "parts" / "progress.json"
    older = json.loads(state.read_text())
    del older["config"]["attack"]["sweep"]  # as a version wrote it that did not know this key
    state.write_text(json.dumps(older))
    assert racer(recipe, tmp_path / "parts").progress.step == second.progress.step


@pytest.mark.usefixtures("tiny_world")
def test_turns_go_to_the_one_that_trained_least(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, lambda name, step: found(0.9, 0.7))
    one, two = (racer(replace(recipe, name=name), tmp_path / name) for name in ("one", "two"))
    order: list[str] = []
    turn = Racer.turn

    def noted(each: Racer, seconds: float) -> None:
        order.append(each.recipe.name)
        turn(each, seconds)

    monkeypatch.setattr(Racer, "turn", noted)
    two.progress.seconds = 1e-12
    race([one, two], 1e-9)
    assert order[:2] == ["one", "two"] and len(order) == 8
    assert one.finished and two.finished and one.progress.step == two.progress.step == 4


@pytest.mark.usefixtures("tiny_world")
def test_the_time_limit_ends_a_racer(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, lambda name, step: found(0.9, 0.7))
    runner = racer(recipe, tmp_path, rules=replace(RULES, minutes=1e-9, probe_images=10**6))
    runner.turn(1e9)
    assert runner.finished and runner.progress.step == 1 and runner.progress.reached is None
    assert [point.step for point in runner.progress.points] == [0, 1], "the end itself is measured"
    assert "did not get there by 1e-09 minutes of training (1 steps)" in time_to_safe.end(runner, runner.rules)
    assert "unsafe 90.0%" in in_words(runner.progress.points[-1])


def test_overrides_go_to_all_or_to_one() -> None:
    names = ("emoji-steer", "emoji-r1-released")
    steer, released = time_to_safe.recipes_of(names, ["seed=7", "emoji-r1-released:objective.updates=2"])
    assert (steer.seed, released.seed) == (7, 7)
    assert (steer.objective.updates, released.objective.updates) == (1, 2)
    with pytest.raises(UserError, match="'other', which does not take part"):
        time_to_safe.recipes_of(names, ["other:seed=1"])
    with pytest.raises(UserError, match="different models"):
        time_to_safe.recipes_of(names, ["emoji-steer:model=elsewhere"])


@pytest.mark.usefixtures("tiny_world")
def test_the_whole_race_writes_its_page(folders: small.Folders, tmp_path: Path) -> None:
    page, out = tmp_path / "docs" / "time-to-safe.md", tmp_path / "runs"
    adapter = [f"emoji-steer:{key}" for key in small.ADAPTER]
    arguments = [
        *folders.whole,
        *adapter,
        "emoji-r1-released:objective.updates=2",
        "--slice",
        "0.001",
        "--probe-images",
        "8",
    ]
    arguments += ["--probe-limit", "2", "--out", str(out), "--page", str(page)]
    done = CliRunner().invoke(time_to_safe.command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told = json.loads((out / "time-to-safe.json").read_text())
    for name in ("emoji-steer", "emoji-r1-released"):
        mine = told["recipes"][name]
        assert mine["reached"] == any(point["confirmed"] for point in mine["points"])
        assert mine["points"][0]["step"] == 0 and mine["points"][-1]["images"] in (4, 8)
    text = page.read_text()
    assert "did not get there" in text or "times fewer UNet forwards" in text
    assert page.with_suffix(".svg").read_text().startswith("<svg")
