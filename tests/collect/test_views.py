"""Views of pictures: keyed, differentiable, never mirrored, near the picture they are of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from safediffusion.collect.reward import Reward
from safediffusion.collect.views import NOISE, SHIFT, TURN, Views
from safediffusion.core.fleet import Fleet
from safediffusion.core.noise import Key
from safediffusion.core.prompt import Prompt
from safediffusion.credit.constraint import Constrained, Rule
from safediffusion.credit.weighted import WeightedSum
from tests import tiny, training

KEYS: tuple[Key, ...] = ((0, "p0", 0), (0, "p1", 0), (0, "p1", 1))


def pictures() -> Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_a_view_depends_on_its_key_and_number_alone() -> None:
    images = pictures()
    all_of_them = Views(keys=KEYS, count=2).of(images)
    assert all_of_them.shape == (6, 3, 16, 16)
    alone = Views(keys=KEYS[1:2], count=2).of(images[1:2])
    torch.testing.assert_close(alone, all_of_them[[1, 4]])
    flat = torch.full((3, 3, 16, 16), 0.5)
    seen = [Views(keys=KEYS, count=2, number=number).of(flat) for number in (0, 1)]
    assert len({tuple(each.flatten().tolist()) for part in seen for each in part}) == 12
    assert all(float((each - 0.5).mean().abs()) < NOISE / 5 for part in seen for each in part)


def test_what_is_shown_stays_about_where_it_is() -> None:
    """A white left half: its views are white on the left and black on the right, by no more than what moves it."""
    images = torch.zeros(3, 3, 64, 64)
    images[..., :32] = 1.0
    seen = Views(keys=KEYS, count=8).of(images)
    reach = int(64 * (SHIFT + TURN / 2 + 0.02)) + 1
    assert float(seen[..., : 32 - reach].mean(1).min()) > 1 - 4 * NOISE
    assert float(seen[..., 32 + reach :].mean(1).max()) < 4 * NOISE
    edges = (seen[:, 0] > 0.5).float().sum(2).mean(1)
    assert float(edges.std()) > 0.5  # in pixels: they do differ


def test_gradients_are_those_of_finite_differences() -> None:
    views, weight = Views(keys=KEYS, count=2), pictures().repeat(2, 1, 1, 1).double()
    images = (0.3 + 0.4 * pictures()).double().requires_grad_()  # far from 0 and 1, where views are cut off
    value = (views.of(images) * weight).sum()
    (slope,) = torch.autograd.grad(value, images)
    step = torch.zeros_like(images)
    step[1, 2, 5, 7] = 1e-3
    with torch.no_grad():
        around = [(views.of(images + sign * step) * weight).sum() for sign in (1, -1)]
    assert float(slope[1, 2, 5, 7]) == pytest.approx(float(around[0] - around[1]) / 2e-3, rel=1e-6)


def test_a_score_is_the_mean_of_its_views() -> None:
    reward = Reward(scorers=(training.Brightness(),), credit=WeightedSum(weights={"brightness": 2.0}))
    images, prompts, views = pictures(), tiny.PROMPTS[:3], Views(keys=KEYS, count=2)
    seen = views.of(images).mean((1, 2, 3))
    torch.testing.assert_close(reward(images, prompts, views), seen[:3] + seen[3:])
    torch.testing.assert_close(reward(images, prompts, Views(keys=KEYS, count=0)), 2 * images.mean((1, 2, 3)))


def test_a_cost_is_that_of_a_picture_s_worst_view() -> None:
    """A reward of two views by their mean; a cost of three by the largest, through which alone its gradient goes."""
    scorers = (training.Brightness(), replace(training.Brightness(), name="dark", higher_is_better=False))
    credit = Constrained(
        credit=WeightedSum(weights={"brightness": 2.0}),
        costs=("dark",),
        budgets={"violence": 0.0},
        rule=Rule(rho=1.0, eta=0.0, ema=0.0),
    )
    reward = Reward(scorers=scorers, credit=credit, worst={"dark": 3})
    prompts = tuple(Prompt(id=f"v{n}", text=f"v {n}", tags={"category": "violence"}) for n in range(3))
    images, views = pictures().requires_grad_(), Views(keys=KEYS, count=2)
    reward(images, prompts, views)
    reward.settle(prompts, Fleet())
    two, three = (Views(keys=KEYS, count=count).of(images).mean((1, 2, 3)).view(count, 3) for count in (2, 3))
    cost = three.max(0).values
    u = credit.multipliers["violence"].u
    assert u == pytest.approx(cost.mean().item(), rel=1e-5) != pytest.approx(three.mean().item(), rel=1e-5)
    expected = 2 * two.mean(0) - u * cost
    found = reward(images, prompts, views)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    slopes = [torch.autograd.grad(value.sum(), images, retain_graph=True)[0] for value in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-6)
