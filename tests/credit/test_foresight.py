"""Step advantages: by hand, and that they keep the policy gradient while they take variance away."""

from __future__ import annotations

import pytest
import torch

from safediffusion.credit.foresight import by_step, explained

GROUP = torch.tensor([0, 0, 1, 1])
SIZE = 8


def test_what_was_foreseen_is_taken_off_with_the_least_squares_slope() -> None:
    advantage = torch.tensor([1.0, -1.0, 2.0, -2.0])
    same = torch.tensor([5.0, 3.0, 14.0, 10.0])  # the advantage itself, plus the group's level: everything foreseen
    half = torch.tensor([1.0, -1.0, 0.0, 0.0])  # only the first group's difference
    blind = torch.full((4,), 7.0)
    foreseen = torch.stack([same, half, blind], 1)
    found = by_step(advantage, foreseen, GROUP, 1.0)
    assert found.dtype == torch.float32 and found.shape == (4, 3)
    torch.testing.assert_close(found[:, 0], torch.zeros(4))
    torch.testing.assert_close(found[:, 1], torch.tensor([0.0, 0.0, 2.0, -2.0]))
    assert torch.equal(found[:, 2], advantage)  # nothing was foreseen: nothing changes, to the bit
    assert explained(advantage, foreseen, GROUP) == pytest.approx([1.0, 0.2, 0.0])


def test_lambda_zero_keeps_what_was_foreseen_of_the_step_alone() -> None:
    advantage = torch.tensor([1.0, -1.0, 2.0, -2.0])
    half = torch.tensor([1.0, -1.0, 0.0, 0.0])
    foreseen = torch.stack([torch.zeros(4), half], 1)
    last = torch.tensor([0.0, 0.0, 2.0, -2.0])  # A - V_1
    torch.testing.assert_close(by_step(advantage, foreseen, GROUP, 0.0), torch.stack([half, last], 1))
    torch.testing.assert_close(by_step(advantage, foreseen, GROUP, 0.25), torch.stack([half + 0.25 * last, last], 1))


def test_the_level_of_a_group_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    advantage, foreseen = torch.randn(4, generator=generator), torch.randn(4, 2, generator=generator)
    moved = foreseen + torch.tensor([[10.0], [10.0], [-3.0], [-3.0]])
    for lam in (0.0, 0.7, 1.0):
        torch.testing.assert_close(by_step(advantage, foreseen, GROUP, lam), by_step(advantage, moved, GROUP, lam))


def walk(seed: int, *scales: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A walk of two steps with its end as the reward: both steps, the advantage, the group; 4,000 groups of SIZE."""
    drawn = torch.randn(2, 4000 * SIZE, generator=torch.Generator().manual_seed(seed))
    first, second = drawn * torch.tensor(scales)[:, None]
    reward = (first + second).view(-1, SIZE)
    group = torch.arange(4000).repeat_interleave(SIZE)
    return first, second, (reward - reward.mean(1, keepdim=True)).flatten(), group


def test_the_policy_gradient_stays_and_its_variance_falls() -> None:
    """d E[reward] / d(mean of step 2) is 1, whatever step 1 did."""
    first, second, advantage, group = walk(1, 2.0, 1.0)
    with_baseline = by_step(advantage, first[:, None], group, 1.0)[:, 0]
    plain, better = advantage * second, with_baseline * second  # A times the score of step 2
    shrunk = 1 - 1 / SIZE  # a mean over the group that contains the image itself
    assert plain.mean().item() == pytest.approx(shrunk, abs=0.05)
    assert better.mean().item() == pytest.approx(shrunk, abs=0.05)
    assert better.var().item() < 0.5 * plain.var().item()  # in theory 2 against 6


def test_less_lambda_takes_the_noise_of_later_steps_off() -> None:
    """What is foreseen after step 1 is all that step 1 can answer for."""
    first, _, advantage, group = walk(2, 1.0, 2.0)
    foreseen = torch.stack([torch.zeros_like(first), first], 1)  # before step 1, and between the steps
    exact, less = (by_step(advantage, foreseen, group, lam)[:, 0] * first for lam in (1.0, 0.0))
    assert less.mean().item() == pytest.approx(exact.mean().item(), abs=0.05)
    assert less.var().item() < 0.5 * exact.var().item()
