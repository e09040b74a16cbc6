"""Inception's features through clean-fid's two functions, stood in for: it needs torchvision and a download."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

import safediffusion.judges.inception as inception
from safediffusion.core.errors import UserError
from safediffusion.evaluate.benchmark import Kit
from safediffusion.evaluate.pixels import as_tensor
from safediffusion.judges.base import Setup
from safediffusion.protocols.quality import coco
from safediffusion.protocols.reference import in_inception
from tests.pictures import astronaut, ball


def network(seen: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def features(x: Tensor) -> Tensor:
        seen.append(x)
        return x.mean((2, 3)).repeat(1, 683)[:, : inception.WIDTH]

    return features


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the stand-in's network was given; the stand-in resizes by taking pixels."""
    given: list[Tensor] = []
    package, features, resize = (ModuleType(name) for name in ("cleanfid", "cleanfid.features", "cleanfid.resize"))

    def build_feature_extractor(mode: str, *, device: torch.device, use_dataparallel: bool) -> object:
        assert (mode, str(device), use_dataparallel) == ("clean", "cpu", False)
        return network(given)

    def build_resizer(mode: str) -> object:
        assert mode == "clean"
        index = np.arange(299) * 64 // 299
        return lambda pixels: pixels[index][:, index].astype(np.float32)

    features.build_feature_extractor = build_feature_extractor  # type: ignore[attr-defined]
    resize.build_resizer = build_resizer  # type: ignore[attr-defined]
    for module in (package, features, resize):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(inception, "version", lambda name: "0.1.35")
    return given


def test_the_network_sees_299_pixels_from_0_to_255(seen: list[Tensor]) -> None:
    judge = inception.inception_features(Setup())
    pictures = [astronaut(64, 64), ball(64)]
    first, second = judge(as_tensor(pictures))
    assert seen[0].shape == (2, 3, 299, 299) and seen[0].max() > 200
    index = np.arange(299) * 64 // 299
    means = [picture[index][:, index].mean((0, 1)) for picture in pictures]
    for word, expected in zip((first, second), means, strict=True):
        assert word.detections is None and word.features is not None and len(word.features) == 2048
        assert word.features[:3] == pytest.approx(expected.tolist(), rel=1e-5)
    assert judge.identity.version == "clean-fid 0.1.35, clean"
    assert judge(torch.full((1, 3, 8, 8), torch.nan))[0].features is None


@pytest.mark.usefixtures("seen")
def test_a_program_that_somebody_else_put_there_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "inception.pt"
    file.write_bytes(b"a program")
    monkeypatch.setattr(inception, "FILE", file)
    assert inception.inception_features(Setup()).identity.sha256
    monkeypatch.setattr(inception, "owner_of", lambda path: os.getuid() + 1)
    with pytest.raises(UserError, match="belongs to another user of this machine, and clean-fid would run it"):
        inception.inception_features(Setup())
    monkeypatch.setattr(inception, "owner_of", lambda path: 0)  # root's own is trusted
    assert inception.inception_features(Setup()).identity.sha256


def test_without_clean_fid_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanfid", None)
    with pytest.raises(UserError, match=r"pip install 'safediffusion\[fid\]' \(it needs torchvision\)"):
        inception.inception_features(Setup())
    with pytest.raises(UserError, match="inception reads no CLIP"):
        inception.inception_features(Setup(encoder="x"))


def test_the_distance_says_whose_features_it_is_of() -> None:
    def title(kit: Kit) -> str:
        return next(metric.info.title for metric in coco(kit).metrics if metric.info.key == "coco/fid")

    assert title(Kit()) == "Distance to real pictures (CLIP-FID)"
    assert title(Kit(sources={"fid": "inception"})) == "Distance to real pictures (FID)"
    with pytest.raises(UserError, match="--source fid=vgg: the only other features are fid=inception"):
        in_inception(Kit(sources={"fid": "vgg"}))
