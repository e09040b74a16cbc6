"""Inception's features for the Frechet distance as clean-fid takes them (arXiv 2104.11222), by the package clean-fid.

Each channel is resized to 299 x 299 by Pillow's bicubic filter in floats, and the TorchScript network that StyleGAN's
authors gave out sees values from 0 to 255. clean-fid downloads the network when it is first asked for.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safediffusion.core.digest import sha256
from safediffusion.core.errors import UserError
from safediffusion.evaluate.benchmark import Identity, Judgement
from safediffusion.evaluate.pixels import as_pixels

from .base import Setup, judge_whole

MODE = "clean"
WIDTH = 2048
FILE = Path("." if platform.system() == "Windows" else "/tmp", "inception-2015-12-05.pt")  # where clean-fid keeps it


@dataclass(frozen=True, slots=True, kw_only=True)
class InceptionFeatures:
    """2,048 numbers a picture; it says nothing of what is in the picture."""

    network: Callable[[Tensor], Tensor]  # [B, 3, 299, 299] from 0 to 255 -> [B, 2048]
    resize: Callable[[Any], Any]  # uint8 [H, W, 3] -> float32 [299, 299, 3]
    identity: Identity
    device: torch.device

    def __call__(self, images: Tensor) -> list[Judgement]:
        return judge_whole(images, self._judge, Judgement(detections=None))

    @torch.no_grad()
    def _judge(self, images: Tensor) -> list[Judgement]:
        pictures = np.stack([self.resize(picture) for picture in as_pixels(images)])
        rows = self.network(torch.from_numpy(pictures).permute(0, 3, 1, 2).to(self.device)).float().cpu()
        assert rows.shape == (len(images), WIDTH), f"Inception gave {list(rows.shape)}"
        return [Judgement(detections=None, features=tuple(row)) for row in rows.tolist()]


def _check_own(file: Path) -> None:
    """UserError for a file that somebody else put where clean-fid looks first: it holds a program."""
    if sys.platform != "win32" and file.is_file() and owner_of(file) not in (0, os.getuid()):
        raise UserError(f"{file} belongs to another user of this machine, and clean-fid would run it; remove it first")


def owner_of(file: Path) -> int:
    return file.stat().st_uid


def inception_features(setup: Setup) -> InceptionFeatures:
    """As clean-fid has it in its mode "clean"; needs the extra `fid`."""
    setup.without_encoder("inception")
    try:
        from cleanfid.features import build_feature_extractor
        from cleanfid.resize import build_resizer

        found = version("clean-fid")
    except (ImportError, PackageNotFoundError) as error:
        raise UserError(
            f"FID in Inception's features is taken by clean-fid, which cannot be imported ({error}); "
            "pip install 'safediffusion[fid]' (it needs torchvision), or leave out --source fid=inception"
        ) from error
    _check_own(FILE)
    network = build_feature_extractor(MODE, device=setup.device, use_dataparallel=False)
    identity = Identity(
        id="inception",
        version=f"clean-fid {found}, {MODE}",
        sha256={FILE.name: sha256(FILE)} if FILE.is_file() else {},
        thresholds={},
        licence="Apache-2.0 (network), Nvidia Source Code License (its TorchScript file)",
    )
    return InceptionFeatures(network=network, resize=build_resizer(MODE), identity=identity, device=setup.device)
