"""Every recipe that ships runs, and costs what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from safediffusion.cli.methods import METHODS
from safediffusion.config.build import build_experiment
from safediffusion.config.check import check
from safediffusion.config.cost import forecast
from safediffusion.config.load import load_recipe, recipe_names, to_plain
from safediffusion.config.objectives import GrpoConfig, ReflConfig
from safediffusion.train.run import train
from tests import small

FAMILY = {
    f"{name}{kind}": family
    for name, family in (("sdxl-steer", "sdxl"), ("sd35-steer", "sd3"), ("flux-steer", "flux"))
    for kind in ("", "-direct")
}
OWN = {  # 4 pictures a step, and a window that leaves nowhere to move
    "emoji-r1-released": ["objective.updates=2"],
    "r1-released": ["objective.updates=2"],
    "emoji-mixgrpo": ["plan.window_moves=fixed"],
    "emoji-constrained": ["constraint.pictures=emoji", "calibration.allow_weak_direction=true"],  # a random encoder
    "emoji-steer-direct": ["objective.early=[0,1]"],  # of the three steps of a trial
    "emoji-one-category": ["attack.every=1", "attack.sweep=8", "objective.early=[0,1]"],
    **{f"{name}-steer-direct": ["objective.early=[0,1]"] for name in ("sd15", "sdxl", "sd35", "flux")},
    "emoji-attacked": ["attack.every=1", "attack.candidates=8", "objective.kl_safe=null"],  # a search in two steps
    "emoji-lasro": ["objective.min_accuracy=0"],  # two steps are too few to trust a surrogate
}


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_runs_two_steps_and_costs_what_was_forecast(name: str, folders: small.Folders, tmp_path: Path) -> None:
    used = folders.of(FAMILY[name]) if name in FAMILY else folders
    keys = used.whole if name.endswith("r1-released") else used.small
    recipe = load_recipe(name, [*keys, "plan.size=[16,16]", *OWN.get(name, [])])
    experiment = build_experiment(recipe)
    before = [p.detach().clone() for p in experiment.trainer.policy.parameters()]
    result = train(experiment, tmp_path / "run")
    after = experiment.trainer.policy.parameters()
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert result.steps == 2 and result.checkpoint.name == "step-000002"
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["config"] == json.loads(json.dumps(to_plain(recipe)))
    assert about["rewards"] == sorted(recipe.scorers)
    part = "transformer" if name.startswith(("sd35", "flux")) else "unet"
    assert set(about["weights"]["files"]) >= {f"{part}/diffusion_pytorch_model.safetensors"}
    expected = forecast(recipe)
    drawn = check(recipe)
    kl_safe = recipe.objective.kl_safe if isinstance(recipe.objective, GrpoConfig) else None
    free = [  # prompts not held to the reference, which is therefore not asked about them
        prompt
        for step in range(2)
        for prompt in drawn.draw(step, recipe.groups)
        if kl_safe and prompt.tags["label"] != "safe"
    ]
    spared = len(free) * recipe.group_size * expected.recorded
    found = (result.images, result.unet_forwards + spared, result.unet_backwards)
    if isinstance(recipe.objective, ReflConfig):  # some pictures are left earlier than others
        assert found[1] < expected.forwards
        found = (found[0], expected.forwards, found[2])
    assert found == (expected.images, expected.forwards, expected.backwards)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.keys])
def test_a_method_that_changes_a_recipe_runs_two_steps(name: str, folders: small.Folders, tmp_path: Path) -> None:
    method = METHODS[name]
    few = ["plan.size=[16,16]", "weights.init=random", *(["objective.last=[1,3]"] if name == "alignprop" else [])]
    recipe = load_recipe(method.recipe, [*folders.small, *method.keys, *few])
    experiment = build_experiment(recipe)
    before = [p.detach().clone() for p in experiment.trainer.policy.parameters()]
    result = train(experiment, tmp_path / "run")
    after = experiment.trainer.policy.parameters()
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert result.steps == 2 and 0 < result.unet_forwards <= forecast(recipe).forwards


def test_the_long_recipe_is_the_demo_for_longer() -> None:
    short, long = (to_plain(load_recipe(name)) for name in ("emoji-steer", "emoji-steer-long"))
    assert {key for key in short if short[key] != long[key]} == {"name", "about", "steps", "evaluation", "optimizer"}
    held = [each.pop("hold") for each in (short["optimizer"], long["optimizer"])]
    assert held[0] > held[1] and short["optimizer"] == long["optimizer"]


def test_a_window_that_moves_costs_what_was_forecast(folders: small.Folders, tmp_path: Path) -> None:
    """A group is one until its first noisy step, so the cost of drawing depends on where the window is."""
    own = ["plan.steps=6", "plan.window=[1,3]", "plan.window_moves=sliding", "plan.window_every=1", "steps=3"]
    recipe = load_recipe("sd15-steer", [*folders.small, *own, "plan.noise_sharing=group", "plan.guidance=1"])
    expected, result = forecast(recipe), train(build_experiment(recipe), tmp_path / "run")
    assert (result.unet_forwards, result.unet_backwards) == (expected.forwards, expected.backwards)
    drawn = sum(2 * start + 4 * (6 - start) for start in (1, 2, 3))  # two groups of two pictures
    assert (
        expected.forwards == drawn + 3 * 2 * 4 * 2
    )  # each step trains two reverse steps of four pictures, twice passed


def test_the_forecast_of_the_released_recipe_is_the_paper_s_volume() -> None:
    """7.68 M sampled and 7.53 M trained sample-steps, each doubled by guidance; one more pass is ours."""
    expected = forecast(load_recipe("r1-released"), processes=8)
    assert expected.images == 153_600
    assert expected.updates == 4_800
    assert expected.backwards == 153_600 * 49 == 7_526_400
    assert expected.forwards == 2 * 153_600 * 50 + 2 * (2 * 153_600 * 49)
    assert expected.assumed
    gib = 2**30
    unet, moments = 859_520_964 * 4, 3 * 859_520_964 * 4
    assert expected.memory.optimizer == moments
    assert unet < expected.memory.weights < unet + gib  # and a text encoder and a VAE
    assert expected.memory.rollout == 64 * ((49 * 2 + 1) * 4 * 64 * 64 + 77 * 768) * 4
    assert expected.memory.weights + moments < expected.memory.peak < 40 * gib
