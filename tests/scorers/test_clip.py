"""The CLIP encoder against transformers, and its preprocessing against hand-made pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.scorers.base import ImageBatch
from safediffusion.scorers.clip import Clip, ClipEncoder
from safediffusion.scorers.preprocessing import Preprocessing
from tests import tiny

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.clip_folder(tmp_path_factory.mktemp("clip"))


def test_embeddings_are_those_of_transformers(folder: Path) -> None:
    encoder, model, words = ClipEncoder(folder), tiny.clip_model(), tiny.tokenizer()
    texts = ["a cat", "an unsafe picture of a knife"]
    tokens = words(texts, padding="max_length", truncation=True, max_length=tiny.MAX_LENGTH, return_tensors="pt")
    pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    ready = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        out = model(**tokens, pixel_values=ready)
    torch.testing.assert_close(encoder.text(texts), out.text_embeds, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoder.image(pixels), out.image_embeds, atol=1e-5, rtol=1e-4)
    score = Clip(encoder=encoder)(ImageBatch(pixels[:2], tuple(Prompt(id=t, text=t) for t in texts)))
    torch.testing.assert_close(score, (out.image_embeds[:2] * out.text_embeds).sum(-1), atol=1e-5, rtol=1e-4)


def test_a_text_does_not_depend_on_its_neighbours_and_is_encoded_once(folder: Path) -> None:
    one, many = ClipEncoder(folder), ClipEncoder(folder, cache=2)
    alone = one.text(["a dog"])[0]
    crowd = many.text(["a cat", "a dog", "a tree", "a dog"])
    assert torch.equal(crowd[1], alone) and torch.equal(crowd[3], alone)
    calls = []
    one.model.register_forward_pre_hook(lambda *_: calls.append(1))
    one.model.text_model.register_forward_pre_hook(lambda *_: calls.append(1))
    one.text(["a dog", "a dog"])
    assert calls == []


def test_the_image_branch_is_differentiable_and_frozen(folder: Path) -> None:
    encoder = ClipEncoder(folder)
    images = torch.rand(1, 3, 20, 20).requires_grad_()
    encoder.image(images).sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None and bool(images.grad.isfinite().all())
    assert not any(p.requires_grad for p in encoder.model.parameters())


def test_resize_is_pillows_bicubic_and_the_crop_is_central(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(
        json.dumps({"size": {"shortest_edge": 16}, "crop_size": 16, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]})
    )
    prepare = Preprocessing.read(tmp_path / "p.json")
    g = np.random.default_rng(0)
    coarse = Image.fromarray(g.integers(0, 255, (6, 9, 3), dtype=np.uint8)).resize((60, 40), Image.Resampling.BILINEAR)
    ours = prepare(torch.from_numpy(np.asarray(coarse).copy()).permute(2, 0, 1)[None].float() / 255)
    theirs = np.asarray(coarse.resize((24, 16), Image.Resampling.BICUBIC).crop((4, 0, 20, 16)), dtype=np.float32) / 255
    assert ours.shape == (1, 3, 16, 16)
    np.testing.assert_allclose(ours[0].permute(1, 2, 0).numpy(), theirs, atol=1.5 / 255)


def test_the_right_size_is_not_resampled(folder: Path) -> None:
    prepare = Preprocessing.read(folder / "preprocessor_config.json")
    image = torch.full((1, 3, 16, 16), 0.5)
    expected = [(0.5 - m) / s for m, s in zip(MEAN, STD, strict=True)]
    assert prepare(image)[0, :, 3, 3].tolist() == pytest.approx(expected)


def test_normalized_rows(folder: Path) -> None:
    z = ClipEncoder(folder).image(torch.rand(4, 3, 16, 16))
    torch.testing.assert_close(z, normalize(z, dim=-1))


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be loaded"):
        ClipEncoder(tmp_path)
