"""Preprocessing against the image processors of transformers on Pillow, with and without their rounding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers.image_processing_backends as backends
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from safediffusion.scorers.preprocessing import Preprocessing

SIDE = 48
PROCESSORS = {
    "clip": CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
    "clip, bilinear": CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, resample=2
    ),
    "siglip": SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}),
}
SIZES = ((128, 128), (20, 20), (61, 100), (100, 61), (48, 61), (30, 93), (256, 192))
ROUNDED = 1.13 / 255  # .5 after the first pass, weighed by the second (absolute weights sum to 1.25), and .5 after that
by_processor = pytest.mark.parametrize("name", PROCESSORS)
by_size = pytest.mark.parametrize("size", SIZES)


def picture(kind: str, size: tuple[int, int]) -> Image.Image:
    """[H, W] of smooth colours, too pale to overshoot the range, or of noise."""
    g = np.random.default_rng(size)
    if kind == "noise":
        return Image.fromarray(g.integers(0, 256, (*size, 3), dtype=np.uint8))
    colours = Image.fromarray(g.integers(64, 192, (6, 6, 3), dtype=np.uint8))
    return colours.resize(size[::-1], Image.Resampling.BICUBIC)


def differences(name: str, image: Image.Image, folder: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of what the processor makes of the picture and what we do, in units of the range from 0 to 1."""
    processor = PROCESSORS[name]
    processor.save_pretrained(folder)
    prepare = Preprocessing.read(folder / "preprocessor_config.json")
    ours = prepare(torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255)
    theirs = processor(image, return_tensors="np")["pixel_values"]
    assert ours.shape == theirs.shape == (1, 3, SIDE, SIDE)
    found: np.ndarray[Any, np.dtype[np.float64]] = np.abs(ours.double().numpy() - theirs)
    found *= np.array(prepare.std).reshape(3, 1, 1)
    return found


def resize_floats(image: Any, *, size: tuple[int, int], resample: int, **_: object) -> Any:
    """Pillow's resize of [3, H, W] in 0 to 255 as floats, clipped at the end: bytes without the rounding."""
    planes = [Image.fromarray(plane.astype(np.float32)).resize(size[::-1], resample) for plane in image]
    return np.clip(np.stack([np.asarray(plane) for plane in planes]), 0, 255)


@by_size
@by_processor
@pytest.mark.parametrize("kind", ["smooth", "noise"])
def test_without_rounding_the_processor_gives_ours(
    kind: str, name: str, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "np_resize", resize_floats)
    assert differences(name, picture(kind, size), tmp_path).max() < 1e-4


@by_size
@by_processor
def test_bytes_differ_by_their_two_roundings(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    found = differences(name, picture("smooth", size), tmp_path)
    assert found.max() < ROUNDED and found.mean() < 0.35 / 255
    noise = differences(name, picture("noise", size), tmp_path)
    assert noise.mean() < 0.5 / 255  # single pixels are clipped between the passes


@by_processor
def test_a_picture_that_fits_is_only_cropped_and_normalised(name: str, tmp_path: Path) -> None:
    for size in ((48, 48), (48, 55), (51, 48)):
        if name != "siglip" or size == (48, 48):
            assert differences(name, picture("noise", size), tmp_path).max() < 1e-6


@pytest.mark.parametrize(("spare", "down", "even"), [(1, 0, 0), (2, 1, 1), (3, 1, 2), (4, 2, 2), (5, 2, 2), (7, 3, 4)])
def test_the_crop_of_transformers_and_that_of_torchvision(spare: int, down: int, even: int) -> None:
    columns = torch.arange(8.0 + spare).expand(1, 3, 8, 8 + spare) / 100
    plain = {"shortest": 8, "exact": None, "crop": (8, 8), "mean": (0.0,) * 3, "std": (1.0,) * 3}
    for halves, first in (("down", down), ("even", even)):
        cropped = Preprocessing(**plain, halves=halves)(columns)  # type: ignore[arg-type]
        assert cropped.shape == (1, 3, 8, 8) and round(100 * float(cropped[0, 0, 0, 0])) == first


@by_size
def test_torchvision_s_way_step_by_step(size: tuple[int, int]) -> None:
    """Resize(224), CenterCrop(224), Normalize: what ImageReward and open_clip do, from torchvision's source."""
    prepare = Preprocessing(
        shortest=SIDE,
        exact=None,
        crop=(SIDE, SIDE),
        mean=tuple(OPENAI_CLIP_MEAN),
        std=tuple(OPENAI_CLIP_STD),
        halves="even",
    )
    image = np.asarray(picture("noise", size)).transpose(2, 0, 1)
    height, width = size
    target = tuple(SIDE if side == min(size) else int(SIDE * side / min(size)) for side in (height, width))
    resized = resize_floats(image, size=(target[0], target[1]), resample=3) / 255
    top, left = (round((side - SIDE) / 2) for side in target)
    mean, std = (np.array(value).reshape(3, 1, 1) for value in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    expected = (resized[:, top : top + SIDE, left : left + SIDE] - mean) / std
    ours = prepare(torch.from_numpy(image.copy())[None].float() / 255)[0]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_normalize": False}, "do_normalize is off"),
        ({"do_resize": False}, "do_resize is off"),
        ({"resample": 1}, "resample is 1, not 2 or 3"),
        ({"crop_size": 9}, r"the crop \(9, 9\) is larger than the resized picture \(8, 8\)"),
    ],
)
def test_what_it_cannot_do_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    config = {"size": {"shortest_edge": 8}, "crop_size": 8, "image_mean": [0] * 3, "image_std": [1] * 3}
    (tmp_path / "p.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message):
        Preprocessing.read(tmp_path / "p.json")
