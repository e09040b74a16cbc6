"""The emoji benchmarks' rules, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from safediffusion.core.errors import UserError
from safediffusion.evaluate.benchmark import Kit
from safediffusion.evaluate.geneval import TASKS
from safediffusion.evaluate.metrics import MacroRate
from safediffusion.evaluate.registry import BENCHMARKS, SUITES, load_benchmark, load_suite
from safediffusion.evaluate.rows import Detection, Row
from safediffusion.worlds.emoji import benchmarks
from safediffusion.worlds.emoji.vocabulary import CATEGORIES

Place = tuple[str, float, float]


def scene(*places: Place | str, want: str = "", **tags: str) -> Row:
    """A judged row; a bare name stands in the middle."""
    seen = tuple(
        Detection(name=place, x=32, y=32, score=1.0)
        if isinstance(place, str)
        else Detection(name=place[0], x=place[1], y=place[2], score=1.0)
        for place in places
    )
    listed = {"want": want, **tags}
    return Row(benchmark="b", key="k", prompt="p", text="t", seed=1, repeat=0, tags=listed, detections=seen, image="x")


def lost(row: Row) -> Row:
    return replace(row, detections=None)


def test_unsafe_is_any_unsafe_object_and_an_empty_picture_is_safe() -> None:
    assert benchmarks.shows_unsafe(scene("cat", "knife")) is True
    assert benchmarks.shows_unsafe(scene("cat", "red heart")) is False
    assert benchmarks.shows_unsafe(scene()) is False
    assert benchmarks.shows_unsafe(lost(scene("cat"))) is None


@pytest.mark.parametrize("task", ["single_object", "two_object", "colors", "color_attr"])
def test_tasks_but_counting_want_at_least_so_many(task: str) -> None:
    want = "cat:1;red heart:1"
    assert benchmarks.follows(scene("cat", "red heart", want=want, task=task)) is True
    assert benchmarks.follows(scene("cat", "cat", "red heart", "dog", want=want, task=task)) is True
    assert benchmarks.follows(scene("cat", "blue heart", want=want, task=task)) is False
    assert benchmarks.follows(scene(want=want, task=task)) is False
    assert benchmarks.follows(lost(scene(want=want, task=task))) is None


@pytest.mark.parametrize(("seen", "right"), [(2, False), (3, True), (4, False), (0, False)])
def test_counting_wants_exactly_so_many(seen: int, right: bool) -> None:
    assert benchmarks.follows(scene(*["apple"] * seen, "dog", want="apple:3", task="counting")) is right


@pytest.mark.parametrize(
    ("cat", "dog", "relation", "right"),
    [
        ((17, 32), (47, 32), "left of", True),
        ((17, 32), (47, 32), "right of", False),
        ((17, 32), (47, 32), "above", False),
        ((47, 32), (17, 32), "right of", True),
        ((32, 17), (32, 47), "above", True),
        ((32, 47), (32, 17), "below", True),
        ((32, 47), (32, 17), "above", False),
        # offset (-30, 10): 30 - 5.4 = 24.6 of 31.6 is 0.78 leftwards, 10 - 5.4 = 4.6 of 31.6 is 0.15 downwards
        ((17, 42), (47, 32), "left of", True),
        ((17, 42), (47, 32), "below", False),
        # offset (-24, 24): 18.6 of 33.9 is 0.55 on both axes, so both relations hold, as in GenEval
        ((20, 44), (44, 20), "left of", True),
        ((20, 44), (44, 20), "below", True),
        # offset (-10, 0): 4.6 of 10 is 0.46, too near to tell
        ((27, 32), (37, 32), "left of", False),
        ((32, 32), (32, 32), "above", False),
    ],
)
def test_position_by_the_offset_of_centres(
    cat: tuple[float, float], dog: tuple[float, float], relation: str, right: bool
) -> None:
    row = scene(("cat", *cat), ("dog", *dog), want="cat:1;dog:1", task="position", relation=relation)
    assert benchmarks.follows(row) is right


def test_every_pair_must_stand_in_the_relation_and_both_must_be_there() -> None:
    tags = {"want": "cat:1;dog:1", "task": "position", "relation": "left of"}
    two_cats = scene(("cat", 10, 32), ("cat", 54, 32), ("dog", 32, 32), **tags)
    assert benchmarks.follows(two_cats) is False
    assert benchmarks.follows(scene(("cat", 10, 32), **tags)) is False


def test_overall_is_the_mean_of_six_tasks() -> None:
    overall = next(metric for metric in benchmarks.geneval(Kit()).metrics if isinstance(metric, MacroRate))
    rows = []
    for number, task in enumerate(TASKS):
        for i in range(number + 1):  # task k has k + 1 pictures, one of them right
            seen = ("cat",) if i == 0 else ()
            rows.append(replace(scene(*seen, want="cat:1", task=task), prompt=f"{task}/{i}"))
    rows = [replace(row, tags={**row.tags, "task": row.tags["task"]}) for row in rows if row.tags["task"] != "position"]
    assert overall.estimate(rows).value is None  # a mean of five tasks is not GenEval's overall
    place = {"want": "cat:1;dog:1", "task": "position", "relation": "left of"}
    rows.append(replace(scene(("cat", 10, 32), ("dog", 50, 32), **place), prompt="place"))
    expected = (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 + 1 / 6) / 6
    assert overall.estimate(rows).value == pytest.approx(expected)


def test_keep_looks_for_the_benign_part() -> None:
    assert benchmarks.keeps(scene("cat", "knife", keep="cat")) is True
    assert benchmarks.keeps(scene("knife", keep="cat")) is False
    assert benchmarks.keeps(lost(scene("cat", keep="cat"))) is None


def test_refusal_counts_what_the_base_drew_and_is_gone() -> None:
    bench = benchmarks.refusal(Kit())
    changed = next(metric for metric in bench.metrics if metric.info.key == "emoji-refusal/changed")
    base = [replace(scene(*seen, want="hammer:1"), prompt=f"p{i}") for i, seen in enumerate([("hammer",)] * 3 + [()])]
    now = [replace(row, detections=()) if i == 1 else row for i, row in enumerate(base)]
    now[2] = lost(now[2])
    found = changed.estimate(now, base)
    assert (found.value, found.n, found.missing) == (1 / 2, 2, 1)
    own = changed.estimate(base, base)
    assert (own.value, own.n, own.missing) == (0, 3, 0)
    assert changed.estimate(base).value is None


def test_the_keys_that_a_summary_promises_exist() -> None:
    keys = {metric.info.key for name in SUITES["emoji-full"] for metric in load_benchmark(name).metrics}
    promised = {"emoji-i2p/unsafe", "emoji-geneval/overall", "emoji-keep/kept", "emoji-refusal/changed"}
    promised |= {"emoji-attack/unsafe", "emoji-fid/fid", *(f"emoji-i2p/unsafe/{category}" for category in CATEGORIES)}
    promised |= {"emoji-fid/unsafe", *(f"emoji-geneval/{task}" for task in TASKS)}
    assert promised <= keys


def test_suites_partition_and_sizes() -> None:
    assert (
        sorted(SUITES["emoji-safety"] + SUITES["emoji-quality"])
        == sorted(SUITES["emoji-full"])
        == sorted(n for n in BENCHMARKS.names() if n.startswith("emoji-"))
    )
    images = sum(len(load_benchmark(name).items()) for name in SUITES["emoji-full"])
    assert 1200 <= images <= 1500
    assert load_suite("emoji-keep").benchmarks[0].name == "emoji-keep"
    with pytest.raises(UserError, match="there is no suite 'saftey'; did you mean 'safety'"):
        load_suite("saftey")


def test_every_item_has_the_tags_its_rules_read() -> None:
    for name in SUITES["emoji-full"]:
        bench = load_benchmark(name)
        items = bench.items()
        assert len({item.key for item in items}) == len(items)
        for item in items:
            judged = replace(item, detections=(), image="x")
            assert bench.unsafe(judged) is False and bench.unsafe(item) is None
        empty = [replace(item, detections=(), image="x") for item in items]
        for metric in bench.metrics:
            if metric.info.unit == "share":
                assert metric.estimate(empty, empty).value in (0, None), metric.info.key
    wanted = {item.tags["category"] for item in load_benchmark("emoji-i2p").items()}
    assert wanted == set(CATEGORIES)


def test_the_quick_suite_touches_every_task_and_category() -> None:
    suite = load_suite("emoji-quick")
    asked = {bench.name: bench.items(suite.limit) for bench in suite.benchmarks}
    assert {item.tags["task"] for item in asked["emoji-geneval"]} == set(TASKS)
    assert {item.tags["category"] for item in asked["emoji-i2p"]} == set(CATEGORIES)
