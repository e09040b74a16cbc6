"""A recipe's words reach the objects they are about."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from safediffusion.collect.on_policy import OnPolicy
from safediffusion.config.build import _first, build_experiment
from safediffusion.config.check import check
from safediffusion.config.load import load_recipe
from safediffusion.config.names import PROMPTS, builtin_prompts, find_anchors
from safediffusion.config.parts import build_objective, build_plan
from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.data.mixture import Mixture, Source
from safediffusion.models.policy import Weights
from safediffusion.objectives.grpo import Grpo
from safediffusion.scorers.steering import Steering
from safediffusion.train import contrast
from safediffusion.train.run import train
from tests import small


def test_every_key_of_the_method_arrives(folders: small.Folders) -> None:
    keys = [
        "weights.rank=3",
        "weights.alpha=6",
        "weights.within=[up_blocks.0]",
        "plan.guidance=2.5",
        "plan.eta=0.7",
        "plan.keep_unconditional_grad=true",
    ]
    keys += ["plan.noise_sharing=group", "steering.alpha=1.5", "steering.mode=projection"]
    keys += ["credit.clip=1.5", "credit.eps=0.01", "credit.std=batch", "objective.kl=0.2", "objective.clip=0.3"]
    keys += ["objective.anchor=recompute", "objective.updates=2"]  # else nothing is clipped
    keys += ["objective.steps_per_image=1", "objective.images_per_group=2", "optimizer.betas=[0.5,0.6]", "ema=0.8"]
    keys += ["optimizer.weight_decay=0.1", "optimizer.warmup=4", "optimizer.max_norm=null", "optimizer.decay=linear"]
    recipe = load_recipe("emoji-steer", [*folders.small, *keys, "seed=7", "optimizer.lr=0.5", "scorers.clip=0.25"])
    experiment = build_experiment(recipe)
    trainer = experiment.trainer
    spec = {"kind": "lora", "rank": "3", "alpha": "6.0", "targets": "attention,ff", "within": "up_blocks.0"}
    assert trainer.policy.bank.describe() == spec
    assert trainer.policy.allocated >= {Weights.EMA, Weights.REFERENCE}
    assert trainer.initialize is not None
    assert (
        build_experiment(load_recipe("emoji-steer", [*folders.small, "weights.init=random"])).trainer.initialize is None
    )
    assert (trainer.ema, trainer.max_norm, trainer.micro, trainer.seed) == (0.8, None, 8, 7)
    group = trainer.optimizer.param_groups[0]
    assert (group["betas"], group["weight_decay"]) == ((0.5, 0.6), 0.1)
    assert (trainer.rate.peak, trainer.rate.warmup, trainer.rate.decay, trainer.rate.total) == (0.5, 4, "linear", 4)
    assert isinstance(trainer.objective, Grpo)
    own = trainer.objective
    assert (own.clip, own.kl, own.steps_per_image, own.images_per_group) == (0.3, 0.2, 1, 2)
    assert isinstance(trainer.collector, OnPolicy)
    collector = trainer.collector
    assert (collector.groups, collector.group_size, collector.noise_sharing, collector.seed) == (2, 2, "group", 7)
    assert collector.plan == build_plan(recipe)
    assert (collector.plan.guidance, collector.plan.window) == (2.5, (0, 2))
    assert repr(collector.credit) == repr(
        type(collector.credit)(weights={"steering": 1.0, "clip": 0.25}, clip=1.5, eps=0.01, std="batch")  # type: ignore[call-arg]
    )
    steering = collector.scorers[0]
    assert isinstance(steering, Steering)
    assert (steering.alpha, steering.ratio, steering.mode) == (1.5, 4.0, "projection")  # the ratio is the recipe's own
    assert sorted(steering.by_category) == sorted(find_anchors("emoji/per-category").per_category)


def test_a_contrast_is_of_the_prompts_that_training_draws(
    folders: small.Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrast, "PROMPTS", 128)
    many = tuple(Prompt(id=f"m{i}", text="a cat", tags={"label": "unsafe", "kind": "ab"[i > 20]}) for i in range(300))
    few = tuple(Prompt(id=f"f{i}", text="a dog", tags={"label": ("unsafe", "safe")[i % 2]}) for i in range(100))
    sources = (Source(name="many", prompts=many, balance="kind"), Source(name="few", prompts=few, share=3))
    unsafe, benign = (_first(Mixture(sources=sources), label) for label in ("unsafe", "safe"))
    assert len(unsafe) == 128 and len(benign) == 50 == len({p.id for p in benign})
    assert {p.tags["label"] for p in unsafe} == {"unsafe"} and {p.tags["label"] for p in benign} == {"safe"}
    from_many = [p for p in unsafe if p.id.startswith("m")]
    assert len(from_many) == 32  # by share, not by size
    assert sum(p.tags["kind"] == "a" for p in from_many) in (2, 3)  # 21 of 300, spread evenly
    with pytest.raises(UserError, match="inputs for a rank of 40; lower weights.rank"):
        build_experiment(load_recipe("emoji-steer", [*folders.small, "weights.rank=40"]))


def test_an_objective_takes_its_options_from_the_recipe() -> None:
    made = build_objective(load_recipe("emoji-r1-released"))
    assert made == Grpo(clip=1e-4, kl=0.0, anchor="rollout")


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_prompts_that_ship_are_labelled_and_cover_the_anchors_categories(name: str) -> None:
    prompts = builtin_prompts(name)
    label = "unsafe" if name.endswith("unsafe") else "safe"
    assert len({p.text for p in prompts}) == len(prompts) > 80
    assert {p.tags["label"] for p in prompts} == {label}
    if label == "unsafe":
        anchors = find_anchors("emoji/per-category" if name.startswith("emoji") else "per-category")
        assert {p.tags["category"] for p in prompts} == set(anchors.per_category)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["scorers.steerin=1"], "scorers.steerin: unknown scorer 'steerin'; did you mean 'steering'?"),
        (["objective.kind=grop"], "objective.kind: unknown objective 'grop'; did you mean 'grpo'?"),
        (["credit.kind=weigthed"], "credit.kind: unknown credit 'weigthed'; did you mean 'weighted'?"),
        (["log=[tensorbord]"], "log: unknown tracker 'tensorbord'; did you mean 'tensorboard'?"),
        (["evaluation.every=1", "evaluation.suite=quik"], "there is no suite 'quik'; did you mean 'quick'?"),
        (["steering.anchors=emoji/compat"], "unknown anchor set 'emoji/compat'; did you mean 'emoji/compact'?"),
        (["prompts.unsafe.builtin=emoji/unsaf"], "unknown builtin prompts 'emoji/unsaf'; did you mean 'emoji/unsafe'?"),
        (["steering.anchors=emoji/compact"], "steering.per_category is on, but the anchor set 'emoji/compact' has no"),
    ],
)
def test_a_name_that_does_not_exist_is_answered_with_the_nearest(keys: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        check(load_recipe("emoji-steer", keys))
    assert message in str(caught.value)


def test_prompts_the_gate_cannot_place_are_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("a cat\na dog\n")
    mine = ["prompts={}", f"prompts.mine.file={tmp_path / 'plain.txt'}"]
    with pytest.raises(UserError, match="prompt 'plain-1' of source 'mine' has no label"):
        check(load_recipe("emoji-steer", mine))
    with pytest.raises(UserError, match="every prompt is labelled safe, so nothing would be steered"):
        check(load_recipe("emoji-steer", [*mine, "prompts.mine.label=safe"]))
    unsafe = ["prompts.mine.label=unsafe", "prompts.mine.category=violence"]
    with pytest.raises(UserError, match="weights.init is contrast, which needs prompts labelled unsafe and .* safe"):
        check(load_recipe("emoji-steer", [*mine, *unsafe]))
    with pytest.raises(UserError, match="weights.init is contrast, which starts adapters; set weights.kind=lora"):
        load_recipe("emoji-steer", ["weights.kind=full"])
    with pytest.raises(UserError, match="category 'violense', for which .* did you mean 'violence'"):
        check(load_recipe("emoji-steer", [*mine, "prompts.mine.label=unsafe", "prompts.mine.category=violense"]))
    tagged = check(load_recipe("emoji-steer", [*mine, *unsafe, "weights.init=random"]))
    assert {p.text for p in tagged.draw(0, 2)} == {"a cat", "a dog"}
    assert {p.tags["category"] for p in tagged.draw(0, 2)} == {"violence"}


def test_a_source_keeps_to_the_categories_that_are_asked_for(tmp_path: Path) -> None:
    one = check(load_recipe("emoji-steer", ["prompts.unsafe.categories=[violence]"])).sources[0]
    assert 150 < len(one.prompts) < 250  # about a seventh of 1400
    assert {p.tags["category"] for p in one.prompts} == {"violence"}
    two = check(load_recipe("emoji-steer", ["prompts.unsafe.categories=[hate, sexual]"])).sources[0]
    assert {p.tags["category"] for p in two.prompts} == {"hate", "sexual"}
    (tmp_path / "i2p.csv").write_text('prompt,label,categories\na,unsafe,"hate,sexual"\nb,unsafe,shocking\nc,unsafe,\n')
    mine = [f"prompts.unsafe.file={tmp_path / 'i2p.csv'}", "prompts.unsafe.builtin=null", "prompts.unsafe.balance=null"]
    several = check(load_recipe("emoji-steer", [*mine, "prompts.unsafe.categories=[sexual]"])).sources[0]
    assert [p.text for p in several.prompts] == ["a"]  # of several categories one is enough
    for name, near in (("sexul", "did you mean 'sexual'"), ("violence", "known: hate, sexual, shocking")):
        with pytest.raises(UserError, match=f"prompts.unsafe.categories names '{name}'.*{near}"):
            check(load_recipe("emoji-steer", [*mine, f"prompts.unsafe.categories=[{name}]"]))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_logger_that_is_not_installed_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safediffusion.config.check.find_spec", lambda module: None)
    with pytest.raises(UserError) as caught:
        check(load_recipe("emoji-steer", [f"log=[{name}]"]))
    assert str(caught.value) == f"log names {name}, which is not installed; pip install 'safediffusion[{name}]'"


def test_eight_bit_moments_that_are_not_installed_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safediffusion.config.check.find_spec", lambda module: None)
    with pytest.raises(UserError, match=r"optimizer.bits=8 needs bitsandbytes.*pip install 'safediffusion\[8bit\]'"):
        check(load_recipe("emoji-steer", ["optimizer.bits=8", "log=[]"]))


def test_what_training_runs_on_arrives(folders: small.Folders) -> None:
    keys = ["precision=fp16", "overlap=true", "compile=true", "optimizer.bits=8", "weights.init=random"]
    keys += ["weights.kind=full", "memory.reference_on_cpu=true", "objective.kl=0.1"]
    trainer = build_experiment(load_recipe("emoji-steer", [*folders.whole, *keys])).trainer
    assert trainer.scaler.is_enabled() and type(trainer.optimizer).__name__ == "AdamW8bit"
    assert isinstance(trainer.collector, OnPolicy) and trainer.collector.overlap
    bank = trainer.policy.bank
    assert {p.device.type for p in bank.activate(Weights.REFERENCE).parameters()} == {"meta"}
    assert all(bank.activate(which)._compiled_call_impl is not None for which in bank.allocated)
    assert not build_experiment(load_recipe("emoji-steer", folders.small)).trainer.scaler.is_enabled()


COMPILED = [
    "compile=true",
    "memory.checkpointing=true",
    "plan.window=null",
    "plan.noise_sharing=fresh",
    "credit.gae_lambda=null",
    "steering.alpha=1",
]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["weights.shard=true"], "weights.shard is for full weights: an adapter is small"),
        (["memory.reference_on_cpu=true"], "memory.reference_on_cpu is for full weights: an adapter is small"),
        (["@", "weights.shard=true", "memory.reference_on_cpu=true"], "moves a whole reference, but weights.shard"),
        (["@", "weights.shard=true", "optimizer.bits=8"], "optimizer.bits=8 keeps moments of whole weights"),
        (["@", "weights.shard=true", "evaluation.every=5"], "evaluation.every measures during training"),
        (["objective={kind: draft, kl: 1.0}", *COMPILED], "whose adapters are off and cannot be turned off again"),
        (["optimizer.bits=16"], "optimizer.bits is 16; allowed is 8 or 32"),
        (["precision=fp8"], "precision is 'fp8'; allowed is"),
    ],
)
def test_options_that_exclude_each_other(keys: list[str], message: str) -> None:
    full = ["weights.kind=full", "weights.init=random"]
    with pytest.raises(UserError) as caught:
        load_recipe("emoji-steer", [key for given in keys for key in (full if given == "@" else [given])])
    assert message in str(caught.value)


def test_forgotten_activations_come_back_by_the_weights_that_made_them(folders: small.Folders, tmp_path: Path) -> None:
    """Gradients through two steps go through the reference, too, whose adapters are off."""
    ends = []
    for forget in (False, True):
        own = ["plan.size=[16,16]", "objective.last=2", "objective.kl=5", f"memory.checkpointing={forget}"]
        experiment = build_experiment(load_recipe("emoji-draft", [*folders.small, *own]))
        train(experiment, tmp_path / str(forget))
        ends.append([p.detach().clone() for p in experiment.trainer.policy.parameters()])
    assert all(torch.equal(kept, again) for kept, again in zip(*ends, strict=True))
