"""Embeddings of texts, kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

ROOM = 65536  # texts


class KnownTexts:
    """Every distinct text is encoded once and by itself, so its embedding does not depend on what else is asked for.

    Beyond `room` of them those used longest ago are forgotten.
    """

    def __init__(self, encode: Callable[[str], Tensor], *, room: int = ROOM) -> None:
        self._encode, self._room = encode, room
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[N, D]"""
        return torch.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> Tensor:
        found = self._known[text] if text in self._known else self._encode(text)
        self._known[text] = found
        self._known.move_to_end(text)
        if len(self._known) > self._room:
            self._known.popitem(last=False)
        return found
