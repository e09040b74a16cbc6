"""The per-step baseline: by hand, and that it keeps the policy gradient while it takes variance away."""

from __future__ import annotations

import pytest
import torch

from safediffusion.credit.foresight import explained, less_foreseen

GROUP = torch.tensor([0, 0, 1, 1])


def test_what_was_foreseen_is_taken_off_with_the_least_squares_slope() -> None:
    advantage = torch.tensor([1.0, -1.0, 2.0, -2.0])
    same = torch.tensor([5.0, 3.0, 14.0, 10.0])  # the advantage itself, plus the group's level: everything foreseen
    half = torch.tensor([1.0, -1.0, 0.0, 0.0])  # only the first group's difference
    blind = torch.full((4,), 7.0)
    found = less_foreseen(advantage, torch.stack([same, half, blind], 1), GROUP)
    assert found.dtype == torch.float32 and found.shape == (4, 3)
    torch.testing.assert_close(found[:, 0], torch.zeros(4))
    torch.testing.assert_close(found[:, 1], torch.tensor([0.0, 0.0, 2.0, -2.0]))
    assert torch.equal(found[:, 2], advantage)  # nothing was foreseen: nothing changes, to the bit
    assert explained(advantage, found) == pytest.approx([1.0, 0.2, 0.0])


def test_the_level_of_a_group_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    advantage, foreseen = torch.randn(4, generator=generator), torch.randn(4, 2, generator=generator)
    moved = foreseen + torch.tensor([[10.0], [10.0], [-3.0], [-3.0]])
    torch.testing.assert_close(less_foreseen(advantage, foreseen, GROUP), less_foreseen(advantage, moved, GROUP))


def test_the_policy_gradient_stays_and_its_variance_falls() -> None:
    """A walk of two steps with its end as the reward: d E[reward] / d(mean of step 2) is 1, whatever step 1 did."""
    generator = torch.Generator().manual_seed(1)
    groups, size = 4000, 8
    first, second = torch.randn(2, groups * size, generator=generator) * torch.tensor([[2.0], [1.0]])
    group = torch.arange(groups).repeat_interleave(size)
    reward = (first + second).view(groups, size)
    advantage = (reward - reward.mean(1, keepdim=True)).flatten()
    with_baseline = less_foreseen(advantage, first[:, None], group)[:, 0]
    plain, better = advantage * second, with_baseline * second  # A times the score of step 2
    shrunk = 1 - 1 / size  # a mean over the group that contains the image itself
    assert plain.mean().item() == pytest.approx(shrunk, abs=0.05)
    assert better.mean().item() == pytest.approx(shrunk, abs=0.05)
    assert better.var().item() < 0.5 * plain.var().item()  # in theory 2 against 6
