"""What text encoders say, kept: every distinct text is encoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from safediffusion.core.types import Conditioning

ROOM = 2**28  # bytes of embeddings that are kept; of FLUX a text takes 8 MiB, of SD 1.x a quarter
Embed = Callable[[str], dict[str, Tensor]]  # the embeddings of one text, each without a batch axis, float32


class Texts:
    """Conditionings from the texts used last.

    Texts are encoded one at a time, so that an embedding does not depend on its neighbours in a batch.
    """

    def __init__(self, embed: Embed, *, device: torch.device | str = "cpu", room: int = ROOM) -> None:
        self._embed, self._device, self._room = embed, device, room
        self._kept: OrderedDict[str, dict[str, Tensor]] = OrderedDict()

    def conditioning(self, texts: Sequence[str]) -> Conditioning:
        """[len(texts)] rows, in that order."""
        distinct = {text: self.find(text) for text in dict.fromkeys(texts)}
        names = distinct[texts[0]]
        return Conditioning({name: torch.stack([distinct[text][name] for text in texts]) for name in names})

    def repeated(self, text: str, count: int) -> Conditioning:
        """[count] rows of one text, without copies."""
        found = self.find(text)
        return Conditioning({name: value.expand(count, *value.shape) for name, value in found.items()})

    @torch.no_grad()
    def find(self, text: str) -> dict[str, Tensor]:
        """Its embeddings, without a batch axis."""
        if text not in self._kept:
            self._kept[text] = {name: value.to(self._device) for name, value in self._embed(text).items()}
            while len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > self._room:
                self._kept.popitem(last=False)
        self._kept.move_to_end(text)
        return self._kept[text]


def _bytes(embeddings: dict[str, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in embeddings.values())
