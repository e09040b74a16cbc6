"""Rows: what was not measured stays unmeasured through a file and back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from safediffusion.core.errors import UserError
from safediffusion.evaluate.rows import Detection, dump, key_of, load
from tests.evaluation import row


def test_a_row_comes_back_equal() -> None:
    seen = (Detection(name="red heart", x=1.25, y=60.0, score=0.9876),)
    full = replace(row(seen=("x",)), detections=seen, features=(0.125, -3.0), scores={"q16": 0.5}, tags={"a": "b"})
    assert load(dump(full), "here") == full


def test_boxes_and_colours_come_back_equal() -> None:
    seen = (
        Detection(name="dog", x=1.25, y=60.0, score=0.600001, width=20.5, height=0.25, colour="red"),
        Detection(name="bus", x=3.0, y=4.0, score=0.25, width=1.0, height=2.0),
    )
    full = replace(row(), detections=seen)
    assert load(dump(full), "here") == full
    written = json.loads(dump(full))["detections"]
    assert list(written[0]) == ["name", "x", "y", "score", "width", "height", "colour"]
    assert list(written[1]) == ["name", "x", "y", "score", "width", "height"]
    assert seen[0].size == (20.5, 0.25)


def test_a_line_without_boxes_is_written_as_it_always_was() -> None:
    line = (
        '{"benchmark": "b", "key": "k", "prompt": "p", "text": "t", "seed": 1, "repeat": 0, "tags": {}, "detections": '
        '[{"name": "red heart", "x": 8, "y": 32.13, "score": 0.9877}, {"name": "dog", "x": 0.5, "y": 1.0, "score": 1}]'
        ', "image": "0", "scores": {}}'
    )
    assert dump(load(line, "here")) == line
    assert '"score": 0.9877}' in dump(replace(row(), detections=(Detection(name="a", x=1, y=1, score=0.98765),)))


def test_half_a_box_is_none() -> None:
    with pytest.raises(ValueError, match="'dog' has a width of 3 and a height of None; give both"):
        Detection(name="dog", x=1, y=1, score=1, width=3)
    with pytest.raises(ValueError, match="'dog' has no box"):
        _ = Detection(name="dog", x=1, y=1, score=1).size


@pytest.mark.parametrize(
    "change",
    [
        {"width": 3},
        {"width": -1, "height": 2},
        {"width": 1, "height": None},
        {"colour": 3},
        {"colour": None},
        {"name": 3},
        {"x": "1"},
        {"score": None},
        {"score": True},
        {"y": float("nan")},
        {"box": [1, 2, 3, 4]},
    ],
)
def test_a_detection_that_is_none_is_named(change: dict[str, object]) -> None:
    raw = json.loads(dump(row(seen=("dog",))))
    raw["detections"][0] |= change
    with pytest.raises(UserError, match=r"rows\.jsonl:3: not an evaluation row"):
        load(json.dumps(raw), "rows.jsonl:3")


def test_no_detections_and_an_empty_list_are_different() -> None:
    nothing_seen, not_judged = row(seen=()), row(seen=None)
    assert json.loads(dump(nothing_seen))["detections"] == []
    assert "detections" not in json.loads(dump(not_judged))
    assert load(dump(nothing_seen), "x").detections == ()
    assert load(dump(not_judged), "x").detections is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_a_score_that_is_no_number_is_null_and_reads_as_none(bad: float | None) -> None:
    line = dump(replace(row(), scores={"q16": bad, "clip": 0.0}))
    assert json.loads(line)["scores"] == {"q16": None, "clip": 0.0}
    assert load(line, "x").score("q16") is None
    assert load(line, "x").score("clip") == 0.0


def test_a_nan_written_by_another_program_reads_as_none() -> None:
    line = dump(row()).replace('"scores": {}', '"scores": {"q16": NaN}')
    assert load(line, "x").score("q16") is None


@pytest.mark.parametrize("line", ["{", "[]", '{"key": "k"}', '{"detections": 3}', "null"])
def test_a_line_that_is_no_row_is_named(line: str) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl:3: not an evaluation row .* run the evaluation again"):
        load(line, "rows.jsonl:3")


def test_keys_are_file_names_and_never_collide() -> None:
    assert key_of("emoji-i2p", "emoji-i2p/0007", 1) == "emoji-i2p-0007-01"
    made = {key_of("b", prompt, 0) for prompt in ("a/b", "a_b", "a b", "a/b ", "../x", "é")}
    assert len(made) == 6
    assert all("/" not in key and " " not in key for key in made)
