"""The engine's benchmark: its numbers against arithmetic by hand, and the whole of it on small models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.engine.arithmetic import Flops, Work, encoder_bytes, flops_of, matrix_rate, work_of
from benchmarks.engine.command import Bench, changed, command, smaller
from benchmarks.engine.page import times
from benchmarks.engine.ratios import ANCHORS, measure_ratios
from benchmarks.engine.stand_in import ENCODERS, StandIn, stand_in_encoder, stand_in_model
from benchmarks.engine.turns import Result, Turn
from safediffusion.config.build import build_experiment
from safediffusion.config.load import load_recipe, to_plain
from safediffusion.config.objectives import GrpoConfig
from safediffusion.core.errors import UserError
from tests import small

CPU = torch.device("cpu")
FLOPS = Flops(forward=10, backward=20, decode=3, score=1)
WORK = Work(images=2, sampled=8, learned=4, backwards=2)
TURN = Turn(work=WORK, rollout=2.0, decode=0.5, score=0.25, backward=1.0, step=4.0, peak=None)
TINY = ("weights.rank=2", "plan.steps=2", "plan.window=[0,1]", "objective.steps_per_image=1", "objective.micro=4")


def test_work_times_flops_over_seconds_over_the_rate_is_the_use() -> None:
    result = Result(recipe=load_recipe("emoji-steer"), turns=(TURN,), flops=FLOPS, rate=100.0)
    assert result.use("rollout").median == pytest.approx(8 * 10 / 2.0 / 100)
    assert result.use("training").median == pytest.approx((4 * 10 + 2 * 20) / 1.0 / 100)
    assert result.use("step").median == pytest.approx((80 + 80) / 4.0 / 100)
    assert WORK.total(FLOPS) == 80 + 80 + 2 * 3 + 2 * 1
    assert TURN.rest == pytest.approx(0.25) and TURN.hourly == pytest.approx(2 / 4.0 * 3600)
    assert result.peak is None


def test_recipes_are_compared_round_by_round() -> None:
    fast, slow = (TURN, replace(TURN, step=2.0)), (replace(TURN, step=8.0), replace(TURN, step=16.0))
    first, second = (
        Result(recipe=load_recipe("emoji-steer"), turns=turns, flops=FLOPS, rate=1.0) for turns in (fast, slow)
    )
    found = times(first, second, lambda turn: turn.hourly)
    assert (found.low, found.median, found.high, found.n) == (2.0, 5.0, 8.0, 2)


def test_flops_are_those_of_a_real_forward_and_backward(folders: small.Folders) -> None:
    recipe = load_recipe("sd15-steer", [*folders.small, "log=[]"])
    counted = flops_of(recipe)
    trainer = build_experiment(recipe).trainer
    backbone = trainer.policy.backbone
    with sdpa_kernel(SDPBackend.MATH):
        with torch.no_grad():
            cond = backbone.unconditional(3)
        with FlopCounterMode(display=False) as forward:
            raw = backbone.forward(backbone.network, torch.zeros(3, *backbone.latent_shape), torch.zeros(3), cond)
        with FlopCounterMode(display=False) as backward:
            raw.sum().backward()  # type: ignore[no-untyped-call]
    assert forward.get_total_flops() == 3 * counted.forward > 0
    assert backward.get_total_flops() == 3 * counted.backward > 0
    full = flops_of(load_recipe("r1-released", [*folders.keys]))
    assert full.backward > 1.5 * full.forward  # to the weights and through them
    assert counted.backward < full.backward


def test_the_work_of_a_step_is_counted_as_the_recipe_says(folders: small.Folders) -> None:
    """sd15-steer: 20 guided steps; 4 of them trained, each with a prompted pass and a guided one of the reference."""
    keys = [f"model={folders.model}", f"encoder={folders.encoder}"]
    found = work_of(load_recipe("sd15-steer", keys))
    assert found == Work(images=192, sampled=192 * 20 * 2, learned=192 * 4 * 3, backwards=192 * 4)
    found = work_of(load_recipe("r1-released", keys))
    assert found == Work(images=512, sampled=512 * 50 * 2, learned=512 * 49 * 4, backwards=512 * 49)


def test_a_published_encoder_has_its_published_number_of_parameters() -> None:
    """427.6 and 986.1 million, as their model cards and open_clip say."""
    assert encoder_bytes("openai/clip-vit-large-patch14") / 4e6 == pytest.approx(427.6, abs=0.1)
    assert encoder_bytes("laion/CLIP-ViT-H-14-laion2B-s32B-b79K") / 4e6 == pytest.approx(986.1, abs=0.1)


@pytest.mark.parametrize(("uncounted", "bytes_"), [((), 5), (("the encoder",), 5 + 4 * 427_616_513)])
def test_counted_memory_has_the_encoder_in_it(
    uncounted: tuple[str, ...], bytes_: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forecast = SimpleNamespace(memory=SimpleNamespace(peak=5, uncounted=uncounted))
    monkeypatch.setattr("benchmarks.engine.command.forecast", lambda recipe: forecast)
    monkeypatch.setattr("benchmarks.engine.command.flops_of", lambda recipe: FLOPS)
    found = Bench(tmp_path, "cpu", images=None, size=None).shipped("sd15-steer")
    assert found is not None and found.memory == bytes_ and found.work.images == 192


def test_the_matrix_rate_is_operations_over_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.engine.arithmetic._seconds", lambda work, device: 0.5)
    assert matrix_rate(CPU, torch.float32, sizes=(8, 4), seconds=0.0) == 2 * 8**3 / 0.5
    monkeypatch.undo()
    assert matrix_rate(CPU, torch.bfloat16, sizes=(32,), seconds=0.0) > 0


def test_a_smaller_recipe_is_drawn_and_trained_alike() -> None:
    released, ours = load_recipe("r1-released"), load_recipe("sd15-steer")
    assert smaller(released, images=32, reduced=False)[:3] == ["groups=2", "group_size=16", "objective.updates=1"]
    assert smaller(released, images=256, reduced=False)[2] == "objective.updates=8"
    short = load_recipe("sd15-steer", smaller(ours, images=8, reduced=True))
    assert isinstance(short.objective, GrpoConfig)
    assert (short.plan.steps, short.plan.window, short.objective.steps_per_image) == (10, (0, 4), 2)
    assert (short.groups, short.group_size, short.weights.rank, short.precision) == (1, 8, 4, "fp32")
    told = changed(to_plain(ours), to_plain(short))
    assert "plan.steps 20 to 10" in told and "plan.window 0-8 to 0-4" in told and "steering.alpha auto to 0.5" in told
    assert not [line for line in told if line.startswith(("log", "objective.micro", "rollout_batch"))]


@pytest.mark.parametrize("name", ["sd15-steer", "sdxl-steer"])
def test_a_reduced_stand_in_trains(name: str, tmp_path: Path) -> None:
    shipped = load_recipe(name)
    model = stand_in_model(shipped.model, tmp_path / "model", reduced=True, device="cpu")
    encoder = stand_in_encoder(shipped.encoder, tmp_path / "encoder", reduced=True, device="cpu")
    assert "unet.sample_size" in model.changes[0] and encoder.changes
    keys = [f"model={model.source}", f"encoder={encoder.source}", *smaller(shipped, images=2, reduced=True), *TINY]
    recipe = load_recipe(name, keys)
    metrics = build_experiment(recipe).trainer.step(0)
    expected = work_of(recipe)
    assert metrics["images"] == expected.images == 2
    assert metrics["unet_forwards"] == expected.sampled + expected.learned
    assert metrics["unet_backwards"] == expected.backwards


def test_what_is_local_stands_for_itself_and_what_is_unknown_is_refused(tmp_path: Path) -> None:
    assert stand_in_model("emoji", tmp_path / "m", reduced=True, device="cpu") == StandIn(source="emoji")
    with pytest.raises(UserError, match="those with a stand-in"):
        stand_in_model("black-forest-labs/FLUX.1-dev", tmp_path / "m", reduced=True, device="cpu")
    with pytest.raises(UserError, match=next(iter(ENCODERS))):
        stand_in_encoder("some/clip", tmp_path / "e", reduced=True, device="cpu")


def test_ratios_are_exactly_one_where_they_must_be(folders: small.Folders) -> None:
    rows = measure_ratios("sd15-steer", [*folders.small, "objective.micro=3"], device="cpu")
    assert [(row.precision, row.anchor) for row in rows] == [(p, a) for p in ("bf16", "fp32") for a in ANCHORS]
    for row in rows:
        assert row.items == 12 and row.largest < 1e-3
        if row.anchor != "rollout":
            assert (row.largest, row.off, row.clipped) == (0.0, 0.0, 0.0)


def test_the_whole_study_lands_on_a_page(
    folders: small.Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.engine.arithmetic.SIZES", {"cpu": (64,)})
    page, out = tmp_path / "engine.md", tmp_path / "runs"
    names = ["--recipe", "emoji-steer", "--recipe", "emoji-r1-released"]
    keys = [*folders.small, "objective.updates=1", "weights.init=random"]
    done = CliRunner().invoke(
        command,
        [*keys, *names, "--steps", "2", "--out", str(out), "--page", str(page), "--device", "cpu"],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    found = json.loads((out / "engine.json").read_text())
    assert [result["recipe"]["name"] for result in found["results"]] == ["emoji-steer", "emoji-r1-released"]
    for result in found["results"]:
        for turn in result["turns"]:
            parts = turn["rollout"] + turn["decode"] + turn["score"] + turn["backward"]
            assert 0 < parts <= turn["step"] and turn["work"]["images"] == 4 and turn["peak"] is None
    hourly = [[4 / turn["step"] for turn in result["turns"]] for result in found["results"]]
    ratios = [a / b for a, b in zip(*hourly, strict=True)]
    text = page.read_text()
    assert f"{sum(ratios) / 2:.2f} ({min(ratios):.2f} to {max(ratios):.2f}; n = 2)" in text
    assert "exactly 1: yes" in text and "reduced" not in text.partition("## Speed")[0]
    assert "not measurable on random weights" in text and "open: no GPU" in text
