"""Where the window is at each training step."""

from __future__ import annotations

from collections import Counter

import pytest

from safediffusion.core.errors import UserError
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.windows import Windows

PLAN = Plan(steps=8, window=(1, 4))


def starts(windows: Windows, count: int) -> list[int]:
    found = [windows.of(PLAN, step).window for step in range(count)]
    assert all(window is not None and window[1] - window[0] == 3 and window[1] < 8 for window in found)
    return [window[0] for window in found if window is not None]


def test_a_fixed_window_stays() -> None:
    assert starts(Windows(), 5) == [1] * 5


def test_a_sliding_window_goes_on_and_starts_over() -> None:
    # [1, 4), [2, 5), [3, 6), [4, 7): step 7, the last, ends in the data
    assert starts(Windows(moves="sliding", every=2), 10) == [1, 1, 2, 2, 3, 3, 4, 4, 1, 1]


def test_a_random_window_is_anywhere_equally_often_and_drawn_by_its_key() -> None:
    windows = Windows(moves="random", seed=3)
    found = starts(windows, 400)
    assert found == starts(windows, 400) != starts(Windows(moves="random", seed=4), 400)
    count = Counter(found)
    assert sorted(count) == [1, 2, 3, 4] and all(70 < n < 130 for n in count.values())  # 100 expected, sd 8.7


def test_what_cannot_move() -> None:
    with pytest.raises(UserError, match="random needs a window to start from; set plan.window"):
        Windows(moves="random").of(Plan(steps=8), 0)
    with pytest.raises(UserError, match=r"window \[0, 7\) of 8 steps has nowhere to move"):
        Windows(moves="sliding").of(Plan(steps=8, window=(0, 7)), 0)
    with pytest.raises(UserError, match="every 0 steps; it must be 1 or more"):
        Windows(moves="sliding", every=0)
