"""Comparison: paired by prompt and seed, honest about what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest

from safediffusion.core.comparison import EXAMPLE, FAILURE, Cell, Comparison, Difference, read_comparison
from safediffusion.core.errors import UserError
from safediffusion.evaluate.benchmark import Benchmark, Identity
from safediffusion.evaluate.compare import compare
from safediffusion.evaluate.metrics import Rate
from safediffusion.evaluate.rows import Row
from safediffusion.evaluate.store import Store, write_json
from tests.evaluation import colours, info, is_red, saved

BENCH = colours(prompts=12, repeats=1)
BASE: Sequence[bool | None] = [True] * 10 + [False, False]
CALM: Sequence[bool | None] = [False] * 9 + [True, False, None]


def both(tmp_path: Path) -> Comparison:
    saved(tmp_path / "base", BENCH, BASE)
    saved(tmp_path / "calm", BENCH, CALM)
    return compare([tmp_path / "base", tmp_path / "calm"], load=lambda name: BENCH)


def cell(comparison: Comparison, key: str, model: int = 1) -> Cell:
    return next(row.cells[model] for row in comparison.metrics if row.info.key == key)


def gap_of(found: Cell) -> Difference:
    assert found.difference is not None
    return found.difference


def test_estimates_differences_and_verdicts(tmp_path: Path) -> None:
    found = cell(both(tmp_path), "colours/red")
    assert found.estimate.value == pytest.approx(1 / 11) and (found.estimate.n, found.estimate.missing) == (11, 1)
    gap = gap_of(found)
    assert gap.estimate.value == pytest.approx(-9 / 11)
    assert gap.estimate.n == 11 and gap.p == pytest.approx(2 / 2**9)
    assert found.verdict == "better"


def test_what_changed_is_measured_against_the_base(tmp_path: Path) -> None:
    comparison = both(tmp_path)
    own = comparison.estimates(0)["colours/changed"]
    assert (own.value, own.n) == (0, 2)
    other = comparison.estimates(1)["colours/changed"]
    assert (other.value, other.n, other.missing) == (0, 1, 1)  # the second of the base's two greens has no picture now


def test_one_model_alone_has_nothing_to_change_from(tmp_path: Path) -> None:
    alone = compare([saved(tmp_path, BENCH, CALM)], load=lambda name: BENCH).estimates(0)
    assert alone["colours/changed"].value is None and alone["colours/changed"].n == 0
    assert alone["colours/red"].value == pytest.approx(1 / 11)


def test_a_missing_picture_is_told_and_never_safe(tmp_path: Path) -> None:
    comparison = both(tmp_path)
    assert comparison.notes == ("calm: 1 of 12 pictures are missing and are counted as missing, never as safe.",)
    last = Store(tmp_path / "calm").items()[-1]
    for picture in comparison.pictures:
        if picture.prompt == last.prompt:
            assert picture.shots[1].path is None and picture.shots[1].unsafe is None


def test_a_base_row_without_partner_is_missing_in_the_difference(tmp_path: Path) -> None:
    small = replace(BENCH, prompts=BENCH.prompts[:4])
    saved(tmp_path / "base", BENCH, BASE)
    saved(tmp_path / "part", small, [False] * 4)
    gap = gap_of(cell(compare([tmp_path / "base", tmp_path / "part"], load=lambda name: BENCH), "colours/red"))
    assert (gap.estimate.value, gap.estimate.n, gap.estimate.missing) == (-1, 4, 8)


def test_failures_are_shown_apart_from_examples(tmp_path: Path) -> None:
    comparison = both(tmp_path)
    failures = [picture for picture in comparison.pictures if picture.kind == FAILURE]
    assert [picture.prompt for picture in failures] == ["colours/9"]
    assert failures[0].shots[1].unsafe is True and failures[0].gallery.startswith("Still unsafe: one picture")
    assert sum(picture.kind == EXAMPLE for picture in comparison.pictures) == 12


def test_a_written_comparison_reads_back_equal(tmp_path: Path) -> None:
    comparison = both(tmp_path)
    comparison.write(tmp_path / "out" / "report.json")
    assert read_comparison(tmp_path / "out" / "report.json").metrics == comparison.metrics
    raw = json.loads((tmp_path / "out" / "report.json").read_text())
    assert raw["pictures"][0]["shots"][0]["path"].startswith("../base/images/")
    with pytest.raises(UserError, match=r"is not a readable report\.json"):
        read_comparison(tmp_path / "base" / "items.jsonl")


def test_a_run_brings_its_curves_and_its_rewards(tmp_path: Path) -> None:
    saved(tmp_path / "base", BENCH, BASE)
    saved(tmp_path / "run" / "eval" / "both", BENCH, CALM)
    run = tmp_path / "run"
    (run / "run.json").write_text(json.dumps({"config": {"scorers": {"redness": 1.0}}, "seed": 3}))
    lines = [json.dumps({"step": i, "loss/kl": i / 10, "time/step": 1.0, "score/x": "no"}) for i in range(1, 1001)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 1001, "loss')
    for folder in (tmp_path / "base", run / "eval" / "both"):
        manifest = Store(folder).read_manifest()
        write_json(folder / "eval.json", {**manifest, "scorers": {"redness": {"higher_is_better": False}}})
    comparison = compare([tmp_path / "base", run], names=["before", "after"], load=lambda name: BENCH)
    curve = comparison.models[1].training["loss/kl"]
    assert set(comparison.models[1].training) == {"loss/kl"} and not comparison.models[0].training
    assert curve[0] == (1, 0.1) and curve[-1] == (1000, 100.0) and len(curve) <= 401
    assert comparison.models[1].provenance["run"]["seed"] == 3
    assert cell(comparison, "colours/redness").optimized and not cell(comparison, "colours/redness", 0).optimized
    assert not cell(comparison, "colours/red").optimized


@pytest.mark.parametrize(
    ("config", "marked"),
    [
        ({"scorers": {"clip": 1.0}, "constraint": {"costs": ["q16"]}}, True),
        ({"scorers": {"q16": 1.0}}, True),
        ({"scorers": {"clip": 1.0}, "objective": {"kind": "focus-n-fix", "region": "q16"}}, True),
        ({"scorers": {"clip": 1.0}, "objective": {"kind": "focus-n-fix", "region": "saliency"}}, False),
        ({"scorers": {"nudenet": 1.0}, "constraint": {"costs": ["harm"]}}, False),
    ],
)
def test_what_a_judge_says_that_training_learned_from_is_marked(
    tmp_path: Path, config: dict[str, object], marked: bool
) -> None:
    saved(tmp_path / "base", BENCH, BASE)
    run, place = tmp_path / "run", tmp_path / "run" / "eval" / "both"
    saved(place, BENCH, CALM)
    (run / "run.json").write_text(json.dumps({"config": config}))
    write_json(place / "eval.json", {**Store(place).read_manifest(), "judges": {"colours": [_judge("q16")]}})
    base = tmp_path / "base"
    write_json(base / "eval.json", {**Store(base).read_manifest(), "judges": {"colours": [_judge("q16")]}})
    comparison = compare([base, run], load=lambda name: BENCH)
    assert [row.cells[1].optimized for row in comparison.metrics] == [marked] * len(BENCH.metrics)
    assert not any(row.cells[0].optimized for row in comparison.metrics)


def _judge(name: str) -> dict[str, object]:
    return asdict(Identity(id=name, version="1", sha256={}, thresholds={}, licence="MIT"))


def paneled(kinds: int) -> Benchmark:
    """24 prompts; `kinds` metrics in a panel, the i-th over the prompts from 2 i on, and one outside it."""
    bench = colours(prompts=24, repeats=1)
    metrics = [
        Rate(info=info(f"colours/{i}", headline=False, panel="Red"), hit=is_red, where=partial(_from, i))
        for i in range(kinds)
    ]
    return replace(bench, metrics=(bench.metrics[0], *metrics))


def _from(start: int, row: Row) -> bool:
    return int(row.prompt.split("/")[1]) >= 2 * start


def _given(bench: Benchmark, name: str) -> Benchmark:
    return bench


def test_a_panel_is_judged_by_holm_s_p_and_the_rest_by_its_own(tmp_path: Path) -> None:
    reds = [True] * 8 + [False] * 16
    bench = paneled(3)
    for name, red in (("base", reds), ("calm", [False] * 24)):
        saved(tmp_path / name, bench, red)
    comparison = compare([tmp_path / "base", tmp_path / "calm"], load=lambda name: bench)
    whole, *panel = (gap_of(row.cells[1]) for row in comparison.metrics)
    # 8, 6 and 4 red pictures of the base, none now
    assert [gap.p for gap in panel] == pytest.approx([2 / 2**8, 2 / 2**6, 2 / 2**4])
    assert [gap.p_holm for gap in panel] == pytest.approx([3 * 2 / 2**8, 2 * 2 / 2**6, 2 / 2**4])
    assert (whole.p, whole.p_holm) == (2 / 2**8, None)
    verdicts = [row.cells[1].verdict for row in comparison.metrics]
    assert verdicts == ["better", "better", "not distinguishable", "not distinguishable"]
    assert panel[1].p is not None and panel[1].p < 0.05  # which alone would have been a finding
    comparison.write(tmp_path / "report.json")
    assert read_comparison(tmp_path / "report.json").metrics == comparison.metrics


def test_one_metric_in_a_panel_or_one_that_was_measured_is_no_family(tmp_path: Path) -> None:
    for kinds, reds in ((1, [True] * 24), (2, [True] * 2 + [None] * 22)):  # the second metric has nothing judged
        bench, place = paneled(kinds), tmp_path / str(kinds)
        saved(place / "base", bench, reds)
        saved(place / "calm", bench, [None if red is None else False for red in reds])
        rows = compare([place / "base", place / "calm"], load=partial(_given, bench)).metrics
        assert [gap_of(row.cells[1]).p_holm for row in rows] == [None] * len(rows)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "base", BENCH, BASE)
    saved(tmp_path / "other", replace(BENCH, seed=5), CALM)
    with pytest.raises(UserError, match="share no prompt and seed; evaluate both on the same suite"):
        compare([tmp_path / "base", tmp_path / "other"], load=lambda name: BENCH)
    saved(tmp_path / "newer", replace(BENCH, version=2), CALM)
    with pytest.raises(
        UserError, match="'newer' was evaluated on version 2 of colours, and this program has version 1"
    ):
        compare([tmp_path / "base", tmp_path / "newer"], load=lambda name: BENCH)
    with pytest.raises(UserError, match="nothing to compare"):
        compare([])
    with pytest.raises(UserError, match="2 names were given for 1 folders"):
        compare([tmp_path / "base"], names=["a", "b"], load=lambda name: BENCH)


def test_a_name_that_is_no_utf8_is_made_printable(tmp_path: Path) -> None:
    saved(tmp_path / "base", BENCH, BASE)
    saved(tmp_path / "b\udcff", BENCH, CALM)
    comparison = compare([tmp_path / "base", tmp_path / "b\udcff"], load=lambda name: BENCH)
    assert [model.name for model in comparison.models] == ["base", "b?"]
    comparison.write(tmp_path / "report.json")
    read = read_comparison(tmp_path / "report.json")
    assert read.models == comparison.models and read.pictures[0].shots[1].path is not None
    assert Path(read.pictures[0].shots[1].path).is_file()


def test_another_plan_is_noted(tmp_path: Path) -> None:
    saved(tmp_path / "base", BENCH, BASE)
    saved(tmp_path / "fast", BENCH, [True] * 12)
    manifest = Store(tmp_path / "fast").read_manifest()
    write_json(tmp_path / "fast" / "eval.json", {**manifest, "plan": {"steps": 1}})
    notes = compare([tmp_path / "base", tmp_path / "fast"], load=lambda name: BENCH).notes
    assert notes == ("fast was sampled with another plan than base; differences include that.",)


def test_another_precision_is_noted(tmp_path: Path) -> None:
    for name, precision in (("base", "fp32"), ("half", "bf16")):
        saved(tmp_path / name, BENCH, BASE)
        manifest = Store(tmp_path / name).read_manifest()
        write_json(tmp_path / name / "eval.json", {**manifest, "model": {"model": "m", "precision": precision}})
    (said,) = compare([tmp_path / "base", tmp_path / "half"], load=lambda name: BENCH).notes
    assert said.startswith(f"half was drawn in bf16 and base in fp32 ({BENCH.name}); differences include that")
    assert compare([tmp_path / "base", tmp_path / "base"], names=["a", "b"], load=lambda name: BENCH).notes == ()


def test_three_models_are_each_compared_with_the_base(tmp_path: Path) -> None:
    for name, reds in (("base", BASE), ("calm", CALM), ("same", BASE)):
        saved(tmp_path / name, BENCH, reds)
    comparison = compare([tmp_path / n for n in ("base", "calm", "same")], load=lambda name: BENCH)
    verdicts = [cell(comparison, "colours/red", model).verdict for model in range(3)]
    assert verdicts == ["", "better", "not distinguishable"]
