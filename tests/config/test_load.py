"""Recipes as text: what is read, what is refused, and in which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safediffusion.config.credits import WeightedConfig
from safediffusion.config.load import digest, load_recipe, override, parse_recipe, recipe_names, to_plain
from safediffusion.config.objectives import GrpoConfig
from safediffusion.config.schema import Recipe, SourceConfig
from safediffusion.core.errors import UserError

MINE = """
model: path/to/model
steps: 3
prompts:
  mine: {file: prompts.txt, label: unsafe}
"""


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_that_ships_survives_a_run_json(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about
    assert parse_recipe(json.loads(json.dumps(to_plain(recipe)))) == recipe


def test_a_file_of_four_keys_is_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    recipe = load_recipe(str(tmp_path / "mine.yaml"), ["optimizer.lr=3e-5", "plan.window=[2,9]", "ema=0.5"])
    expected = Recipe(
        name="mine",
        model="path/to/model",
        steps=3,
        prompts={"mine": SourceConfig(file="prompts.txt", label="unsafe")},
        ema=0.5,
    )
    assert (recipe.optimizer.lr, recipe.plan.window) == (3e-5, (2, 9))
    assert (recipe.name, recipe.prompts, recipe.ema) == (expected.name, expected.prompts, expected.ema)
    assert recipe.steering == expected.steering


def test_overrides_leave_the_tree_they_came_from_alone() -> None:
    tree: dict[str, object] = {"plan": {"steps": 4}}
    assert override(tree, ["plan.steps=5", "a.b=[1, x]", "c=null", "d="]) == {
        "plan": {"steps": 5},
        "a": {"b": [1, "x"]},
        "c": None,
        "d": None,
    }
    assert tree == {"plan": {"steps": 4}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimzer.lr=1", "unknown key 'optimzer'; did you mean 'optimizer'?"),
        ("plan.stps=2", "unknown key 'plan.stps'; did you mean 'steps'?"),
        ("prompts.unsafe.fiel=x", "unknown key 'prompts.unsafe.fiel'; did you mean 'file'?"),
        ("steering.gate=labeled", "steering.gate is 'labeled'; allowed is all or labelled or classifier; did you mean"),
        ("groups=0", "groups is 0; allowed is 1 or more (prompts a step"),
        ("ema=1.5", "ema is 1.5; allowed is 0 to 1"),
        ("steps=many", "steps is 'many'; allowed is whole number"),
        ("steps=2.5", "steps is 2.5; allowed is whole number"),
        ("optimizer.lr=nan", "optimizer.lr is 'nan'; allowed is number"),
        ("optimizer.lr=.nan", "optimizer.lr is nan; allowed is number"),
        ("groups=true", "groups is True; allowed is whole number"),
        ("steering.alpha=strong", "steering.alpha is 'strong'; allowed is number or auto"),
        ("weights.targets=attention", "weights.targets is 'attention'; allowed is a list of texts"),
        ("plan.window=[3]", "plan.window is [3]; allowed is [whole number, whole number] or null"),
        ("plan.window=[6,99]", "plan.window is [6, 99]; it is [first, last) within the"),
        ("plan.eta=0", "plan.eta is 0, so no step has a probability to train"),
        ("plan=3", "plan is 3; it has the keys steps, guidance"),
        ("groups.size=3", "'groups.size=3': 'groups' is"),
        ("scorers={steering: 0}", "`scorers` weighs nothing"),
        ("prompts={}", "`prompts` is empty"),
        ("prompts.more.share=1", "prompts.more: a prompt source has either `builtin` or `file`"),
        ("objective.updates=2", "objective: anchor=first_pass allows one update a step, updates is 2"),
        ("objective.clp=1", "unknown key 'objective.clp' of objective.kind=grpo; did you mean 'clip'?"),
        ("objective.kind=grop", "objective.kind: unknown objective 'grop'; did you mean 'grpo'?"),
        ("objective.kind=null", "objective.kind is None; allowed is text"),
        ("objective=3", "objective is 3; it has the keys kind, updates, micro, kl"),
        ("objective.kind=[1]", "objective.kind: unknown objective '[1]'; known: "),
        ("credit.epz=1", "unknown key 'credit.epz' of credit.kind=weighted; did you mean 'eps'?"),
        ("steps", "'steps' is not of the form key=value"),
        ("steps=[1", "'steps=[1': the value is not YAML"),
    ],
)
def test_a_wrong_key_or_value_is_named(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe("emoji-steer", [text])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: [", "is not YAML"),
        ("- a\n- b\n", "is no mapping"),
        ("", "is no mapping"),
        ("model: a\nsteps: 1\n", "the recipe has no 'prompts'"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(UserError) as caught:
        load_recipe(str(tmp_path / "bad.yaml"))
    assert message in str(caught.value)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown recipe 'emoji-ster'; did you mean 'emoji-steer'"):
        load_recipe("emoji-ster")
    with pytest.raises(UserError, match="recipe file 'none.yaml' does not exist"):
        load_recipe("none.yaml")


def test_the_released_recipe_has_the_released_numbers() -> None:
    """PAPERS: arXiv 2605.18719, config/base.py and run_train.sh of the released code."""
    r = load_recipe("r1-released")
    assert isinstance(r.objective, GrpoConfig) and isinstance(r.credit, WeightedConfig)
    assert (r.weights.kind, r.precision, r.seed, r.steps, r.checkpoint_every) == ("full", "bf16", 42, 300, 20)
    assert (r.plan.steps, r.plan.eta, r.plan.guidance, r.plan.window) == (50, 1.0, 5.0, (0, 49))
    assert (r.plan.noise_sharing, r.plan.keep_unconditional_grad) == ("all", False)
    assert (r.groups * r.group_size, r.group_size, r.objective.updates, r.objective.micro) == (512, 16, 16, 4)
    assert (r.objective.clip, r.objective.kl, r.credit.clip, r.credit.eps, r.ema) == (1e-4, 0.0, 2.5, 1e-8, None)
    assert (r.optimizer.lr, r.optimizer.betas, r.optimizer.weight_decay) == (1e-5, (0.9, 0.999), 1e-4)
    assert (r.optimizer.eps, r.optimizer.max_norm, r.optimizer.warmup) == (1e-8, 1.0, 0)
    assert (r.steering.alpha, r.steering.gate, r.steering.anchors) == (0.5, "all", "compact")
    assert (r.steering.mode, r.steering.per_category) == ("translation", False)


def test_a_digest_is_of_the_settings_of_a_file_and_those_below_it(tmp_path: Path) -> None:
    below, mine = tmp_path / "below.yaml", str(tmp_path / "mine.yaml")
    below.write_text("extends: sd15-steer\nsteps: 3\n")
    Path(mine).write_text("extends: below.yaml\nabout: mine\n")
    first = digest(mine)
    Path(mine).write_text("# another word\nabout: ours\nextends: below.yaml\n")
    assert digest(mine) == first == digest(mine, ["steps=4", "guard.stop=false"])
    assert len({first, digest(mine, ["seed=4"]), digest(mine, ["group_size=2"])}) == 3
    below.write_text("extends: sd15-steer\noptimizer: {lr: 0.5}\n")
    assert digest(mine) != first


def test_a_recipe_that_extends_another_names_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: sd15-steer\nabout: mine\noptimizer: {lr: 0.5}\nsteps: 3\n")
    (tmp_path / "yours.yml").write_text("extends: mine.yaml\nsteps: 4\n")
    base, yours = load_recipe("sd15-steer"), load_recipe(str(tmp_path / "yours.yml"), ["groups=2"])
    assert (yours.name, yours.about, yours.steps, yours.groups, yours.optimizer.lr) == ("yours", "mine", 4, 2, 0.5)
    assert yours.optimizer.betas == base.optimizer.betas and yours.prompts == base.prompts
    assert "extends" not in to_plain(yours)
    (tmp_path / "own.yaml").write_text(
        "extends: sd15-steer\nprompts: {mine: {file: p.csv, label: unsafe}}\nscorers: {hps: 1}\n"
    )
    own = load_recipe(str(tmp_path / "own.yaml"))
    assert list(own.prompts) == ["mine"] and own.scorers == {"hps": 1.0} and own.steering == base.steering


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: loop.yaml\n", r"extends itself \(.*loop.yaml -> .*loop.yaml\); take one `extends` out"),
        ("extends: sd15-ster\n", "unknown recipe 'sd15-ster'; did you mean 'sd15-steer'"),
        ("extends: [a]\n", r"extends is \['a'\]; it is the name of a recipe"),
    ],
)
def test_what_cannot_be_extended(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_recipe(str(tmp_path / "loop.yaml"))
