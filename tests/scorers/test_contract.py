"""A plug-in by entry point trains; what is wrong with another is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from safediffusion.cli.main import run
from safediffusion.scorers.base import ImageBatch
from safediffusion.scorers.contract import check_scorer
from tests import small, training

PACKAGE = Path(__file__).parents[1] / "plugin_package"


def scorer(call: Callable[[ImageBatch], Any], **attributes: Any) -> Any:
    """An object with these attributes that scores by `call`."""
    own = {"name": "mine", "higher_is_better": True, "differentiable": False, **attributes}
    return type("Mine", (), {**own, "__call__": staticmethod(call)})()


def mean(batch: ImageBatch) -> Tensor:
    return batch.images.mean((1, 2, 3))


def write(batch: ImageBatch) -> Tensor:
    batch.images.mul_(0.5)
    return mean(batch)


def through_numpy(batch: ImageBatch) -> Tensor:
    return torch.from_numpy(batch.images.numpy().mean((1, 2, 3)))


def fail(batch: ImageBatch) -> Tensor:
    raise ValueError("no weights")


BROKEN: dict[str, tuple[Any, str]] = {
    "no name": (scorer(mean, name=None), "name is a str"),
    "raises": (scorer(fail), "scores pictures [B, 3, H, W] in [0, 1] with their prompts"),
    "one number": (scorer(lambda batch: batch.images.mean()), "gives one float32 number a picture, [B]"),
    "doubles": (scorer(lambda batch: mean(batch).double()), "gives one float32 number a picture, [B]"),
    "writes": (scorer(write), "leaves the pictures as they are"),
    "infinite": (scorer(lambda batch: mean(batch) / 0), "gives numbers, or NaN where it cannot"),
    "random": (scorer(lambda batch: torch.rand(len(batch.prompts))), "gives the same numbers again"),
    "ranks": (scorer(lambda batch: mean(batch) - mean(batch).mean()), "scores a picture alone as among others"),
    "squeezes": (scorer(lambda batch: mean(batch).squeeze()), "gives [1] for one picture"),
    "knows nothing": (scorer(lambda batch: mean(batch) * torch.nan), "can score ordinary pictures"),
    "numpy": (scorer(through_numpy, differentiable=True), "scores one picture, and passes gradients"),
    "detached": (scorer(lambda batch: mean(batch).detach(), differentiable=True), "lets gradients through"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_told(case: str) -> None:
    broken, rule = BROKEN[case]
    wrong = [outcome for outcome in check_scorer(broken) if not outcome.ok]
    assert any(outcome.what.startswith(rule) and outcome.advice for outcome in wrong)


def test_good_ones_pass() -> None:
    missing = scorer(lambda batch: torch.where(mean(batch) > 0.5, mean(batch), torch.nan))
    for good in (scorer(mean, differentiable=True), missing, training.steering(0.5), training.steering("auto")):
        assert [outcome for outcome in check_scorer(good) if not outcome.ok] == []


def test_the_command_says_where_it_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "scorer", "tests.training:Brightness"]) == 0
    assert "can be a reward and a metric" in capsys.readouterr().out
    for name, message in (
        ("no_such_module:Thing", "cannot be imported (No module named"),
        ("tests.training:Nothing", "cannot be imported"),
        ("steering", "cannot be made without arguments"),
        ("sterring", "did you mean 'steering'"),
    ):
        assert run(["check", "scorer", name]) == 2
        assert message in capsys.readouterr().err


def test_a_package_of_its_own_is_installed_and_trains(folders: small.Folders, tmp_path: Path) -> None:
    target = tmp_path / "site"
    source = shutil.copytree(PACKAGE, tmp_path / "source")  # building leaves files beside it
    install = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run([sys.executable, "-m", *install], check=True, timeout=300)
    places = {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(PACKAGE.parents[1])])}

    def safediffusion(*arguments: str) -> str:
        line = [sys.executable, "-m", "safediffusion", *arguments]
        done = subprocess.run(line, env=places, check=True, timeout=300, capture_output=True, text=True)
        return done.stdout

    assert "warmth" in safediffusion("list", "scorers")
    assert "can be a reward and a metric" in safediffusion("check", "scorer", "warmth")
    own = ["scorers={warmth: 1.0}"]
    safediffusion("train", "sd15-steer", *folders.small, *own, "--out", str(tmp_path / "run"))
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 2 and -1 <= last["score/warmth"] <= 1
