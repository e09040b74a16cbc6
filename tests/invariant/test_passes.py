"""No pass is made twice: every text is encoded once, pictures are decoded and scored in batches, all forwards count."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from safediffusion.collect.base import Scored
from safediffusion.config import build, scorers
from safediffusion.config.check import check
from safediffusion.config.load import load_recipe
from safediffusion.core.fleet import Fleet
from safediffusion.core.prompt import Prompt
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.dynamics import Ddim
from safediffusion.evaluate.benchmark import Suite
from safediffusion.evaluate.run import evaluate
from safediffusion.objectives.grpo import StepItems
from safediffusion.scorers.clip import ClipEncoder
from safediffusion.train.run import Experiment, train
from tests import evaluation, small, tiny

RECIPES = {"sd15-steer": "", "sdxl-steer": "sdxl", "flux-steer": "flux"}  # guided, guided, not
BATCH, IMAGES, STEPS = 4, 6, 2


def listen(module: nn.Module) -> list[Tensor]:
    """Grows by its first input at every call."""
    calls: list[Tensor] = []

    def note(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls.append(next(iter((*given, *named.values()))).detach().clone())

    module.register_forward_pre_hook(note, with_kwargs=True)
    return calls


@dataclass
class Passes:
    """The first input of every call, by who was called."""

    anchors_and_prompts: list[Tensor] = field(default_factory=list)  # the scorer's text tower
    pictures: list[Tensor] = field(default_factory=list)  # its vision tower
    texts: list[list[Tensor]] = field(default_factory=list)  # of each text encoder of the model
    network: list[Tensor] = field(default_factory=list)
    decoded: list[Tensor] = field(default_factory=list)

    def scorer(self, source: str | Path, *, device: Any) -> ClipEncoder:
        """Stands in for ClipEncoder, so that what happens while the experiment is built is counted too."""
        made = ClipEncoder(source, device=device)
        self.anchors_and_prompts, self.pictures = listen(made.model.text_model), listen(made.model.vision_model)
        return made

    def model(self, experiment: Experiment[Scored, StepItems]) -> None:
        backbone: Any = experiment.trainer.policy.backbone
        pipe = backbone.pipe
        self.texts = [listen(part) for name, part in pipe.components.items() if name.startswith("text_encoder")]
        self.network, self.decoded = listen(backbone.network), listen(pipe.vae.decoder)


def sizes(calls: list[Tensor]) -> list[int]:
    return [len(each) for each in calls]


def drawn_by(experiment: Experiment[Scored, StepItems], count: int) -> list[Prompt]:
    source: Any = experiment.trainer.collector
    return [prompt for step in range(STEPS) for prompt in source.prompts.draw(step, count)]


@pytest.mark.parametrize("name", RECIPES)
def test_nothing_is_passed_twice_and_no_picture_alone(
    name: str, folders: small.Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = folders.of(RECIPES[name]) if RECIPES[name] else folders
    keys = [*used.small, "plan.size=[16,16]", "group_size=3", "memory.text_encoders=keep"]
    recipe, passes = load_recipe(name, keys), Passes()
    monkeypatch.setattr(scorers, "ClipEncoder", passes.scorer)
    experiment = build.build_experiment(recipe)
    passes.model(experiment)
    result = train(experiment, tmp_path / "run")

    drawn = drawn_by(experiment, recipe.groups)
    texts = {prompt.text for prompt in drawn} | ({""} if recipe.plan.guidance != 1 else set())
    assert [len(calls) for calls in passes.texts] == [len(texts)] * len(passes.texts)
    assert all(sizes(calls) == [1] * len(calls) for calls in passes.texts)
    steering: Any = experiment.trainer.collector.scorers[0]  # type: ignore[attr-defined]
    every = [steering.anchors, *steering.anchors.per_category.values()]
    anchors = {text for each in every for text in (*each.safe, *each.unsafe)}
    assert len(passes.anchors_and_prompts) == len(anchors | {prompt.text for prompt in drawn})

    batches = [BATCH, IMAGES - BATCH] * STEPS
    assert len(batches) == STEPS * math.ceil(IMAGES / recipe.rollout_batch) and result.images == sum(batches)
    assert sizes(passes.decoded) == sizes(passes.pictures) == batches
    assert sum(sizes(passes.network)) == result.unet_forwards > 0  # of a guided forward both branches

    before = [len(calls) for calls in passes.texts]
    plan = Plan(steps=2, guidance=recipe.plan.guidance, dynamics=Ddim(0.0))
    prompts = tuple(replace(p, tags={"kind": "even"}) for p in {p.text: p for p in drawn}.values())
    known = replace(evaluation.colours(repeats=2), prompts=prompts)
    suite, options = Suite(name="known", benchmarks=(known,)), evaluation.options(plan=plan)
    evaluate(experiment.trainer.policy, suite, tmp_path / "eval", fleet=Fleet(), options=options)
    assert [len(calls) for calls in passes.texts] == before


@pytest.mark.parametrize("name", ["sd15-steer", "flux-steer"])
def test_freed_encoders_leave_the_same_run(
    name: str, folders: small.Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained without text encoders, also where it is stopped and built again, it ends in the same weights."""
    used = folders.of(RECIPES[name]) if RECIPES[name] else folders
    lines = [f"{p.text},{p.tags['label']}" for p in tiny.PROMPTS]
    (tmp_path / "mine.csv").write_text("\n".join(["prompt,label", *lines]))
    keys = [*used.small, "plan.size=[16,16]", "prompts={}", f"prompts.mine.file={tmp_path / 'mine.csv'}"]
    keys += [f"memory.embeddings={tmp_path / 'embeddings'}"]
    kept, freed, resumed = (
        load_recipe(name, [*keys, f"memory.text_encoders={how}"]) for how in ("keep", "free", "free")
    )
    usual = build.build_experiment(kept)
    train(usual, tmp_path / "kept")
    train(replace(build.build_experiment(freed), steps=1), tmp_path / "freed")
    encoded = _forbidden(monkeypatch)
    again = build.build_experiment(resumed)
    pipe = again.trainer.policy.backbone.pipe  # type: ignore[attr-defined]
    assert all(part is None for key, part in pipe.components.items() if key.startswith("text_encoder"))
    train(again, tmp_path / "freed", resume=True)
    assert not encoded and torch.equal(tiny.flat(usual.trainer.policy), tiny.flat(again.trainer.policy))
    assert len(list((tmp_path / "embeddings").iterdir())) == len(tiny.PROMPTS) + 1  # and the empty one


def _forbidden(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows when any family encodes a text from now on."""
    from safediffusion.models.flux import FluxBackbone
    from safediffusion.models.sd1 import Sd1Backbone

    called: list[str] = []
    for kind in (Sd1Backbone, FluxBackbone):
        whole: Callable[..., Any] = kind._encode

        def noted(self: Any, ids: Any, whole: Callable[..., Any] = whole) -> Any:
            called.append(type(self).__name__)
            return whole(self, ids)

        monkeypatch.setattr(kind, "_encode", noted)
    return called


def test_what_an_evaluation_asks_for_is_encoded_too() -> None:
    plain = load_recipe("emoji-steer")
    measured = load_recipe("emoji-steer", ["evaluation.every=5", "evaluation.suite=emoji-i2p", "evaluation.limit=3"])
    texts, more = (build.texts_of(recipe, check(recipe)) for recipe in (plain, measured))
    assert len(texts) == 2800 and set(more) > set(texts) and len(set(more) - set(texts)) == 3
