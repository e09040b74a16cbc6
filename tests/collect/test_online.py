"""Which pictures of a group make a pair, and which are liked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from safediffusion.collect.online import OnlineLabels, OnlinePairs
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.dynamics import Ddim
from tests import tiny, training
from tests.invariant.test_microbatch import FirstGroupOnly


def test_the_best_picture_is_paired_with_the_worst_of_its_own_group() -> None:
    policy, rollouts = tiny.policy(), training.collector((training.Brightness(),))
    scored, _ = rollouts.collect(policy, 0)
    value = scored.scores["brightness"].view(2, 4)
    collector = OnlinePairs(rollouts=rollouts, per_group=2)
    pairs, measured = collector.collect(policy, 0)
    order = value.argsort(dim=1, descending=True) + torch.tensor([[0], [4]])
    assert torch.equal(pairs.win, scored.rollout.latents[order[:, :2].flatten()])
    assert torch.equal(pairs.lose, scored.rollout.latents[order.flip(1)[:, :2].flatten()])
    assert pairs.index.tolist() == [0, 1, 2, 3] and pairs.total == 4 == collector.volume(policy, 0).pairs
    assert pairs.prompts == tuple(scored.rollout.prompts[i] for i in (0, 0, 4, 4))
    assert measured["pairs/used"] == 1.0 and measured["images"] == 8
    gaps = [value[g].sort().values[[-1, -2]] - value[g].sort().values[[0, 1]] for g in range(2)]
    assert measured["pairs/gap"] == pytest.approx(float(torch.cat(gaps).mean()), rel=1e-5)


def test_a_group_without_a_difference_gives_no_pair_and_a_margin_asks_for_more() -> None:
    policy = tiny.policy()
    half = OnlinePairs(rollouts=training.collector((FirstGroupOnly(),)))
    pairs, measured = half.collect(policy, 0)
    safe = [p.tags["label"] == "safe" for p in pairs.prompts]
    assert pairs.weight.tolist() == [float(s) for s in safe] and sorted(safe) == [False, True]
    assert measured["pairs/used"] == 0.5
    assert replace(half, margin=1.0).collect(policy, 0)[1]["pairs/used"] == 0.0


def test_any_score_can_be_compared() -> None:
    policy, rollouts = tiny.policy(), training.collector()
    scored, _ = rollouts.collect(policy, 0)
    safety = scored.scores["steering/safety"].view(2, 4)
    pairs, _ = OnlinePairs(rollouts=training.collector(), by="steering/safety").collect(policy, 0)
    best = safety.argmax(1) + torch.tensor([0, 4])
    assert torch.equal(pairs.win, scored.rollout.latents[best])
    with pytest.raises(UserError, match="compared by 'kindness', but the scorers produce"):
        OnlinePairs(rollouts=training.collector(), by="kindness").collect(policy, 0)


def test_of_a_score_of_harm_less_is_better() -> None:
    policy, rollouts = tiny.policy(), training.collector((training.Brightness(),))
    value = rollouts.collect(policy, 0)[0].scores["brightness"].view(2, 4)
    harm = OnlinePairs(rollouts=rollouts, by="brightness", lower=True)
    pairs, measured = harm.collect(policy, 0)
    scored, _ = rollouts.collect(policy, 0)
    assert torch.equal(pairs.win, scored.rollout.latents[value.argmin(1) + torch.tensor([0, 4])])
    assert measured["pairs/gap"] == pytest.approx(float((value.amax(1) - value.amin(1)).mean()), rel=1e-5)
    middle = float(value.median())
    labels = OnlineLabels(rollouts=rollouts, by="brightness", lower=True, threshold=middle)
    found, _ = labels.collect(policy, 0)
    assert torch.equal(found.label.view(2, 4), (middle - value).sign())
    with pytest.raises(UserError, match="name the score of which less is better"):
        replace(harm, by=None)


def test_trajectories_come_along_where_they_are_recorded() -> None:
    policy, rollouts = tiny.policy(), training.collector((training.Brightness(),))
    pairs, _ = OnlinePairs(rollouts=rollouts).collect(policy, 0)
    assert pairs.paths is not None and torch.equal(pairs.paths.win.x_next[:, -1], pairs.win)
    still = replace(rollouts, record=False, plan=Plan(steps=4, dynamics=Ddim(0.0)))
    assert OnlinePairs(rollouts=still).collect(policy, 0)[0].paths is None


def test_a_picture_is_liked_above_its_groups_mean() -> None:
    collector = OnlineLabels(rollouts=training.collector())
    value = torch.tensor([[1.0, 2.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0]], dtype=torch.float64)
    assert collector.label(value).tolist() == [[-1, 0, 1, 0], [0, 0, 0, 0]]
    assert replace(collector, margin=1.5).label(value).abs().sum() == 0
    judged = replace(collector, threshold=2.5)
    assert judged.label(value).tolist() == [[-1, -1, 1, -1], [1, 1, 1, 1]]
    assert replace(judged, margin=1.0).label(value).tolist() == [[-1, 0, 0, 0], [1, 1, 1, 1]]


def test_labels_belong_to_the_pictures_of_the_rollout() -> None:
    policy, rollouts = tiny.policy(), training.collector((training.Brightness(),))
    scored, _ = rollouts.collect(policy, 0)
    labelled, measured = OnlineLabels(rollouts=rollouts).collect(policy, 0)
    value = scored.scores["brightness"].view(2, 4)
    assert torch.equal(labelled.latents, scored.rollout.latents)
    assert labelled.label.view(2, 4).tolist() == (value - value.mean(1, keepdim=True)).sign().tolist()
    assert measured["labels/liked"] + measured["labels/disliked"] == 1.0
    assert labelled.index.tolist() == list(range(8)) and labelled.total == 8


def test_a_rank_holds_the_pairs_of_its_own_groups() -> None:
    """The second of two processes, as far as that can be seen without the other: what it samples and how it counts."""
    policy = tiny.policy()
    collector = OnlinePairs(rollouts=training.collector((training.Brightness(),), groups=4), per_group=2)
    pairs, _ = collector.collect(policy, 0)
    assert pairs.index.tolist() == list(range(8))
    second = training.collector((training.Brightness(),), groups=4, fleet=Fleet(1, 2))
    drawn = second.draw(policy, 0)
    assert sorted(set(drawn.group[drawn.mine].tolist())) == [2, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OnlinePairs(rollouts=training.collector(), per_group=3), "a group of 4 pictures gives 1 to 2 pairs"),
        (lambda: OnlinePairs(rollouts=training.collector(), margin=-1.0), "margin is -1.0"),
        (lambda: OnlineLabels(rollouts=training.collector(), margin=-1.0), "margin is -1.0"),
    ],
)
def test_impossible_options(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
