"""Step advantages of a rollout by a critic: from before it learned, and in a recipe of any family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from safediffusion.collect.criticise import states
from safediffusion.config.build import build_experiment
from safediffusion.config.load import load_recipe
from safediffusion.core.errors import UserError
from safediffusion.train.run import train
from tests import critics, small, tiny, training


def test_advantages_are_from_before_the_critic_learned() -> None:
    policy = tiny.policy(trained=True)
    plain, _ = training.collector().collect(policy, 0)
    collector = critics.judged(training.collector(), policy)
    critic = collector.critic
    assert critic is not None
    critic.gae_lambda = 1.0
    first, told = collector.collect(policy, 0)
    shape = (len(plain), 4)
    torch.testing.assert_close(first.advantage, plain.advantage[:, None].expand(shape), atol=1e-6, rtol=1e-6)  # V is 0
    assert told["critic/explained"] == 0 and told["critic/loss"] > 0
    value = critic.value(states(first.rollout, policy.schedule))
    assert value.abs().max() > 0.01
    second, told = collector.collect(policy, 0)  # the same pictures
    torch.testing.assert_close(second.advantage, plain.advantage[:, None] - value, atol=1e-5, rtol=1e-5)
    size = plain.advantage.square().mean()
    assert told["critic/explained"] == pytest.approx(1 - float(second.advantage.square().mean() / size), abs=1e-5)


def test_what_excludes_a_critic() -> None:
    policy = tiny.policy()
    collector = critics.judged(training.collector(), policy)
    with pytest.raises(UserError, match="gae_lambda and critic both"):
        replace(collector, gae_lambda=0.5)
    with pytest.raises(UserError, match="critic gives recorded steps their advantages, but record is off"):
        replace(collector, record=False)


@pytest.mark.parametrize(
    ("recipe", "keys", "words"),
    [
        ("emoji-steer", ["critic.hidden=8"], "critic.kind is none; set critic.kind=latents"),
        ("emoji-steer", ["critic.kind=latents"], "set credit.gae_lambda=null"),
        ("emoji-nft", ["critic.kind=latents"], "objective.kind=nft does not read; set critic.kind=none"),
        ("emoji-d3po", ["critic.kind=latents"], "objective.kind=d3po does not read"),
        ("emoji-draft", ["critic.kind=latents"], "objective.kind=draft does not read"),
        ("emoji-noisy-critic", ["critic.reset_threshold=0.1"], "critic.reset_every is null"),
    ],
)
def test_keys_that_nobody_would_look_at_are_refused(recipe: str, keys: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_recipe(recipe, keys)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_a_critic_of_every_family(family: str, folders: small.Folders, tmp_path: Path) -> None:
    dynamics = [] if family == "sdxl" else ["plan.dynamics=flow-sde", "plan.eta=null", "weights.init=random"]
    keys = [*folders.of(family).small, "plan.size=[16,16]", "weights.targets=[attention]", *dynamics]
    result = train(build_experiment(load_recipe("emoji-tdpo", keys)), tmp_path / "run")
    assert result.steps == 2 and result.metrics["critic/loss"] > 0
