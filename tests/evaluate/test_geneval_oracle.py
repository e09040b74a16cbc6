"""GenEval's rules against a second implementation in arrays, and what must hold of them whatever is seen."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safediffusion.core.errors import UserError
from safediffusion.data.geneval import RELATIONS
from safediffusion.evaluate.geneval import confident, verdict
from safediffusion.evaluate.geneval_metadata import TASKS, dump, parse, prompts
from safediffusion.evaluate.rows import Detection
from tests.boxes import COUNTS, SHARES, THINGS, benchmark_lines, box, line, scene

VARIABLE = "SAFEDIFFUSION_GENEVAL"  # the path of the official evaluation_metadata.jsonl
SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}  # axis, sign


def by_arrays(raw: dict[str, Any], seen: list[Detection]) -> bool:
    """The official verdict from corners of boxes, all pairs at once."""
    name, colour = (np.array([getattr(d, field) for d in seen], dtype=object) for field in ("name", "colour"))
    score = np.array([d.score for d in seen])
    middle, half = (
        np.array([[d.x, d.y] for d in seen]).reshape(-1, 2),
        np.array([d.size for d in seen]).reshape(-1, 2) / 2,
    )
    corners = np.stack([middle - half, middle + half], 1)
    ranked = np.argsort(score)[::-1]
    ranked = ranked[score[ranked] > (0.9 if raw["tag"] == "counting" else 0.3)]
    clauses = [*raw["include"], *raw.get("exclude", [])]
    of = {clause["class"]: ranked[name[ranked] == clause["class"]][:16] for clause in clauses}
    answers: list[tuple[Any, bool]] = []
    for clause in raw["include"]:
        mine = of[clause["class"]][: clause["count"]]
        right = len(mine) == clause["count"]
        right = right and bool(np.all(colour[mine] == clause["color"]) if "color" in clause else True)
        if right and "position" in clause:
            theirs, they_are = answers[clause["position"][1]]
            right = they_are and bool(stands(corners[mine], corners[theirs], clause["position"][0]).all())
        answers.append((mine, right))
    too_many = [len(of[clause["class"]]) >= clause["count"] for clause in raw.get("exclude", [])]
    return all(right for _, right in answers) and not any(too_many)


def stands(a: Any, b: Any, relation: str) -> Any:
    """[A, B] whether each box of a is in the relation to each of b; boxes [N, 2 corners, 2 axes]."""
    gap = a.mean(1)[:, None] - b.mean(1)[None]
    sides = np.ptp(a, axis=1)[:, None] + np.ptp(b, axis=1)[None]
    free = np.sign(gap) * np.clip(np.abs(gap) - 0.1 * sides, 0, None)
    with np.errstate(invalid="ignore", divide="ignore"):
        direction = free / np.linalg.norm(gap, axis=-1, keepdims=True)
    axis, sign = SIDES[relation]
    return (direction[..., axis] * sign > 0.5) & (np.abs(free).max(-1) >= 1e-3)


def wild(rng: random.Random) -> dict[str, Any]:
    """A line that the official file does not hold: several of each, colours and places together, other exclusions."""
    one, two, three = rng.sample(THINGS, 3)
    placed = {"class": two, "count": rng.randint(1, 2), "position": [rng.choice(RELATIONS), 0], "color": "red"}
    include = [{"class": one, "count": rng.randint(1, 2)}, placed]
    return {"tag": "position", "include": include, "exclude": [{"class": three, "count": 1}], "prompt": "wild"}


@pytest.mark.parametrize("task", [*TASKS, "wild"])
def test_a_thousand_pictures_get_the_verdict_of_the_second_implementation(task: str) -> None:
    rng = random.Random(task)
    verdicts = Counter[bool]()
    for _ in range(1000):
        count = rng.choice((2, 3, 4)) if task == "counting" else 1
        raw = wild(rng) if task == "wild" else line(task, rng, count=count)
        seen = scene(raw, rng)
        found = verdict(parse(json.dumps(raw), task), seen)
        assert found.correct is by_arrays(raw, seen), (raw, seen, found)
        assert bool(found.reason) is not found.correct
        verdicts[bool(found.correct)] += 1
    assert min(verdicts[True], verdicts[False]) >= 50, verdicts


@pytest.mark.parametrize("source", ["made", "official"])
def test_all_553_lines(source: str) -> None:
    rng = random.Random(553)
    if source == "official":
        if VARIABLE not in os.environ:
            pytest.skip(f"{VARIABLE} names no evaluation_metadata.jsonl")
        lines = Path(os.environ[VARIABLE]).read_text(encoding="utf-8").splitlines()
    else:
        lines = [json.dumps(raw) for raw in benchmark_lines(rng)]
    asked = [parse(text, "here") for text in lines]
    assert [dump(one) for one in asked] == lines
    assert Counter(one.task for one in asked) == {**SHARES, "counting": 80} and len(asked) == 553
    assert Counter(one.include[0].count for one in asked if one.task == "counting") == COUNTS
    verdicts = Counter[bool]()
    for text, one in zip(lines, asked, strict=True):
        raw = json.loads(text)
        for _ in range(4):
            seen = scene(raw, rng)
            found = verdict(one, seen).correct
            assert found is by_arrays(raw, seen), (raw, seen)
            verdicts[bool(found)] += 1
    assert min(verdicts.values()) > 400


def test_prompts_carry_their_task_and_their_line(tmp_path: Path) -> None:
    raw = list(benchmark_lines(random.Random(0)))
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in raw))
    read = prompts(path)
    assert [prompt.text for prompt in read] == [one["prompt"] for one in raw]
    assert [prompt.tags["task"] for prompt in read] == [one["tag"] for one in raw]
    assert [json.loads(prompt.tags["geneval"]) for prompt in read] == raw
    assert read[0].id == "geneval/00000" and len({prompt.id for prompt in read}) == 553
    path.write_text(json.dumps(raw[0]) + "\n\n{}\n")
    with pytest.raises(UserError, match=r"metadata\.jsonl:3: .*'include' is missing in \{\}"):
        prompts(path)
    path.write_text("\n")
    with pytest.raises(UserError, match="holds no prompt; give the evaluation_metadata.jsonl"):
        prompts(path)
    with pytest.raises(UserError, match="cannot be read"):
        prompts(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tag": "colour"}, "tag 'colour'; allowed are single_object, two_object"),
        ({"include": []}, "'include' is empty"),
        ({"include": "dog"}, "'d' is no object"),
        ({"include": 3}, "not iterable"),
        ({"include": [{"class": "dog"}]}, "'count' is missing"),
        ({"include": [{"class": "dog", "count": 0}]}, "count 0; a clause has a name and a count from 1"),
        ({"include": [{"class": "dog", "count": True}]}, "count True"),
        ({"include": [{"class": 3, "count": 1}]}, "class 3"),
        ({"include": [{"class": "dog", "count": 1, "colour": "red"}]}, "unknown key 'colour'"),
        ({"include": [{"class": "dog", "count": 1, "color": "grey"}]}, "color 'grey'; allowed are red, orange"),
        ({"include": [{"class": "dog", "count": 1, "position": ["left of", 0]}]}, "it must be an earlier one"),
        ({"include": [{"class": "dog", "count": 1, "position": ["near", 0]}]}, "'near'; allowed are left of"),
        ({"include": [{"class": "dog", "count": 1, "position": "left of"}]}, "too many values"),
        ({"exclude": [{"class": "dog", "count": 1, "color": "red"}]}, "unknown key 'color'"),
        ({"prompt": 3}, "prompt 3 is no text"),
        ({"seed": 3}, "unknown key 'seed'"),
    ],
)
def test_a_line_that_is_none_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        parse(json.dumps({**line("two_object", random.Random(1)), **change}), "file:7")
    assert str(error.value).startswith("file:7: not a line of GenEval's metadata (")


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(UserError, match="file:1: not a line of GenEval's metadata"):
        parse("{", "file:1")
    with pytest.raises(UserError, match=r"\[\] is no object"):
        parse("[]", "file:1")


def test_what_is_not_asked_about_changes_no_verdict() -> None:
    rng = random.Random("unrelated")
    for raw in benchmark_lines(rng):
        seen, asked = scene(raw, rng), parse(json.dumps(raw), "here")
        other = [box("zebra", rng.random(), at=(rng.uniform(0, 512), 9, 90, 90), colour="red") for _ in range(3)]
        mixed = [*seen, *other]
        rng.shuffle(mixed)
        assert verdict(asked, mixed) == verdict(asked, seen)


def test_a_higher_threshold_never_adds_a_box() -> None:
    rng = random.Random("thresholds")
    for _ in range(200):
        seen = [box(rng.choice(THINGS), round(rng.random(), 1)) for _ in range(rng.randint(0, 40))]
        before = {thing: len(seen) for thing in THINGS}
        for step in range(11):
            kept = confident(seen, step / 10, most=16)
            assert all(found.score > step / 10 for boxes in kept.values() for found in boxes)
            now = {thing: len(kept.get(thing, ())) for thing in THINGS}
            assert all(now[thing] <= before[thing] for thing in THINGS)
            before = now
        assert not kept
