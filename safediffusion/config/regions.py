"""From the keys of `focus-n-fix` to the region in which pictures may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from safediffusion.core.learned import SALIENCY
from safediffusion.evaluate.benchmark import Judge, Judgement
from safediffusion.evaluate.nudity import COUNTED
from safediffusion.judges.base import Setup
from safediffusion.judges.registry import JUDGES
from safediffusion.objectives.regions import Box, Boxes, Saliency

MODERATOR = "emoji-moderator"


@dataclass(slots=True, kw_only=True)
class JudgesBoxes:
    """The boxes of one judge for detections of these names; the judge is loaded when it is first asked."""

    name: str
    kinds: tuple[str, ...] = COUNTED
    _judge: Judge | None = field(default=None, init=False, repr=False, compare=False)

    def __call__(self, images: Tensor) -> list[list[Box]]:
        if self._judge is None:
            self._judge = JUDGES.get(self.name)(Setup())
        return boxes_of(self._judge(images), self.kinds)


def boxes_of(judgements: Sequence[Judgement], kinds: Sequence[str]) -> list[list[Box]]:
    """Of each picture the boxes of detections so named; none of one that could not be judged."""
    return [
        [
            (each.x - each.width / 2, each.y - each.height / 2, each.x + each.width / 2, each.y + each.height / 2)
            for each in judgement.detections or ()
            if each.name in kinds and each.width is not None and each.height is not None
        ]
        for judgement in judgements
    ]


def with_region(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys as arguments of `focus_n_fix`: a judge becomes its boxes, the moderator what its evidence depends on."""
    name, share = keys["region"], keys["share"]
    if name == SALIENCY:
        return dict(keys)
    if name == MODERATOR:
        from safediffusion.worlds.emoji.moderator import Moderator

        sized = {} if share is None else {"share": share}
        return {**keys, "share": None, "region": Saliency(of=Moderator().evidence, **sized)}
    return {**keys, "region": Boxes(detector=JudgesBoxes(name=name))}
