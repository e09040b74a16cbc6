"""What a recipe says about preferences arrives where it is used, and nothing else is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from safediffusion.collect.offline import LabelledPairs, OfflinePairs
from safediffusion.collect.on_policy import OnPolicy
from safediffusion.collect.online import OnlineLabels, OnlinePairs
from safediffusion.collect.wording import WordingPairs
from safediffusion.config.check import check
from safediffusion.config.collectors import accounted, build_collector, preferring
from safediffusion.config.load import load_recipe
from safediffusion.config.parts import build_objective
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.objectives.d3po import D3po
from safediffusion.objectives.dpo import DiffusionDpo
from safediffusion.objectives.kto import DiffusionKto
from tests.training import Brightness

SCORERS = (
    replace(Brightness(), name="steering"),
    replace(Brightness(), name="emoji-moderator", higher_is_better=False),
)


def collector(name: str, *keys: str) -> object:
    recipe = load_recipe(name, list(keys))
    return preferring(recipe, build_collector(recipe, check(recipe), SCORERS, fleet=Fleet()))


def test_the_collector_goes_with_the_objective() -> None:
    assert isinstance(collector("emoji-steer"), OnPolicy)
    keys = ("preferences.by=steering/safety", "preferences.margin=0.5", "preferences.per_group=2")
    for name, recorded in (("emoji-dpo", False), ("emoji-d3po", True)):
        pairs = collector(name, *keys)
        assert isinstance(pairs, OnlinePairs) and pairs.rollouts.record is recorded
        assert (pairs.by, pairs.margin, pairs.per_group) == ("steering/safety", 0.5, 2)
    labels = collector("emoji-kto", "preferences.threshold=0.25", "preferences.margin=0.1")
    assert isinstance(labels, OnlineLabels) and not labels.rollouts.record
    assert (labels.by, labels.margin, labels.threshold, labels.lower) == (None, 0.1, 0.25, False)
    for name, kind in (("emoji-dpo", OnlinePairs), ("emoji-kto", OnlineLabels)):
        harm = collector(name, "scorers={emoji-moderator: -1.0}", "preferences.by=emoji-moderator")
        assert isinstance(harm, kind) and harm.lower


def test_the_objectives_get_their_keys() -> None:
    dpo = build_objective(load_recipe("emoji-dpo", ["objective.beta=7", "objective.draws=3"]))
    assert dpo == DiffusionDpo(beta=7.0, draws=3)
    d3po = build_objective(load_recipe("emoji-d3po", ["objective.clip=0.1", "objective.steps_per_pair=1"]))
    assert d3po == D3po(beta=0.1, clip=0.1, steps_per_pair=1)
    keys = ["objective.utility=loss-averse", "objective.liked=2", "objective.micro=5"]
    kto = build_objective(load_recipe("emoji-kto", keys), fleet=Fleet(1, 2))
    assert kto == DiffusionKto(utility="loss-averse", liked=2.0, draws=2, batch=5, fleet=Fleet(1, 2))


def test_pairs_that_no_score_compares(tmp_path: Path) -> None:
    pairs = collector("emoji-safety-dpo", "groups=6", "group_size=4", "rollout_batch=5", "seed=3")
    assert isinstance(pairs, WordingPairs)
    assert (pairs.groups, pairs.group_size, pairs.rollout_batch, pairs.seed) == (6, 2, 5, 3)
    assert pairs.plan.steps == 8 and pairs.prompts.draw(0, 1)[0].tags["safe"]
    labels = collector("emoji-safety-dpo", "objective={}", "objective.kind=kto")
    assert isinstance(labels, LabelledPairs) and isinstance(labels.source, WordingPairs)
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    rows = [{"prompt": "a cat", "images": ["a.png", "b.png"], "better": better} for better in (0, 1, None)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    keys = ["preferences.source=files", f"preferences.files={tmp_path / 'pairs.jsonl'}", "prompts={}", "groups=2"]
    recipe = load_recipe("emoji-safety-dpo", keys)
    files = collector("emoji-safety-dpo", *keys)
    assert isinstance(files, OfflinePairs) and (len(files.pairs), files.batch) == (2, 2)
    assert [p.id for p in check(recipe).sources[0].prompts] == ["pairs-1", "pairs-2"]
    assert accounted(recipe) == {"pairs": "3 rows read, 2 used; skipped: 1 a tie"}


def test_a_prompt_without_a_harmless_wording_is_refused_before_anything_runs() -> None:
    keys = ["prompts.unsafe.builtin=general/unsafe"]
    with pytest.raises(UserError, match="prompt 'violence-01' has no harmless wording"):
        check(load_recipe("emoji-safety-dpo", keys))


@pytest.mark.parametrize(
    ("name", "key", "message"),
    [
        ("emoji-steer", "preferences.margin=1", "`preferences` is for objective.kind=dpo, d3po, kto, not grpo"),
        ("emoji-dpo", "preferences.threshold=1", "threshold labels pictures for kto"),
        ("emoji-kto", "group_size=1", "kind=kto compares .*; set group_size to 2 or more, or preferences.threshold"),
        ("emoji-dpo", "group_size=1", "kind=dpo compares the pictures of a prompt .*; set group_size to 2 or more$"),
        ("emoji-kto", "preferences.per_group=2", "objective.kind=kto has not"),
        ("emoji-dpo", "preferences.by=q16", "q16, which no scorer of the recipe gives; known: steering, or add it"),
        ("emoji-dpo", "preferences.per_group=3", "group_size=4 gives at most 2 pairs"),
        ("emoji-d3po", "credit.gae_lambda=0.5", "objective.kind=d3po does not read; set it to null"),
        ("emoji-d3po", "preferences.source=wording", "objective.kind=d3po learns from the steps that led to them"),
        ("emoji-steer", "preferences.source=wording", "`preferences` is for objective.kind=dpo, d3po, kto, not grpo"),
        ("emoji-dpo", "preferences.source=wording", "learned from without a score; set scorers={}"),
        ("emoji-dpo", "preferences.files=x", "goes with preferences.files=FOLDER or FILE.jsonl; set both or neither"),
        ("emoji-safety-dpo", "preferences.source=files", "goes with preferences.files=FOLDER or FILE.jsonl"),
        ("emoji-safety-dpo", "preferences.by=q16", "preferences.by compares pictures, but .* says which is preferred"),
        ("emoji-safety-dpo", "preferences.margin=1", "preferences.margin compares pictures, but"),
        ("emoji-safety-dpo", "group_size=3", "draws pairs, but group_size is 3; set it to a multiple of 2"),
        ("emoji-safety-dpo", "overlap=true", "set plan.noise_sharing=fresh, plan.window_moves=fixed and overlap=false"),
    ],
)
def test_what_would_not_be_used_is_refused(name: str, key: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(name, [key])


def test_one_picture_a_prompt_is_enough_for_labels_by_a_threshold() -> None:
    assert load_recipe("emoji-kto", ["group_size=1", "preferences.threshold=0.5"]).group_size == 1
