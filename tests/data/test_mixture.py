"""Mixtures: pure, endless, true to their shares."""

from __future__ import annotations

from collections import Counter

import pytest

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.data.mixture import Mixture, Source


def source(name: str, count: int, share: float = 1.0, balance: str | None = None) -> Source:
    prompts = tuple(
        Prompt(id=f"{name}{i}", text=f"{name} {i}", tags={"category": "ab"[i % 7 == 0]}) for i in range(count)
    )
    return Source(name=name, prompts=prompts, share=share, balance=balance)


def drawn(mixture: Mixture, steps: int, count: int) -> list[list[str]]:
    return [[prompt.id for prompt in mixture.draw(step, count)] for step in range(steps)]


def test_a_draw_depends_on_seed_and_step_alone() -> None:
    sources = (source("x", 5), source("y", 7, share=2.0))
    whole = drawn(Mixture(sources=sources, seed=3), 20, 6)
    late = Mixture(sources=sources, seed=3)
    assert [p.id for p in late.draw(17, 6)] == whole[17]  # nothing was drawn before: as after resuming
    assert [p.id for p in late.draw(2, 6)] == whole[2]
    assert drawn(Mixture(sources=sources, seed=4), 20, 6) != whole


@pytest.mark.parametrize("count", [1, 3, 8])
def test_shares_hold_in_every_step_and_exactly_in_the_long_run(count: int) -> None:
    mixture = Mixture(sources=(source("x", 5, 0.5), source("y", 5, 0.3), source("z", 5, 0.2)))
    steps = drawn(mixture, 400, count)
    total = Counter(name[0] for step in steps for name in step)
    for name, share in (("x", 0.5), ("y", 0.3), ("z", 0.2)):
        assert total[name] == pytest.approx(400 * count * share, abs=4)
        for step in steps:
            assert abs(sum(i[0] == name for i in step) - share * count) <= 1 + 1e-9


def test_every_prompt_comes_once_before_any_comes_twice() -> None:
    flat = [name for step in drawn(Mixture(sources=(source("x", 7),)), 6, 7) for name in step]
    epochs = [flat[i : i + 7] for i in range(0, 42, 7)]
    assert all(sorted(epoch) == [f"x{i}" for i in range(7)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1  # shuffled anew


def test_balance_spreads_a_rare_tag() -> None:
    rare = source("x", 70, balance="category")  # 10 of 70 are "b"
    order = [prompt.tags["category"] for prompt in Mixture(sources=(rare,)).draw(0, 70)]
    places = [i for i, tag in enumerate(order) if tag == "b"]
    assert len(places) == 10
    assert all(5 <= b - a <= 9 for a, b in zip(places, places[1:], strict=False))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mixture(sources=()), "at least one prompt source"),
        (lambda: source("x", 0), "'x' is empty"),
        (lambda: source("x", 3, share=0.0), "share 0.0; a share is a number above 0"),
        (lambda: source("x", 3, share=float("nan")), "share nan"),
        (lambda: source("x", 3, balance="color"), "balanced by 'color', but prompt 'x0' has no such tag"),
    ],
)
def test_what_cannot_be_mixed(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(UserError, match=message):
        make()
