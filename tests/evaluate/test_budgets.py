"""Budgets beside what was measured: met, not met, cannot be told; through a comparison, the page and the terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from safediffusion.core.comparison import MET, NOT_MET, UNTOLD, BudgetVerdict, Comparison, Model, read_comparison
from safediffusion.core.stats import rate
from safediffusion.evaluate.budgets import verdict, verdicts
from safediffusion.evaluate.rows import Row
from safediffusion.evaluate.side import Side
from safediffusion.report import words
from safediffusion.report.html import write_report
from tests.report import comparisons


@pytest.mark.parametrize(
    ("hits", "n", "missing", "budget", "expected"),
    [
        (0, 381, 0, 0.01, MET),  # Wilson's upper end of none in n is z^2 / (n + z^2) = 3.84 / 384.84
        (0, 380, 0, 0.01, UNTOLD),
        (0, 381, 1, 0.01, UNTOLD),
        (1, 100, 0, 0.01, UNTOLD),
        (50, 100, 0, 0.3, NOT_MET),
        (50, 100, 10, 0.3, NOT_MET),  # the lower end .404 of 100 is .367 of 110
        (50, 100, 60, 0.3, UNTOLD),  # and .252 of 160
        (0, 0, 20, 0.3, UNTOLD),
    ],
)
def test_a_verdict_needs_the_whole_interval(hits: int, n: int, missing: int, budget: float, expected: str) -> None:
    measured = rate([True] * hits + [False] * (n - hits) + [None] * missing)
    assert verdict(measured, budget) == expected


def _side(folder: Path, costs: list[str]) -> Side:
    """A run with budgets of two categories by name and of one by the number for all, judged by q16."""
    constraint = {"costs": costs, "budgets": {"sexual": 0.2, "nudity": 0.1}, "budget": 0.5}
    (folder / "run.json").write_text(json.dumps({"config": {"scorers": {"clip": 1.0}, "constraint": constraint}}))
    logged = {"step": 1, "constraint/hate/budget": 0.5, "constraint/hate/cost": 0.1, "constraint/sexual/budget": 0.2}
    (folder / "metrics.jsonl").write_text(json.dumps(logged) + "\n")
    manifests = {"i2p": {"judges": {"i2p": [{"id": "q16"}]}}}
    return Side(name="mine", folders=(folder,), rows={"i2p": []}, stores={}, manifests=manifests, run=folder)


def test_verdicts_come_from_the_recipe_and_the_category_s_metric(tmp_path: Path) -> None:
    cells = [comparisons.share(50, 100), comparisons.share(5, 100)]
    metrics = [
        comparisons.row("i2p/unsafe/sexual", "sexual", cells),
        comparisons.row("i2p/unsafe/hate", "hate", [cells[1], comparisons.share(0, 10)]),
        comparisons.row("other/sexual", "sexual", cells),  # not evaluated on this side
        comparisons.row("i2p/good/sexual", "sexual", cells, up=True),
    ]
    found = list(verdicts(_side(tmp_path, ["harm"]), 1, metrics))
    told = {(each.category, each.benchmark): (each.verdict, each.budget, each.trained_on) for each in found}
    assert told == {
        ("hate", "i2p"): (MET, 0.5, False),
        ("sexual", "i2p"): (MET, 0.2, False),
        ("nudity", ""): (UNTOLD, 0.1, False),
    }
    assert all(each.trained_on for each in verdicts(_side(tmp_path, ["q16"]), 1, metrics) if each.benchmark)
    assert not list(verdicts(_side(tmp_path, []), 1, metrics))
    assert not list(verdicts(replace(_side(tmp_path, ["harm"]), run=None), 1, metrics))


def test_the_constraint_s_own_cost_has_a_word_where_it_was_measured(tmp_path: Path) -> None:
    """Two judges of cost: their mean and half their deviation of each picture, (.1, .3) is .25 and (.1, .1) is .1."""
    side = _side(tmp_path, ["a", "b"])
    config = json.loads((tmp_path / "run.json").read_text())
    config["config"]["constraint"]["std"] = 0.5
    (tmp_path / "run.json").write_text(json.dumps(config))
    plain = Row(benchmark="i2p", key="", prompt="", text="t", seed=0, repeat=0, tags={"category": "sexual"})
    several = {"categories": "hate, sexual"}
    rows = [
        replace(plain, key="0", prompt="0", scores={"a": 0.1, "b": 0.3}),
        replace(plain, key="1", prompt="1", scores={"a": 0.1, "b": 0.1}, tags=several),
        replace(plain, key="2", prompt="2", scores={"a": 0.1}),
        replace(plain, key="3", prompt="3", scores={"a": 1.0, "b": 1.0}, tags={"category": "violence"}),
    ]
    metrics = [comparisons.row("i2p/unsafe/sexual", "sexual", [comparisons.share(90, 100)] * 2)]
    manifests = {"i2p": {**side.manifests["i2p"], "scorers": {"a": {}, "b": {}}}}
    measured = replace(side, rows={"i2p": rows}, manifests=manifests)
    judge, own = [each for each in verdicts(measured, 1, metrics) if each.benchmark]
    assert (judge.by, judge.verdict, judge.trained_on) == ("", NOT_MET, False)
    assert (own.by, own.verdict, own.trained_on) == ("a + b", UNTOLD, True)
    assert own.estimate.value == pytest.approx(0.175) and (own.estimate.n, own.estimate.missing) == (2, 1)
    assert own.estimate.low == pytest.approx(0.1) and own.estimate.high == pytest.approx(0.25)
    assert "by the constraint's own cost, a + b" in words.budget(own)
    cheap = [replace(plain, key=str(n), prompt=str(n), scores={"a": 0.1, "b": 0.1}) for n in range(6)]
    for count, word in ((5, UNTOLD), (6, MET)):  # so few prompts have no width between them
        few = replace(measured, rows={"i2p": cheap[:count]})
        (own,) = [each for each in verdicts(few, 1, metrics) if each.by]
        assert own.verdict == word and own.estimate.low == own.estimate.high == pytest.approx(0.1)
    partly = replace(measured, manifests={"i2p": {"scorers": {"a": {}}}})
    assert [each.by for each in verdicts(partly, 1, metrics) if each.benchmark] == [""]
    # terms of a cost are its members, of (.1, .3) and .1 as above; columns of a judge beside its own are none
    for facts, expected in (({}, (0.1 + 0.3) / 2 + 0.5 * 0.1), ({"judge": {"id": "a"}}, 0.2)):
        row = replace(plain, key="4", prompt="4", scores={"a": 0.2, "a/one": 0.1, "a/two": 0.3})
        side = replace(measured, rows={"i2p": [row]}, manifests={"i2p": {"scorers": {"a": facts}}})
        config["config"]["constraint"]["costs"] = ["a"]
        (tmp_path / "run.json").write_text(json.dumps(config))
        (own,) = [each for each in verdicts(side, 1, metrics) if each.by]
        assert own.estimate.value == pytest.approx(expected)


def test_budgets_stand_on_the_page_and_are_said(tmp_path: Path) -> None:
    word = BudgetVerdict(
        model="mine",
        category="sexual",
        budget=0.01,
        benchmark="i2p",
        estimate=comparisons.share(5, 100),
        verdict=NOT_MET,
    )
    nothing = replace(word, category="<b>", benchmark="", estimate=rate([]), verdict=UNTOLD, trained_on=True)
    curve = {f"constraint/sexual/{key}": ((1.0, 0.5), (2.0, 0.1)) for key in ("cost", "budget", "u", "lambda")}
    metrics = (comparisons.row("i2p/unsafe/sexual", "sexual", [comparisons.share(5, 100)]),)
    model = Model(name="mine", folders=(), training=curve)
    plain = Comparison(models=(model,), benchmarks=(), metrics=metrics, pictures=())
    page = write_report(replace(plain, budgets=(word, nothing)), tmp_path)
    assert read_comparison(tmp_path / "report.json").budgets == (word, nothing)
    text = page.read_text()
    assert "Budgets of harm" in text and "not met" in text and "none measures it" in text and "<b><b>" not in text
    assert "Cost of sexual. cost: 0.5 at step 1, 0.1 at step 2." in text and "Multipliers of sexual" in text
    assert words.budget(word).startswith("mine, budget of 1.0% for sexual: not met (i2p: 5.0% [")
    assert "no benchmark of this comparison measures" in words.budget(nothing)
    old = json.loads((tmp_path / "report.json").read_text())
    del old["budgets"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert read_comparison(tmp_path / "old.json").budgets == ()
