"""Texts are encoded once, and the ones used last stay."""

from __future__ import annotations

import torch
from torch import Tensor

from safediffusion.models.texts import Texts


def test_only_the_texts_used_last_are_kept() -> None:
    calls: list[str] = []

    def encode(text: str) -> dict[str, Tensor]:
        calls.append(text)
        return {"text": torch.full((2,), float(len(text)))}

    texts = Texts(encode, room=2 * 2 * 4)
    rows = texts.conditioning(["a", "bb", "a", "ccc"]).tensors["text"]
    assert rows[:, 0].tolist() == [1, 2, 1, 3] and calls == ["a", "bb", "ccc"]
    assert texts.repeated("bb", 3).tensors["text"].shape == (3, 2) and len(calls) == 3
    texts.conditioning(["a"])
    assert calls == ["a", "bb", "ccc", "a"]
    texts.conditioning(["bb"])
    assert len(calls) == 4
