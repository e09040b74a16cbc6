"""Advantages worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from safediffusion.core.errors import UserError
from safediffusion.credit.base import group_stats, pooled_spread, zero_variance_share
from safediffusion.credit.weighted import WeightedSum
from tests.training import among, prompts

GROUP = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
SCORES = {"a": torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 8.0])}
# group 0: mean 2.5, variance (2.25 + .25 + .25 + 2.25) / 4 = 1.25; group 1: mean 2, variance (4 + 4 + 4 + 36) / 4 = 12
STDS = (math.sqrt(1.25), math.sqrt(12.0))
CENTRED = [-1.5, -0.5, 0.5, 1.5, -2.0, -2.0, -2.0, 6.0]


def test_group_statistics_are_those_of_the_population() -> None:
    stats = group_stats(SCORES["a"], GROUP)
    assert stats.mean.tolist() == [2.5, 2.0]
    assert stats.std.tolist() == pytest.approx(STDS)
    assert stats.size.tolist() == [4, 4]
    assert pooled_spread(SCORES["a"], GROUP) == pytest.approx(math.sqrt((4 * 1.25 + 4 * 12) / 8))


@pytest.mark.parametrize(
    ("std", "divisors"),
    [
        ("group", [STDS[0] + 1e-4] * 4 + [STDS[1] + 1e-4] * 4),
        ("batch", [math.sqrt((4 * 1.25 + 4 * 12) / 8) + 1e-4] * 8),
        ("none", [1.0] * 8),
    ],
)
def test_advantage_by_hand(std: str, divisors: list[float]) -> None:
    credit = WeightedSum(weights={"a": 1.0}, clip=100.0, std=std)  # type: ignore[arg-type]
    expected = [c / d for c, d in zip(CENTRED, divisors, strict=True)]
    assert credit.advantage(SCORES, among(GROUP)).tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("keys", [{"eps": 0.0}, {"clip": 0.0}])
def test_an_advantage_that_would_be_nothing_or_no_number_is_refused(keys: dict[str, float]) -> None:
    with pytest.raises(UserError, match="must be above 0"):
        WeightedSum(weights={"a": 1.0}, **keys)  # type: ignore[arg-type]


def test_advantage_is_clipped_on_both_sides() -> None:
    scores = {"a": torch.tensor([0.0] * 15 + [1.0] + [1.0] * 15 + [0.0])}
    group = torch.tensor([0] * 16 + [1] * 16)
    found = WeightedSum(weights={"a": 1.0}).advantage(scores, among(group))
    # one of sixteen: mean 1/16, std sqrt(15)/16, so the odd one is at (15/16) / (sqrt(15)/16) = 3.87 stds
    assert found[15].item() == 2.5 and found[31].item() == -2.5
    assert found[0].item() == pytest.approx(-1 / math.sqrt(15), rel=1e-3)


@pytest.mark.parametrize("value", [0.3, 1e-9, 12345.678])
@pytest.mark.parametrize("std", ["group", "batch", "none"])
def test_a_group_of_equal_rewards_gets_exactly_zero(value: float, std: str) -> None:
    scores = {"a": torch.tensor([value] * 7 + [1.0, 2.0])}
    group = torch.tensor([0] * 7 + [1] * 2)
    found = WeightedSum(weights={"a": 1.0}, std=std).advantage(scores, among(group))  # type: ignore[arg-type]
    assert found[:7].tolist() == [0.0] * 7
    assert found[7].item() < 0 < found[8].item()
    assert zero_variance_share(scores["a"], group) == 0.5


def test_weights_add_scores_and_one_may_be_negative() -> None:
    scores = {"good": torch.tensor([1.0, 2.0]), "bad": torch.tensor([0.5, 3.0])}
    credit = WeightedSum(weights={"good": 2.0, "bad": -1.0})
    assert credit.scalar(scores, prompts(2)).tolist() == [1.5, 1.0]
    first, second = credit.advantage(scores, among(torch.tensor([0, 0]))).tolist()
    assert first == pytest.approx(0.25 / (0.25 + 1e-4)) and second == -first


def test_a_score_nobody_produces_is_named() -> None:
    with pytest.raises(UserError, match=r"weighs the scores \['b'\].*produce \['a'\]"):
        WeightedSum(weights={"b": 1.0}).scalar(SCORES, prompts(8))


def test_the_scalar_is_differentiable() -> None:
    value = torch.tensor([1.0, 2.0], requires_grad=True)
    WeightedSum(weights={"a": 3.0}).scalar({"a": value}, prompts(2)).sum().backward()  # type: ignore[no-untyped-call]
    assert value.grad is not None and value.grad.tolist() == [3.0, 3.0]
