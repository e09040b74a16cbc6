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
