"""The sections `attack` and `active` of a recipe: what is refused, what is built, what it costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from safediffusion.collect.attacker import Attacked
from safediffusion.collect.disputed import Disputed, Watched
from safediffusion.collect.on_policy import OnPolicy
from safediffusion.config.asked import build_asked
from safediffusion.config.build import build_experiment
from safediffusion.config.check import check
from safediffusion.config.cost import forecast
from safediffusion.config.load import load_recipe
from safediffusion.core.errors import UserError
from tests import small
from tests.training import Brightness

ON = "attack.every=2"
TWO = "active.scores=[steering/safety,clip]"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["attack.keep=3"], "attack.every is 0, so nothing is searched"),
        ([ON, "memory.text_encoders=free"], "cannot be encoded once memory.text_encoders=free"),
        ([ON, "attack.candidates=4"], "attack.candidates is 4 and attack.keep 8"),
        ([ON, "attack.sweep=4", "attack.vocabulary=none"], "attack.vocabulary is none, so there is no word to try"),
        ([ON, "attack.crosses=4", "attack.vocabulary=none"], "attack.crosses 4, but attack.vocabulary is none"),
        ([ON, "attack.base_least=0.5"], "attack.base_pictures is 0 and attack.base_least 0.5; set both"),
        ([ON, "attack.base_pictures=4"], "attack.base_pictures is 4 and attack.base_least null; set both"),
        ([ON, "attack.score=harm", "calibration.pictures=null"], "attack.score is harm, which is fitted on labelled"),
        ([ON, "attack.score=steering/safty"], "did you mean 'steering/safety'"),
        ([ON, "attack.score=clip"], "clip is no score of harm"),
        ([ON, "attack.vocabulary=modell"], "attack.vocabulary: 'modell' is no file; it is none, prompts, model"),
        ([ON, "prompts.unsafe=null"], "attack mutates prompts labelled unsafe, and there is none"),
        ([TWO], "active.by is random, which looks at no score"),
        (["active.by=ranks"], "active.scores has 0; name two or more"),
        (["active.by=ranks", TWO], "names clip, which is measured neither by"),
    ],
)
def test_what_means_nothing_is_refused(keys: list[str], message: str) -> None:
    if "prompts.unsafe=null" in keys:
        keys = [ON, "prompts={}", "prompts.benign.builtin=emoji/benign", "weights.init=random", "steering.gate=all"]
    with pytest.raises(UserError) as caught:
        check(load_recipe("emoji-steer", keys))
    assert message in str(caught.value)


@pytest.mark.parametrize("keys", [[ON], ["active.by=ranks", "active.scores=[steering/safety,steering/alignment]"]])
def test_pairs_that_are_given_cannot_be_asked_for(keys: list[str]) -> None:
    with pytest.raises(UserError, match="preferences.source=wording"):
        load_recipe("emoji-safety-dpo", [*keys, "scorers.steering=1"])


def test_the_attacker_gets_its_keys_and_leaves_held_out_texts_alone(folders: small.Folders, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("gun\nsabre\n")
    with pytest.raises(UserError, match="has 2 words; set attack.sweep to at most that"):
        name = f"attack.vocabulary={tmp_path / 'words.txt'}"
        build_experiment(load_recipe("emoji-steer", [*folders.small, ON, "attack.sweep=3", name]))
    keys = [
        "attack.every=1",
        "attack.sweep=2",
        "attack.keep=3",
        "attack.steps=4",
        "attack.pool=7",
        "attack.share=0.5",
        "seed=5",
    ]
    recipe = load_recipe("emoji-steer", [*folders.small, *keys, f"attack.vocabulary={tmp_path / 'words.txt'}"])
    made = build_experiment(recipe).trainer.collector
    assert isinstance(made, Attacked) and isinstance(made.inner, OnPolicy)
    attacker = made.attacker
    assert made.inner.prompts is attacker.pool and attacker.harm.scorer is made.inner.scorers[0]
    assert (attacker.pool.room, attacker.pool.share, attacker.seed, attacker.batch) == (7, 0.5, 5, 4)
    assert (attacker.plan.steps, attacker.plan.window, attacker.plan.dynamics.deterministic()) == (
        4,
        None,
        attacker.plan.dynamics,
    )
    assert (attacker.budget.keep, attacker.budget.sweep) == (3, 2) and attacker.material.words == ("gun", "sabre")
    assert attacker.excluded("a gun") and not attacker.excluded("a knife")
    assert {p.tags["label"] for p in attacker.parents} == {"unsafe"} and "a cat" not in attacker.material.words
    for vocabulary, words in (("none", set()), ("prompts", {"knife", "zombie"}), ("model", {"knife", "harmless"})):
        other = build_experiment(load_recipe("emoji-steer", [*folders.small, ON, f"attack.vocabulary={vocabulary}"]))
        assert isinstance(other.trainer.collector, Attacked)
        found = set(other.trainer.collector.attacker.material.words)
        assert words <= found and bool(words) is bool(found)


def test_a_search_is_in_the_forecast(folders: small.Folders) -> None:
    plain, attacked = (
        forecast(load_recipe("emoji-steer", [*folders.small, "steps=7", *keys]), processes=2)
        for keys in ([], ["attack.every=2", "attack.keep=3", "attack.candidates=5", "attack.rounds=1"])
    )
    # steps 2, 4 and 6 search: 3 and 5 prompts, 2 pictures each, 6 steps, no guidance
    more = ["attack.every=2", "attack.keep=3", "attack.candidates=8", "attack.sweep=2", "attack.crosses=5"]
    more += ["attack.base_pictures=4", "attack.base_least=0.5"]
    recipe = load_recipe("emoji-steer", [*folders.small, "steps=7", *more, "attack.rounds=1"])
    # 3 + 8 + 2 prompts in the first search, which has no find to cross with, and 5 more in the others; 3 finds again
    assert forecast(recipe, processes=2).attacks == (3 * 26 + 2 * 10 + 3 * 12) * 6
    assert (plain.attacks, attacked.attacks) == (0, 3 * (6 + 10) * 6)
    assert attacked.forwards == plain.forwards + attacked.attacks
    assert any("288 to search for attacks" in line for line in attacked.lines())


def test_a_choice_is_in_the_credit_and_the_prompts(folders: small.Folders) -> None:
    keys = ["active.by=ranks", "active.scores=[steering/safety,clip]", "active.share=0.3", "scorers.clip=0"]
    made = build_experiment(load_recipe("emoji-steer", [*folders.small, *keys])).trainer.collector
    assert isinstance(made, OnPolicy) and isinstance(made.credit, Watched)
    chosen = made.credit.disputed
    assert made.prompts is chosen and (chosen.share, chosen.by) == (0.3, "ranks")
    assert chosen.scores == {"steering/safety": True, "clip": True}
    recipe = load_recipe("emoji-steer", ["active.by=ranks", TWO, "scorers.clip=0", ON])
    scorers = (replace(Brightness(), name="steering"), replace(Brightness(), name="clip", higher_is_better=False))
    asked = build_asked(recipe, check(recipe), scorers)
    assert asked.pool is not None and asked.source is asked.pool and asked.pool.source is asked.disputed
    assert isinstance(asked.disputed, Disputed) and asked.disputed.scores == {"steering/safety": True, "clip": False}
