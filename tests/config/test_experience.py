"""What an objective learns from: the collector of its kind, and the options that mean nothing to it."""

from __future__ import annotations

import pytest

from safediffusion.collect.latent_reward import Settings
from safediffusion.collect.on_policy import OnPolicy
from safediffusion.collect.prompts_only import PromptsOnly
from safediffusion.collect.surrogate import SurrogatePrompts
from safediffusion.config.build import build_experiment
from safediffusion.config.check import check
from safediffusion.config.collectors import build_collector, preferring
from safediffusion.config.cost import forecast
from safediffusion.config.load import load_recipe
from safediffusion.config.parts import build_objective
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.objectives.direct import Direct
from safediffusion.objectives.lasro import Lasro
from tests import small


def test_each_kind_has_its_collector(folders: small.Folders) -> None:
    kinds = {
        "emoji-draft": PromptsOnly,
        "emoji-refl": PromptsOnly,
        "emoji-prdp": OnPolicy,
        "emoji-lasro": SurrogatePrompts,
    }
    for name, kind in kinds.items():
        made = build_experiment(load_recipe(name, [*folders.small, "plan.size=[16,16]"])).trainer
        assert isinstance(made.collector, kind)


def test_a_surrogate_gets_its_keys_and_rollouts_that_record_nothing() -> None:
    keys = ["surrogate.epochs=3", "surrogate.loss=regression", "steering.alpha=auto", "objective.min_accuracy=0.7"]
    recipe = load_recipe("emoji-lasro", keys)  # there are rollouts, on which alpha can be measured
    collect = preferring(recipe, build_collector(recipe, check(recipe), (), fleet=Fleet()))
    assert isinstance(collect, SurrogatePrompts) and collect.settings == Settings(epochs=3, loss="regression")
    assert not collect.rollouts.record and not collect.rollouts.keep_bare
    assert build_objective(recipe) == Lasro(kl=1.0, min_accuracy=0.7)
    assert "the surrogate and its replay" in forecast(recipe).unmeasured


def test_the_named_settings_are_one_objective() -> None:
    draft = build_objective(load_recipe("emoji-draft", ["objective.last=2", "objective.kl=0.5"]))
    assert draft == Direct(last=(2, 2), kl=0.5)
    refl = build_objective(load_recipe("emoji-refl", ["objective.hinge=0.5"]))
    assert refl == Direct(early=(0, 2), hinge=0.5, kl=1.0)
    aligned = build_objective(load_recipe("emoji-draft", ["objective.kind=alignprop", "objective.last=[1,8]"]))
    assert aligned == Direct(last=(1, 8), kl=1.0, checkpoint=True)  # kinds of one family keep the keys they share


COSTS = ["constraint.costs=[emoji-moderator]", "constraint.budget=0.1"]


@pytest.mark.parametrize(
    ("recipe", "keys", "message"),
    [
        ("emoji-draft", ["steering.alpha=auto"], "measured on a first rollout, but objective.kind=draft has none"),
        ("emoji-draft", ["plan.noise_sharing=group"], "compares no pictures"),
        ("emoji-refl", ["overlap=true"], "draws and learns in one go"),
        ("emoji-steer", ["group_size=1"], "group_size is 1, but credit.kind=weighted compares"),
        ("emoji-draft", ["credit.gae_lambda=0.5"], "objective.kind=draft does not read; set it to null"),
        ("emoji-draft", ["surrogate.width=8"], "`surrogate` is for objective.kind=lasro, not draft"),
        ("emoji-lasro", ["surrogate.lr=0"], "with which it would learn nothing"),
        ("emoji-lasro", ["overlap=true"], "draws and learns in one go"),
        ("emoji-prdp", ["credit.gae_lambda=0.5"], "objective.kind=prdp does not read; set it to null"),
        ("emoji-prdp", ["group_size=3"], "compares pairs, but group_size is 3; set an even one"),
        ("emoji-lasro", ["group_size=1"], "surrogate tells pictures of a prompt apart, but group_size is 1"),
        ("emoji-ddpo", ["group_size=1", *COSTS], "group_size is 1, but `constraint` compares"),
        ("emoji-ddpo", ["group_size=1", "credit.gae_lambda=0.5"], "but credit.gae_lambda compares .*, or that to null"),
        ("emoji-prdp", ["plan.eta=0"], "no step has a probability to train"),
    ],
)
def test_options_that_a_kind_cannot_use_are_refused(recipe: str, keys: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(recipe, keys)


def test_a_plan_without_noise_can_be_differentiated() -> None:
    assert load_recipe("emoji-draft", ["plan.eta=0", "weights.init=random"]).plan.eta == 0


@pytest.mark.parametrize("recipe", ["emoji-draft", "emoji-ddpo"])
def test_one_picture_a_prompt_is_enough_where_none_are_compared(recipe: str) -> None:
    assert load_recipe(recipe, ["group_size=1"]).group_size == 1


def test_what_is_learned_of_a_picture_is_told() -> None:
    lines = "\n".join(forecast(load_recipe("emoji-steer-direct", ["steps=80"])).lines())
    assert "7,680 (96 a step), gradients of 1 steps each" in lines


def test_activations_of_every_step_are_counted_unless_they_are_computed_again() -> None:
    def training(*keys: str) -> int:
        return forecast(load_recipe("emoji-draft", list(keys))).memory.training

    one, three = training(), training("objective.last=3")
    assert three > 1.3 * one
    assert training("objective.last=3", "objective.checkpoint=true") == training("objective.checkpoint=true")
