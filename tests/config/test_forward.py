"""Recipes on the forward process: what they cost, who samples, and what they cannot be combined with."""

from __future__ import annotations

from pathlib import Path

import pytest

from safediffusion.config.build import build_experiment
from safediffusion.config.cost import forecast
from safediffusion.config.load import load_recipe
from safediffusion.core.errors import UserError
from safediffusion.models.policy import Weights
from safediffusion.train.run import train
from tests import small

ODE = ["plan.eta=0", "plan.window=null", "plan.noise_sharing=fresh", "weights.init=random"]


@pytest.mark.parametrize("name", ["emoji-nft", "emoji-awm", "emoji-rwr"])
def test_pictures_may_be_drawn_without_noise_or_with_guidance(
    name: str, folders: small.Folders, tmp_path: Path
) -> None:
    for number, own in enumerate((ODE, ["plan.guidance=3"])):
        recipe = load_recipe(name, [*folders.small, *own])
        expected, experiment = forecast(recipe), build_experiment(recipe)
        behavior = Weights.BEHAVIOR if name == "emoji-nft" else Weights.LIVE
        assert experiment.trainer.collector.behavior is behavior
        result = train(experiment, tmp_path / str(number))
        found = (result.images, result.unet_forwards, result.unet_backwards)
        assert found == (expected.images, expected.forwards, expected.backwards)
        count = recipe.plan.steps if name != "emoji-rwr" else 4  # the grid of 3 steps has no 4 times
        assert expected.recorded == 0 and f"{count} times of the forward process each" in "\n".join(expected.lines())


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_the_behavior_weights_are_counted(folders: small.Folders, full: bool) -> None:
    keys = [*folders.whole, "weights.kind=full", "weights.init=random"] if full else folders.small
    nft, rwr = (forecast(load_recipe(name, [*keys, "objective.kl=0"])) for name in ("emoji-nft", "emoji-rwr"))
    trained = nft.memory.optimizer // 3  # a gradient and two moments
    assert nft.memory.weights - rwr.memory.weights == trained > 0


@pytest.mark.parametrize("name", ["emoji-dpo", "emoji-kto"])
def test_finished_pictures_may_come_without_noise(name: str, folders: small.Folders, tmp_path: Path) -> None:
    given = [*folders.small, "plan.eta=0", "plan.noise_sharing=fresh", "weights.init=random"]
    assert train(build_experiment(load_recipe(name, given)), tmp_path / "run").steps == 2
    with pytest.raises(UserError, match=r"plan.eta is 0, so no step has a probability to train"):
        load_recipe("emoji-d3po", given)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("emoji-nft", ["credit.gae_lambda=0.5"], "objective.kind=nft learns from whole pictures; set credit.gae_la"),
        ("emoji-rwr", ["plan.keep_unconditional_grad=true"], "objective.kind=rwr trains without guidance"),
        ("emoji-awm", ["ema=null"], "objective.kl_ema compares with averaged weights, but there are none; set ema"),
        ("emoji-awm", ["objective.updates=2"], "anchor=first_pass allows one update a step, updates is 2"),
        ("emoji-rwr", ["objective.times_per_image=null"], "times=uniform has no end; set times_per_image"),
        ("emoji-nft", ["plan.eta=0"], "the pictures of a group are all the same; set plan.noise_sharing=fresh"),
        ("emoji-nft", ["plan.eta=0", "plan.noise_sharing=fresh"], "weights.init=contrast looks at the plan's noisy"),
        ("emoji-steer", ["plan.eta=0"], "plan.eta is 0, so no step has a probability to train"),
        ("emoji-nft", ["objective.temperature=1"], r"\(a key of rwr\)"),
    ],
)
def test_what_they_cannot_be_combined_with(name: str, change: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(name, change)
