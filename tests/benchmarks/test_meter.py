"""Exclusive times: with a clock that moves by hand, every second is booked once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks.meter import Meter, Spot


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    yield Clock()


class Machine:
    """Something whose methods take known times."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def outer(self, fail: bool = False) -> str:
        self._clock.now += 1
        self.inner()
        self._clock.now += 2
        if fail:
            raise ValueError("stopped")
        return "done"

    def inner(self) -> None:
        self._clock.now += 10


def test_inner_time_is_not_the_outer_parts(clock: Clock) -> None:
    meter, machine = Meter(torch.device("cpu"), clock), Machine(clock)
    original = Machine.outer
    with meter.watching([Spot(Machine, "outer", "whole"), Spot(Machine, "inner", "part")]):
        clock.now += 100  # outside every part
        assert machine.outer() == "done"
        machine.inner()
    assert dict(meter.seconds) == {"whole": 3.0, "part": 20.0}
    assert Machine.outer is original


def test_a_part_can_depend_on_where_it_runs(clock: Clock) -> None:
    meter, machine = Meter(torch.device("cpu"), clock), Machine(clock)

    def whose(meter: Meter) -> str:
        return "inside" if meter.inside("whole") else "alone"

    with meter.watching([Spot(Machine, "outer", "whole"), Spot(Machine, "inner", whose)]):
        machine.outer()
        machine.inner()
    assert dict(meter.seconds) == {"whole": 3.0, "inside": 10.0, "alone": 10.0}


def test_a_part_that_fails_is_closed(clock: Clock) -> None:
    meter, machine = Meter(torch.device("cpu"), clock), Machine(clock)
    with meter.watching([Spot(Machine, "outer", "whole")]), pytest.raises(ValueError, match="stopped"):
        machine.outer(fail=True)
    assert not meter.inside("whole")
    assert meter.seconds["whole"] == 13.0
