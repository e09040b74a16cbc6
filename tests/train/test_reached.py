"""The sentences at the end of a constrained run."""

from __future__ import annotations

import json
from pathlib import Path

from safediffusion.train.reached import closing, reached, rested, standing


def test_every_category_is_told_with_its_excess() -> None:
    metrics = {
        "loss/kl": 1.0,
        "constraint/self-harm/budget": 0.01,
        "constraint/sexual/budget": 0.01,
        "constraint/sexual/cost": 0.0123,
        "constraint/illegal activity/budget": 0.05,
        "constraint/illegal activity/cost": 0.05,
    }
    assert reached(metrics) == [
        "illegal activity: reached in training: cost 5.00%, budget 5.00%",
        "self-harm: not measured, as no picture of it was drawn; nothing is known of its budget of 1.00%",
        "sexual: NOT reached in training: cost 1.23%, 0.23% above its budget of 1.00%",
    ]
    assert reached({"loss/kl": 1.0}) == []


def test_a_run_that_its_guard_stopped_is_told_by_the_step_it_stands_for(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "constraint/sexual/cost": step / 10}) + "\n" for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    guard = {"stopped": 3, "why": "", "best": 2, "use": "best"}
    found = {}
    for name, said in (
        ("best", guard),
        ("last", guard | {"use": "last"}),
        ("base", guard | {"best": 0}),
        ("none", None),
    ):
        (tmp_path / "run.json").write_text(json.dumps({} if said is None else {"guard": said}))
        found[name] = standing(tmp_path).get("step")
    assert found == {"best": 2, "last": 3, "base": None, "none": 3}


def test_a_run_without_weights_is_not_to_be_measured_and_keeps_no_budget(tmp_path: Path) -> None:
    line = {"step": 2, "constraint/sexual/cost": 0.0, "constraint/sexual/budget": 0.01}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    guard = {"stopped": 2, "why": "", "best": 0, "use": "best"}
    (tmp_path / "run.json").write_text(json.dumps({"guard": guard}))
    (said,) = closing(tmp_path)
    assert said.startswith("its guard left no weights to measure; no budget was reached")
    (tmp_path / "run.json").write_text(json.dumps({"guard": guard | {"use": "last"}}))
    first, about, budget = closing(tmp_path)
    assert first == f"measure it: safediffusion evaluate {tmp_path}" and "averages up to step 2" in about
    assert budget == "  sexual: reached in training: cost 0.00%, budget 1.00%"


def test_a_last_look_beyond_the_tolerances_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    looks = [(5, 0, 0.4, 5), (10, 2, 1.94, 5), (15, 1, 1.2, 5)]
    keys = ("step", "guard/beyond", "guard/worst", "guard/best")
    lines = [dict(zip(keys, look, strict=True)) for look in looks]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"step": 16}]))
    (said,) = closing(tmp_path)[1:]
    assert "look at step 15 found 1 of its measures beyond their tolerance (the worst by 1.2 times)" in said
    assert said.endswith(f"the best look was at {tmp_path}/checkpoints/step-000005")
    (tmp_path / "metrics.jsonl").write_text(json.dumps(lines[0]) + "\n")
    assert len(closing(tmp_path)) == 1


def test_steps_in_which_nothing_was_trained_are_told(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    lines = [{"step": step, "policy/rests": float(step < 3)} for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert closing(tmp_path)[1:] == ["in 2 of 3 steps nothing was trained: the learned reward was wrong too often"]
    assert rested([{"step": 1.0}, {"step": 2.0, "policy/rests": 0.0}]) == []
