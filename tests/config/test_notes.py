"""What is said at the start of a run, and prompts of which few are drawn."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from safediffusion.cli.train import command
from safediffusion.config.build import build_experiment
from safediffusion.config.check import check
from safediffusion.config.constrained import unreachable
from safediffusion.config.load import load_recipe
from safediffusion.config.notes import notes
from safediffusion.config.scorers import build_scorers
from safediffusion.core.errors import UserError
from safediffusion.train.run import train
from tests import small

FEW = ["prompts.unsafe.count=28", "prompts.benign.count=28"]


def _said(name: str, *keys: str) -> list[str]:
    recipe = load_recipe(name, keys)
    return list(notes(recipe, check(recipe)))


def test_running_statistics_that_would_never_be_ready_are_told() -> None:
    (said,) = _said("emoji-ddpo")
    assert said.startswith("no prompt has credit.least=16 rewards in 50 steps (the most is 6), so every advantage is")
    assert _said("emoji-ddpo", *FEW) == [] and len(_said("emoji-ddpo", *FEW, "steps=2", "guard.every=0")) == 1


def test_what_comes_after_the_last_step_is_told() -> None:
    (said,) = _said("emoji-steer", "steps=4")
    assert said == "the guard looks every 5 steps, and the run has 4, so nothing guards it"
    assert _said("emoji-steer", "steps=5") == [] == _said("emoji-steer", "guard.every=0")
    (said,) = _said("emoji-steer", "guard.every=0", "guard.judges=[q16]")
    assert said.startswith("guard.judges are set, but the guard is off (guard.every)")
    (said,) = _said("emoji-attacked", "attack.every=50", "steps=50")
    assert said.startswith("attack.every is 50, and the run has 50 steps, so nothing is searched")
    assert _said("emoji-attacked", "attack.every=49", "steps=50") == []
    with pytest.raises(UserError, match="attack.share is 0, so nothing that a search finds would be trained on"):
        load_recipe("emoji-attacked", ["attack.share=0"])


def test_prompts_that_no_budget_counts_are_told(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text('prompt,categories\na knife,"violence, hate"\na cat,\n')
    mine = [f"prompts.mine.file={file}", "prompts.mine.label=unsafe"]
    (said,) = _said("emoji-steer-direct", *mine)
    assert said.startswith("1 prompts of the source 'mine' have `categories` but no `category`, so no budget")
    assert _said("emoji-steer-direct", *mine, "prompts.mine.category=violence") == []
    assert _said("emoji-steer", *mine) == []  # which has no budget


def test_a_guard_that_cannot_see_what_is_in_a_picture_says_so() -> None:
    assert _said("sd15-steer") == [] and _said("emoji-steer", "guard.encoder=null") == []
    (said,) = _said("sd15-steer", "guard.encoder=null")
    assert said.startswith("the guard sees layout and colour alone")
    assert _said("sd15-steer", "guard.encoder=null", "guard.every=0") == []
    assert _said("emoji-steer", "model=emoji+runs/a") == []  # the embedded world's detector looks
    small_reward = "encoder=openai/clip-vit-base-patch32"  # the guard's, which nobody asked for
    assert (
        load_recipe("sd15-steer", [small_reward]).guard.encoder is None and len(_said("sd15-steer", small_reward)) == 1
    )
    with pytest.raises(UserError, match="the reward's own encoder, which cannot guard"):
        load_recipe("sd15-steer", [small_reward, "guard.encoder=openai/clip-vit-base-patch32"])
    dry = CliRunner().invoke(command, ["sd15-steer", "guard.encoder=null", "--dry-run"], catch_exceptions=False)
    assert f"note: {said}" in dry.output


@pytest.mark.parametrize("name", ["sd14-steer", "sdxl-steer-direct", "sd35-steer", "flux-steer-direct", "r1-released"])
def test_the_guard_of_a_real_model_has_an_encoder_that_is_not_the_reward_s(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.guard.encoder == "openai/clip-vit-base-patch32" != recipe.encoder and _said(name) == []


def test_few_prompts_are_chosen_by_the_seed_and_spread_over_categories() -> None:
    def drawn(*keys: str) -> list[str]:
        return [p.text for p in check(load_recipe("emoji-steer", [*FEW, *keys])).prompts]

    first = drawn()
    assert len(first) == 56 and first == drawn() != drawn("seed=1")
    unsafe = [p for p in check(load_recipe("emoji-steer", FEW)).prompts if p.tags["label"] == "unsafe"]
    assert sorted(p.tags["category"] for p in unsafe) == sorted([*{p.tags["category"] for p in unsafe}] * 4)
    with pytest.raises(UserError, match=r"prompts.unsafe.count is 99999, but the source has 1400 prompts; set at most"):
        check(load_recipe("emoji-steer", ["prompts.unsafe.count=99999"]))


def test_a_prompt_s_own_statistics_are_used_where_prompts_come_back(folders: small.Folders, tmp_path: Path) -> None:
    few = ["prompts.unsafe.count=1", "prompts.benign.count=1", "credit.least=4", "credit.memory=8"]
    recipe = load_recipe("emoji-ddpo", [*folders.small, "plan.size=[16,16]", *few])
    train(build_experiment(recipe), tmp_path / "run")
    ready = [json.loads(line)["credit/ready"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert ready == [0.0, 1.0]  # the second step draws one of the two prompts again, twice


def test_a_budget_that_safe_pictures_break_is_told() -> None:
    recipe = load_recipe(
        "emoji-constrained", ["constraint.budgets={sexual: 0.01, hate: 0.5}", "constraint.budget=null"]
    )
    (said,) = unreachable(recipe, check(recipe), build_scorers(recipe))
    assert re.match(r"harm's cost of the safe labelled pictures is about \d\.\d% for sexual, above .* of 1\.0%", said)
    fixed = load_recipe("emoji-steer-direct")
    assert list(unreachable(fixed, check(fixed), build_scorers(fixed))) == []
