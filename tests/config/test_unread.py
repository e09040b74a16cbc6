"""Keys that a recipe does not read are refused where they are said, and inherited in peace."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.study import Entry, entries_of
from safediffusion.config.check import check
from safediffusion.config.load import FOLDER, load_recipe, parse_recipe, recipe_names, to_plain
from safediffusion.core.errors import UserError

SCALAR = r"reads the weighted sum of the scores and no advantages; leave it out$"


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("emoji-draft", ["credit.clip=1"], rf"credit.clip is 1, but objective.kind=draft {SCALAR}"),
        ("emoji-draft", ["credit={clip: 1}"], SCALAR),
        ("emoji-draft", ["credit.std=group"], SCALAR),
        ("emoji-draft", ["credit.kind=leave-one-out"], SCALAR),
        ("emoji-draft", ["credit.kind=running", "credit.least=99"], SCALAR),
        ("emoji-draft", ["objective.kind=alignprop", "objective.last=[1,8]", "credit.eps=1"], SCALAR),
        ("emoji-refl", ["credit.kind=decoupled"], SCALAR),
        ("emoji-steer-direct", ["credit.clip=1"], SCALAR),
        ("emoji-focus-n-fix", ["credit.clip=1"], SCALAR),
        ("emoji-lasro", ["credit.std=group"], SCALAR),
        ("emoji-prdp", ["credit.kind=decoupled"], SCALAR),
        ("emoji-dpo", ["credit.kind=leave-one-out"], SCALAR),
        ("emoji-d3po", ["credit.std=none"], SCALAR),
        ("emoji-kto", ["credit.std=none"], SCALAR),
        (
            "emoji-steer",
            ["credit.std=none", "credit.eps=1"],
            "std=none divides by nothing; leave it out, or set",
        ),
        ("emoji-rwr", ["objective.share=0.5"], "weighting=exp has none; leave it out, or set objective.weighting=top"),
        ("emoji-rwr", ["objective.weighting=top", "objective.temperature=2"], "temperature is 2, but .*weighting=top"),
        ("emoji-steer", ["plan.window_every=5"], "window_every is 5, but plan.window_moves=fixed has no such pace"),
        ("emoji-mixgrpo", ["plan.window_moves=random", "plan.window_every=5"], "window_moves=random has no such pace"),
        (
            "emoji-steer",
            ["steering.alpha=2", "steering.alpha_ratio=2"],
            "alpha_ratio is 2, but .* steering.alpha is 2",
        ),
        ("emoji-steer", ["steering.label_prior=9"], "label_prior is 9, but there are no steering.labels"),
        (
            "emoji-steer",
            ["scorers={clip: 1.0}", "calibration.pictures=emoji"],
            "pictures is emoji, but `scorers` has no steering and nothing is fitted as harm",
        ),
        (
            "emoji-steer",
            ["optimizer.decay=constant", "optimizer.hold=0.5"],
            "hold is 0.5, but optimizer.decay=constant",
        ),
        ("emoji-safety-dpo", ["guard.patience=3"], "guard.patience is 3, but nothing is rewarded"),
        ("emoji-safety-dpo", ["steering.alpha=2"], "steering.alpha is 2, but `scorers` has no steering; leave it out"),
        ("emoji-steer", ["scorers={clip: 1.0}", "steering.gate=all"], "`scorers` has no steering"),
        ("emoji-constrained", ["steering.mode=projection"], "`scorers` has no steering"),
        (
            "emoji-steer-direct",
            ["constraint.std=3"],
            "emoji-moderator is the only cost, and one number has no",
        ),
        ("emoji-constrained", ["constraint.costs=[q16]", "constraint.std=3"], "q16 is the only cost"),
        (
            "emoji-steer",
            ["objective.clip=0.2"],
            "clip is 0.2, but objective.anchor=first_pass with one update",
        ),
        ("emoji-awm", ["objective.clip=0.5"], "makes every ratio exactly 1; leave it out, or set"),
        (
            "emoji-flow-grpo",
            [
                "objective.kind=flow-dppo",
                "objective.anchor=first_pass",
                "objective.updates=1",
                "objective.divergence=1",
            ],
            "divergence is 1, but objective.anchor=first_pass",
        ),
        ("emoji-prdp", ["objective.clip=0.2"], "the only update of a step starts at the old policy; leave it out, or"),
        ("r1-released", ["weights.rank=4"], "weights.rank is 4, but weights.kind=full trains every weight"),
        ("emoji-r1-released", ["weights.within=[up_blocks]"], "weights.kind=full trains every weight and has no"),
        ("sd15-steer", ["calibration.min_auc=0.95"], "min_auc is 0.95, but calibration.pictures is null, so no"),
        ("emoji-draft", ["scorers={clip: 1.0}", "calibration.min_auc=0.95"], "min_auc is 0.95, but `scorers` has no"),
    ],
)
def test_what_would_not_be_read_is_refused(name: str, keys: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(name, keys)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("emoji-steer", ["credit.clip=1", "credit.std=group", "steering.alpha_ratio=3"]),
        ("emoji-rwr", ["credit.kind=leave-one-out", "credit.clip=1", "objective.temperature=2"]),
        ("emoji-rwr", ["objective.weighting=top", "objective.share=0.5"]),  # a temperature is inherited
        ("emoji-mixgrpo", ["plan.window_every=7"]),
        ("emoji-mixgrpo", ["plan.window_moves=fixed"]),  # and here window_every
        ("emoji-constrained", ["calibration.pictures=emoji"]),  # harm is fitted on them
        ("emoji-draft", ["credit.gae_lambda=null"]),  # refused otherwise
        ("emoji-steer-direct", ["scorers={clip: 1.0}"]),  # all of steering
        ("emoji-constrained", ["constraint.std=3", "steering.anchors=emoji/compact"]),  # of harm, an ensemble
        ("emoji-steer-direct", ["constraint.costs=[emoji-moderator,harm]", "constraint.std=3"]),
        ("emoji-one-category", ["scorers={clip: 1.0}", "attack.score=steering/safety", "steering.gate=all"]),
    ],
)
def test_what_is_read_or_inherited_is_not(name: str, keys: list[str]) -> None:
    check(load_recipe(name, keys))


@pytest.mark.parametrize("name", recipe_names())
def test_a_file_that_ships_says_nothing_that_it_does_not_read(name: str, tmp_path: Path) -> None:
    own = tmp_path / f"{name}.yaml"
    own.write_text((FOLDER / own.name).read_text())
    assert load_recipe(str(own)) == load_recipe(name)


@pytest.mark.parametrize("entry", entries_of(None), ids=lambda entry: entry.name)
def test_what_the_frontier_trains_reads_its_keys(entry: Entry) -> None:
    check(load_recipe(entry.recipe, entry.keys))


def test_a_user_s_file_is_read_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("extends: emoji-draft\ncredit: {clip: 1}\n")
    for keys in ([], ["seed=1"], ["objective.last=2"]):
        with pytest.raises(UserError, match=f"credit.clip is 1, but objective.kind=draft {SCALAR}"):
            load_recipe(str(own), keys)
    own.write_text("extends: emoji-draft\ncredit: {clip: 2.5}\n")  # the default, as a file may write out everything
    load_recipe(str(own))
    own.write_text("extends: emoji-steer\nsteering: {alpha_ratio: 3}\n")
    load_recipe(str(own), ["steering.alpha=2"])  # what a file reads may be taken away from it


def test_a_run_that_was_trained_so_can_be_read() -> None:
    recipe = load_recipe("emoji-draft")
    assert recipe.credit != type(recipe.credit)() and parse_recipe(to_plain(recipe)) == recipe
