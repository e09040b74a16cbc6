"""Masks by hand, on heat maps that are made up, and where a reward depends on a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from safediffusion.collect.reward import Reward
from safediffusion.config.build import build_experiment
from safediffusion.config.load import load_recipe
from safediffusion.config.parts import build_objective
from safediffusion.config.regions import JudgesBoxes, boxes_of
from safediffusion.core.errors import UserError
from safediffusion.core.learned import learned_from
from safediffusion.credit.weighted import WeightedSum
from safediffusion.evaluate.benchmark import Judgement
from safediffusion.evaluate.rows import Detection
from safediffusion.objectives.focus import FocusNFix, focus_n_fix
from safediffusion.objectives.regions import Boxes, Saliency, blurred, hottest
from safediffusion.scorers.base import ImageBatch
from safediffusion.train.run import train
from safediffusion.worlds.emoji.assets import calibration
from safediffusion.worlds.emoji.moderator import Moderator
from tests import small, tiny, training

HEAT = torch.tensor([[9.0, 1.0, 0.0, 0.0], [8.0, 2.0, 0.0, 0.0], [3.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])[
    None, None
]


def test_the_hottest_share_of_a_made_up_heat_map() -> None:
    two = torch.zeros(4, 4)
    two[0, 0] = two[1, 0] = 1
    assert torch.equal(hottest(HEAT, 2 / 16)[0, 0], two)
    three = two.clone()
    three[2, :2] = 1  # both are as hot as the third
    assert torch.equal(hottest(HEAT, 3 / 16)[0, 0], three)
    assert hottest(HEAT, 1.0).sum() == 6  # no heat, no region
    assert hottest(torch.zeros(1, 1, 4, 4), 0.5).sum() == 0


def test_the_blur_is_a_gaussian_that_keeps_what_is_even() -> None:
    heat = torch.zeros(1, 1, 9, 9)
    heat[0, 0, 4, 4] = 1
    found = blurred(heat, 0.5)[0, 0]
    weight = torch.exp(-(torch.tensor([2.0, 1.0, 0.0, 1.0, 2.0]) ** 2) / 0.5)
    torch.testing.assert_close(found[2:7, 2:7], torch.outer(weight, weight) / weight.sum() ** 2)
    assert found.sum().item() == pytest.approx(1) and torch.equal(blurred(heat, 0.0), heat)
    torch.testing.assert_close(blurred(torch.full((1, 1, 5, 5), 3.0), 2.0), torch.full((1, 1, 5, 5), 3.0))


@dataclass(frozen=True)
class Corner(training.Brightness):
    """Sees the upper left quarter alone."""

    def __call__(self, batch: ImageBatch) -> Tensor:
        return (batch.images[:, :, :4, :4] ** 2).mean((1, 2, 3))


def test_saliency_is_where_the_reward_looks() -> None:
    reward = Reward(scorers=(Corner(),), credit=WeightedSum(weights={"brightness": 1.0}))
    images = torch.full((2, 3, 8, 8), 0.5)
    images[1, :, 0, 0] = 1.0  # its slope is twice that of the others there
    prompts = training.prompts(2)
    quarter = torch.zeros(8, 8)
    quarter[:4, :4] = 1
    with torch.no_grad():
        found = Saliency(share=0.25, blur=0.0)(images, prompts, reward)
        one = Saliency(share=1 / 64, blur=0.0)(images, prompts, reward)
    assert found.shape == (2, 1, 8, 8) and not found.requires_grad
    assert torch.equal(found[0, 0], quarter) and torch.equal(found[1, 0], quarter)
    assert one[1].sum() == 1 and one[1, 0, 0, 0] == 1


def test_saliency_of_harm_is_where_that_is_seen() -> None:
    """The reward looks at the whole picture, the score of harm at one corner."""
    reward = Reward(scorers=(training.Brightness(),), credit=WeightedSum(weights={"brightness": 1.0}))
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    corner = torch.zeros(8, 8)
    corner[:4, :4] = 1
    found = Saliency(share=0.25, blur=0.0, of=Corner())(images, training.prompts(2), reward)
    assert torch.equal(found[0, 0], corner) and not found.requires_grad


def test_the_moderator_points_where_it_is_sure() -> None:
    """P(unsafe) is 1 to the last digit there, without a slope; its evidence has one, on what it sees."""
    images, labels = calibration()
    unsafe = images[[i for i, label in enumerate(labels) if label["unsafe"]][:60]]
    moderator, prompts = Moderator(), tuple(training.prompts(1) * len(unsafe))
    sure = unsafe[moderator(ImageBatch(unsafe, prompts)) == 1]
    assert len(sure) > 5
    found = Saliency(share=0.25, of=moderator.evidence)(sure, prompts[: len(sure)], REWARD)
    assert torch.allclose(found.mean((1, 2, 3)), torch.tensor(0.25), atol=0.01)


def test_the_moderator_of_the_embedded_world_points_at_a_region(folders: small.Folders, tmp_path: Path) -> None:
    keys = [*folders.small, "plan.size=[16,16]", "objective.region=emoji-moderator"]
    recipe = load_recipe("emoji-focus-n-fix", keys)
    result = train(build_experiment(recipe), tmp_path / "run")
    assert 0.25 <= result.metrics["region/share"] < 0.3 and result.metrics["loss/outside"] >= 0
    assert "emoji-moderator" in learned_from(recipe.scorers, (), "emoji-moderator")


def test_boxes_cover_what_a_detector_names() -> None:
    seen = (
        Detection(name="BELLY_EXPOSED", x=2.0, y=3.0, score=0.9, width=2.0, height=2.5),
        Detection(name="FACE_FEMALE", x=6.0, y=6.0, score=0.9, width=2.0, height=2.0),
    )
    words = (Judgement(detections=seen), Judgement(detections=None))
    boxes = boxes_of(words, ("BELLY_EXPOSED",))
    assert boxes == [[(1.0, 1.75, 3.0, 4.25)], []]
    mask = Boxes(detector=lambda images: boxes)(torch.zeros(2, 3, 8, 8), training.prompts(2), REWARD)
    expected = torch.zeros(8, 8)
    expected[1:5, 1:3] = 1  # every pixel that the box touches
    assert torch.equal(mask[0, 0], expected) and mask[1].sum() == 0
    outside = Boxes(detector=lambda images: [[(-3.0, -3.0, 1.0, 1.0)]])(torch.zeros(1, 3, 8, 8), (), REWARD)
    assert outside.sum() == 1 and outside[0, 0, 0, 0] == 1


REWARD = Reward(scorers=(training.Brightness(),), credit=WeightedSum(weights={"brightness": 1.0}))


def test_a_constraint_never_hears_of_the_base_s_pictures() -> None:
    """What the region is found in is looked at by the reward, and only the policy's pictures are measured."""
    reward = Reward(scorers=(training.Brightness(),), credit=WeightedSum(weights={"brightness": 1.0}))
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = Saliency(share=0.5)(images, tiny.PROMPTS[:2], reward)
    assert mask.shape == (2, 1, 8, 8) and not reward._seen
    reward(images, tiny.PROMPTS[:2])
    assert len(reward._seen) == 1 and torch.equal(reward._seen[0][1]["brightness"], images.mean((1, 2, 3)))


def test_keys_name_the_region() -> None:
    made = build_objective(load_recipe("emoji-focus-n-fix", ["objective.share=0.5", "objective.beta=2"]))
    assert made == FocusNFix(region=Saliency(share=0.5), beta=2.0)
    boxed = build_objective(load_recipe("emoji-focus-n-fix", ["objective.region=nudenet", "objective.share=null"]))
    assert isinstance(boxed, FocusNFix) and boxed.region == Boxes(detector=JudgesBoxes(name="nudenet"))
    with pytest.raises(UserError, match="a detector's boxes have their own size: set share=null"):
        load_recipe("emoji-focus-n-fix", ["objective.region=nudenet"])
    with pytest.raises(UserError, match="which the region 'saliency' alone has"):
        focus_n_fix(region=boxed.region, share=0.5)


@pytest.mark.parametrize("make", [lambda: Saliency(share=0.0), lambda: Saliency(share=1.5), lambda: Saliency(blur=-1)])
def test_impossible_regions(make: Callable[[], Saliency]) -> None:
    with pytest.raises(UserError, match="above 0 and at most 1"):
        make()
