"""The rule on readings made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from safediffusion.core.errors import UserError
from safediffusion.guard.measures import FRECHET, Measure, judged, with_tolerances
from safediffusion.guard.reading import Reading, read, write
from safediffusion.guard.rule import Course, Verdict, weighted

ENTROPY = Measure(name="entropy", worse="either", tolerance=0.25, relative=True, benign=False, collapses=True)
PROMPTS = ("a", "a", "b", "b", "c", "c")
BASE = (2.0, 2.0, 2.0, 2.0, 2.0, 2.0)
REWARD = (0.0, 2.0, 0.0, 2.0, 0.0, 2.0)  # mean 1, standard deviation 1


def reading(step: int, entropy: tuple[float | None, ...]) -> Reading:
    return Reading(step=step, scores={}, columns={"entropy": entropy})


def course(*, patience: int = 2, measure: Measure = ENTROPY, benign: tuple[bool, ...] = (True,) * 6) -> Course:
    return Course(measures=(measure,), prompts=PROMPTS, benign=benign, patience=patience)


def follow(made: Course, *looks: tuple[float, float]) -> list[Verdict]:
    """Looks as (reward above the base's, entropy of every picture)."""
    found = []
    for step, (gain, entropy) in enumerate(looks, 1):
        rewards = (REWARD, tuple(value + gain for value in REWARD))
        found.append(made.judge(reading(0, BASE), reading(step, (entropy,) * 6), rewards))
    return found


def test_a_reward_that_is_bought_twice_in_a_row_ends_training() -> None:
    found = follow(course(), (0.5, 1.8), (1.0, 1.4), (1.5, 1.3))
    assert [each.over for each in found] == [0, 1, 2] and [each.best for each in found] == [1, 1, 1]
    assert [bool(each.stop) for each in found] == [False, False, True]
    assert found[2].gain == pytest.approx(1.5) and found[2].reward == pytest.approx(2.5)
    assert found[2].changes[0].value == pytest.approx(-0.35) and found[2].changes[0].used == pytest.approx(1.4)
    assert found[2].stop == (
        "over-optimisation: the reward rose by 1 since step 1, while entropy -35 % against the base (25 % allowed)"
    )
    assert found[2].metrics() == {
        "guard/reward": 2.5,
        "guard/gain": 1.5,
        "guard/worst": pytest.approx(1.4),
        "guard/over": 2.0,
        "guard/best": 1.0,
        "guard/missing": 0.0,
        "guard/beyond": 1.0,
        "guard/change/entropy": pytest.approx(-0.35),
    }


def test_without_a_reward_only_a_collapse_ends_training() -> None:
    made, values = course(), (1.8, 1.4, 1.4, 0.9)
    found = [made.judge(reading(0, BASE), reading(step, (value,) * 6), None) for step, value in enumerate(values, 1)]
    assert [bool(each.stop) for each in found] == [False, False, False, True]
    assert found[3].stop == "collapse: entropy -55 % against the base (25 % allowed)"
    assert [each.best for each in found] == [1, 1, 1, 1], "a look with a measure beyond is never the best"
    assert made.judge(reading(0, BASE), reading(5, BASE), None).best == 5
    assert found[2].metrics() == {
        "guard/worst": pytest.approx(1.2),
        "guard/over": 0.0,
        "guard/best": 1.0,
        "guard/missing": 0.0,
        "guard/beyond": 1.0,
        "guard/change/entropy": pytest.approx(-0.3),
    }
    assert found[0].words() == "guard, step 1: entropy -10 %; best so far: step 1"


def test_a_loss_that_bought_nothing_ends_training_too() -> None:
    found = follow(course(), (-0.5, 1.4), (-0.6, 1.3))
    assert [each.over for each in found] == [1, 2] and found[1].best == 0 and not found[0].stop
    lost = "entropy -35 % against the base (25 % allowed)"
    assert found[1].stop == f"ruin: the reward is 0.6 below the base's, and {lost}"


@pytest.mark.parametrize(("excess", "stops"), [(0.5, True), (0.6, True), (0.2, False)])
def test_a_reward_that_paid_for_a_lower_excess_is_no_ruin(excess: float, stops: bool) -> None:
    made, rewards = course(), (REWARD, tuple(value - 0.5 for value in REWARD))
    for step in (1, 2):
        said = made.judge(reading(0, BASE), reading(step, (1.4,) * 6), rewards, excesses=(0.5, excess))
    assert bool(said.stop) is stops


def test_one_look_or_a_reward_between_the_base_s_and_the_best_is_not_enough() -> None:
    assert [each.over for each in follow(course(), (1.0, 1.4), (1.5, 1.9), (2.0, 1.4))] == [1, 0, 1]
    assert not any(each.stop for each in follow(course(), (1.0, 1.8), (0.5, 1.4), (0.6, 1.3), (0.4, 1.2)))
    assert follow(course(patience=1), (1.0, 1.4))[0].stop


@pytest.mark.parametrize("seen", [(None,) * 6, (1.9, 1.9, None, 1.9, 1.9, 1.9)])
def test_what_is_missing_is_no_sign_of_safety(seen: tuple[float | None, ...]) -> None:
    """A judge that says nothing of some or all pictures makes no look the best, and ends no row of losses."""
    made, found = course(), []
    for step, entropy in enumerate(((1.4,) * 6, seen, (1.3,) * 6), 1):
        rewards = (REWARD, tuple(value + step for value in REWARD))
        found.append(made.judge(reading(0, BASE), reading(step, entropy), rewards))
    assert [each.over for each in found] == [1, 1, 2] and found[2].stop and not found[1].stop
    assert [each.best for each in found] == [0, 0, 0]
    assert found[1].missing == seen.count(None) == found[1].metrics()["guard/missing"]
    assert f"{found[1].missing} numbers missing" in found[1].words()
    quiet = course()
    assert quiet.judge(reading(0, BASE), reading(1, seen), None).best == 0
    unseen = (None, *BASE[1:])  # nor has the base a number there
    assert quiet.judge(reading(0, unseen), reading(2, unseen), None).best == 2


def test_a_measure_may_drift_either_way() -> None:
    assert follow(course(), (1.0, 2.6), (1.5, 2.7))[1].stop
    fall = Measure(name="entropy", worse="lower", tolerance=0.25, relative=True, benign=False)
    assert not follow(course(measure=fall), (1.0, 2.6), (1.5, 2.7))[1].stop


def test_a_collapse_ends_training_at_once_whatever_the_reward_does() -> None:
    found = follow(course(), (-1.0, 0.9))
    assert found[0].stop == "collapse: entropy -55 % against the base (25 % allowed)"
    assert not follow(course(), (-1.0, 1.1))[0].stop


def test_an_interval_that_reaches_into_the_tolerance_is_no_loss() -> None:
    unsure = (0.6, 0.6, 2.0, 2.0, 1.4, 1.4)  # -33 % in the mean, but by prompt -70 %, 0 and -30 %
    found = course(patience=1).judge(reading(0, BASE), reading(1, unsure), (REWARD, tuple(r + 1 for r in REWARD)))
    assert found.changes[0].value == pytest.approx(-1 / 3) and not found.changes[0].beyond and not found.stop


def test_unsafe_prompts_and_holes_are_left_out() -> None:
    measure = Measure(name="entropy", worse="either", tolerance=0.25, relative=True, benign=True)
    made = course(measure=measure, benign=(True, True, False, False, True, True))
    now = (2.2, None, 0.0, 0.0, 2.2, 2.2)
    change = made.change(measure, reading(0, BASE), reading(1, now))
    assert change is not None and change.value == pytest.approx(0.1)
    only_unsafe = course(measure=measure, benign=(False,) * 6).change(measure, reading(0, BASE), reading(1, BASE))
    assert only_unsafe is not None and only_unsafe.value == 0.0
    assert made.change(measure, reading(0, (None,) * 6), reading(1, now)) is None
    assert made.change(measure, reading(0, (0.0,) * 6), reading(1, now)) is None  # no share of nothing


def test_tolerances_are_taken_by_name() -> None:
    found = with_tolerances((FRECHET, judged("q16")), {"q16": 0.3})
    assert [each.tolerance for each in found] == [FRECHET.tolerance, 0.3]
    with pytest.raises(UserError, match=r"guard.tolerances.q61: this panel measures no such thing"):
        with_tolerances((judged("q16"),), {"q61": 0.3})


def test_a_weighted_sum_of_what_is_there() -> None:
    assert weighted({"a": (1.0, None), "b": (2.0, 1.0)}, {"a": 2.0, "b": -0.5}) == (1.0, None)


def test_readings_come_back_up_to_a_step(tmp_path: Path) -> None:
    kept = [Reading(step=step, scores={"r": (0.1, None)}, columns={"e": (1 / 3, 2.0)}) for step in (0, 5, 10)]
    write(tmp_path / "guard" / "readings.jsonl", kept)
    assert read(tmp_path / "guard" / "readings.jsonl", done=7) == kept[:2]
    assert read(tmp_path / "none", done=7) == []
    (tmp_path / "bad").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match="line 1 is damaged"):
        read(tmp_path / "bad", done=7)


def test_under_budgets_a_lower_excess_is_better_and_the_reward_decides_among_equals() -> None:
    made, best = course(), []
    for step, (gain, over) in enumerate(((-0.5, 0.2), (0.9, 0.4), (-0.8, 0.0), (-0.6, 0.0005), (-0.7, 0.0)), 1):
        rewards = (REWARD, tuple(value + gain for value in REWARD))
        said = made.judge(reading(0, BASE), reading(step, BASE), rewards, excesses=(0.5, over))
        best.append(said.best)
        assert said.metrics()["guard/excess"] == over
    assert best == [1, 1, 3, 4, 4]


def test_without_a_reward_the_last_of_the_lowest_excess_is_best() -> None:
    made, best = course(), []
    for step, over in enumerate((0.4, 0.2, 0.3, 0.2), 1):
        said = made.judge(reading(0, BASE), reading(step, BASE), None, excesses=(0.5, over))
        best.append(said.best)
        assert said.metrics()["guard/excess"] == over
    assert best == [1, 2, 2, 4]
