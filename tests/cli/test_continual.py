"""docs/continual.md: a LoRA on top of another, either taken away again, and both as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from safediffusion.cli.main import run
from safediffusion.config.build import build_experiment
from safediffusion.config.load import load_recipe
from safediffusion.models.load import load_policy
from safediffusion.models.policy import Weights
from tests import small, tiny


def weights(model: str) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in load_policy(model).backbone.network.named_parameters()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def test_a_category_is_added_taken_away_and_merged(
    folders: small.Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base, line = str(folders.model), ["train", "emoji-steer", *folders.small, "optimizer.lr=0.05", "ema=null"]
    before = weights(base)
    assert run([*line, "prompts.unsafe.categories=[violence]", "--out", "a"]) == 0
    with_a = weights(f"{base}+a")
    stacked = [f"model={base}+a", "prompts.unsafe.categories=[sexual]"]
    assert run([*line, *stacked, "--out", "b"]) == 0
    assert json.loads(Path("b/run.json").read_text())["config"]["prompts"]["unsafe"]["categories"] == ["sexual"]

    assert same(weights(base), before) and same(weights(f"{base}+a"), with_a)  # neither run wrote to what it stood on
    alone, both = weights(f"{base}+b"), weights(f"{base}+a+b")
    assert not same(with_a, before) and not same(both, with_a) and not same(alone, both)
    for name, start in before.items():
        expected = with_a[name] + (alone[name] - start)
        torch.testing.assert_close(both[name], expected, atol=1e-6, rtol=1e-5)

    assert run(["merge", "a", "b", "--out", "ab.safetensors"]) == 0
    merged = weights(f"{base}+ab.safetensors")
    for name in both:
        torch.testing.assert_close(merged[name], both[name], atol=1e-6, rtol=1e-5)


def test_what_a_run_stands_on_is_not_replaced_without_a_word(
    folders: small.Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    base, line = str(folders.model), ["train", "emoji-steer", *folders.small, "optimizer.lr=0.05", "ema=null"]
    assert run([*line, "--out", "a"]) == 0
    assert run([*line, f"model={base}+a", "--out", "b"]) == 0
    both = weights(f"{base}+a+b")
    assert run(["train", "a", "--resume", "steps=4"]) == 0
    said = "b was trained on top of a as it was then; its weights are others now"
    for words in (["sample", "b", "a cat", "--out", "x"], ["merge", "a", "b", "--out", "x.safetensors"]):
        assert run(words) == 2
        assert said in capsys.readouterr().err
    assert run(["export", "b", "--to", "pipeline"]) == 2
    told = capsys.readouterr().err
    assert said in told and "Name those it was trained on: a/checkpoints/step-000002 in place of a" in told
    assert same(weights(f"{base}+a/checkpoints/step-000002+b"), both)
    weights(f"{base}+b")  # without a it is what it was, and may be


def test_a_run_is_held_to_the_model_that_it_stands_on(
    folders: small.Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["train", "emoji-steer", *folders.small, "optimizer.lr=0.05", "ema=null", "--out", "a"]) == 0
    model = f"{folders.model}+a"
    recipe = load_recipe("emoji-steer", [*folders.small, "objective.kl=0.1", f"model={model}"])
    policy = build_experiment(recipe).trainer.policy
    plain, x = load_policy(model), torch.ones(1, *policy.latent_shape)
    t = policy.schedule.grid(3)[1].expand(1)
    with torch.no_grad(), policy.using(Weights.REFERENCE):
        held = policy.predict(x, t, policy.encode(tiny.PROMPTS[:1])).noise
    with torch.no_grad():
        found = plain.predict(x, t, plain.encode(tiny.PROMPTS[:1])).noise
        untrained = load_policy(str(folders.model))
        other = untrained.predict(x, t, untrained.encode(tiny.PROMPTS[:1])).noise
    torch.testing.assert_close(held, found)
    assert (held - other).abs().max() > 1e-4
