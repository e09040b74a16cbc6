"""Prompts that bring a seed, a guidance and a size: each gets the picture that diffusers draws with them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusion3Pipeline

from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.prompt import Prompt
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.dynamics import Ddim
from safediffusion.evaluate.benchmark import Benchmark, Suite
from safediffusion.evaluate.generate import Options, draw, tiles
from safediffusion.evaluate.rows import dump, load
from safediffusion.evaluate.run import evaluate
from safediffusion.models.banks import FrozenBank
from safediffusion.models.policy import Policy, Weights
from safediffusion.models.sd1 import Sd1Backbone
from safediffusion.models.sd3 import Sd3Backbone
from tests import evaluation, families, tiny

PLAN = Plan(steps=3, guidance=4.0, dynamics=Ddim(0.0))
ASKED = (  # text, seed, guidance, height, width
    ("a cat", 7, 7.5, 16, 16),
    ("a red heart", 4261553411, 1.0, 16, 16),
    ("two dogs", 7, 2.0, 16, 24),
    ("a knife", 11, 13.0, 16, 16),
    ("an apple", 0, 5.0, 24, 16),
)


def benchmark(*own: Literal["seed", "guidance", "size"], repeats: int = 1) -> Benchmark:
    names = ("seed", "guidance", "height", "width")
    prompts = tuple(
        Prompt(id=f"mixed/{n}", text=text, tags={"kind": "even", **dict(zip(names, map(str, said), strict=True))})
        for n, (text, *said) in enumerate(ASKED)
    )
    made = evaluation.suite().benchmarks[0]
    return replace(made, name="mixed", prompts=prompts, repeats=repeats, own=frozenset(own))


def sd1() -> tuple[Sd1Backbone, dict[str, float]]:
    pipe = tiny.pipeline()
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    return Sd1Backbone(pipe), {"eta": 0.0}


def sd3() -> tuple[Sd3Backbone, dict[str, float]]:
    return Sd3Backbone(families.sd3()), {}


@pytest.mark.parametrize("family", [sd1, sd3])
@pytest.mark.parametrize("repeats", [1, 2])
def test_pictures_are_those_of_diffusers_whatever_else_is_in_the_batch(family: type, repeats: int) -> None:
    backbone, options = family()
    policy = Policy(backbone, FrozenBank(backbone.network))
    asked = benchmark("seed", "guidance", "size", repeats=repeats)
    work = tiles([asked], asked.items(), 16)
    assert [len(tile.rows) for tile in work] == [3 * repeats, repeats, repeats]
    drawn = {r.key: p for tile in work for r, p in zip(tile.rows, draw(policy, tile.rows, PLAN), strict=True)}
    pipe: StableDiffusion3Pipeline = backbone.pipe
    pipe.set_progress_bar_config(disable=True)
    for row in asked.items():
        assert row.guidance is not None and row.size is not None
        expected = pipe(
            prompt=row.text,
            num_images_per_prompt=repeats,
            generator=torch.Generator("cpu").manual_seed(row.seed),
            guidance_scale=row.guidance,
            num_inference_steps=PLAN.steps,
            height=row.size[0],
            width=row.size[1],
            output_type="np",
            **options,
        ).images[row.repeat]
        assert drawn[row.key].shape == (*row.size, 3)
        assert np.abs(drawn[row.key] / 255 - expected).max() <= 0.5 / 255 + 1e-4
        alone = draw(policy, [row], PLAN)[0]
        assert np.abs(drawn[row.key].astype(int) - alone.astype(int)).max() <= 1


def test_only_what_a_benchmark_honours_is_honoured() -> None:
    plain, seeded = benchmark().items(), benchmark("seed").items()
    assert {(row.seed, row.guidance, row.size, row.repeats) for row in plain} == {(1234, None, None, None)}
    assert [(row.seed, row.repeats, row.guidance) for row in seeded] == [(said[1], 1, None) for said in ASKED]
    sized = benchmark("size", "guidance").items()
    assert [row.size for row in sized] == [(said[3], said[4]) for said in ASKED]
    assert Counter(row.guidance for row in sized) == Counter(said[2] for said in ASKED)


def test_a_row_keeps_what_it_was_drawn_with() -> None:
    for row in (*benchmark().items(), *benchmark("seed", "guidance", "size", repeats=2).items()):
        assert load(dump(row), "here") == row
    assert {"guidance", "size", "repeats"}.isdisjoint(dump(benchmark().items()[0]))


def test_the_active_weights_draw_every_size(tmp_path: Path) -> None:
    policy = tiny.policy(trained=True)
    policy.allocate(frozenset({Weights.REFERENCE}))
    asked = benchmark("size")
    rows = [row for row in asked.items() if row.size == (16, 24)]
    live = draw(policy, rows, PLAN)[0]
    with policy.using(Weights.REFERENCE):
        base = draw(policy, rows, PLAN)[0]
    assert np.array_equal(base, draw(tiny.policy(), rows, PLAN)[0]) and not np.array_equal(base, live)
    suite = Suite(name="own", benchmarks=(asked,))
    evaluate(policy, suite, tmp_path, fleet=Fleet(), options=Options(plan=PLAN))
    assert len(list((tmp_path / "images").iterdir())) == len(ASKED)


def test_a_size_that_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    tags = {"kind": "odd", "height": "17", "width": "16"}
    odd = replace(benchmark("size"), prompts=(Prompt(id="x", text="a cat", tags=tags),))
    with pytest.raises(UserError, match="17 x 16 pixels"):
        evaluate(
            tiny.policy(), Suite(name="own", benchmarks=(odd,)), tmp_path, fleet=Fleet(), options=Options(plan=PLAN)
        )
