"""One benchmark's judge and scorers at work: pictures in, judged rows out, and who judged."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.scorers.base import ImageBatch, Scorer, tabulated

from .benchmark import Benchmark, Identity, Judge, Judgement, identities_of
from .pixels import as_tensor
from .rows import Row
from .store import Pixels
from .watch import Failed

UNSEEN = Judgement(detections=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examiner:
    """Judges the rows of one benchmark; its scorers' columns stand beside the judge's own scores."""

    judge: Judge | None
    scorers: tuple[Scorer, ...] = ()
    device: torch.device | str = "cpu"

    @classmethod
    def of(cls, benchmark: Benchmark, device: torch.device | str = "cpu") -> Self:
        """Loads the networks."""
        judge = None if benchmark.judge is None else benchmark.judge()
        return cls(judge=judge, scorers=tuple(benchmark.scorers()), device=device)

    @property
    def identities(self) -> tuple[Identity, ...]:
        """Of those that say who they are."""
        return tuple(identity for part in (self.judge, *self.scorers) for identity in identities_of(part))

    @torch.no_grad()
    def __call__(self, rows: Sequence[Row], pictures: Sequence[Pixels], digests: Sequence[str]) -> list[Row]:
        """The rows, judged; their pictures are of one size. Where a part that is under watch fails, none is judged."""
        images = as_tensor(pictures)
        try:
            words, found = self._words(images), self._columns(rows, images)
        except Failed:
            return [replace(row.item, image=digest) for row, digest in zip(rows, digests, strict=True)]
        by = tuple(each.mark for each in self.identities)
        return [
            replace(
                row,
                detections=word.detections,
                features=word.features,
                scores={**word.scores, **{name: values[i] for each in found for name, values in each.items()}},
                image=digest,
                by=by,
            )
            for i, (row, word, digest) in enumerate(zip(rows, words, digests, strict=True))
        ]

    def _words(self, images: Tensor) -> Sequence[Judgement]:
        words = [UNSEEN] * len(images) if self.judge is None else self.judge(images)
        if len(words) != len(images):
            raise UserError(f"the judge gave {len(words)} judgements for {len(images)} pictures; it must give one each")
        return words

    def _columns(self, rows: Sequence[Row], images: Tensor) -> list[dict[str, list[float | None]]]:
        if not self.scorers:
            return []
        batch = ImageBatch(images.to(self.device), prompts_of(rows))
        return [columns(scorer, batch) for scorer in self.scorers]


def prompts_of(rows: Sequence[Row]) -> tuple[Prompt, ...]:
    return tuple(Prompt(id=row.prompt, text=row.text, tags=row.tags) for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a benchmark's own judges and scorers say of a picture, as far as its rows show."""

    columns: frozenset[str]
    detections: bool
    features: bool

    @classmethod
    def of(cls, rows: Collection[Row], added: Collection[str]) -> Self:
        """`rows` are those of the benchmark, `added` the columns of others; a column that is null everywhere counts."""
        return cls(
            columns=frozenset(name for row in rows for name in row.scores if not _of_others(name, added)),
            detections=any(row.detections is not None for row in rows),
            features=any(row.features is not None for row in rows),
        )

    def some(self, row: Row) -> bool:
        """Whether anything of it was said of this picture."""
        return any(self._parts(row))

    def all(self, row: Row) -> bool:
        """Whether all of it was, and there is anything to say."""
        parts = self._parts(row)
        return bool(parts) and all(parts)

    def _parts(self, row: Row) -> list[bool]:
        wanted = ((self.detections, row.detections), (self.features, row.features))
        seen = [value is not None for asked, value in wanted if asked]
        return seen + [row.score(name) is not None for name in self.columns]


def unsettled(row: Row, added: Collection[str]) -> Row:
    """The row with its picture and the columns of others, as if its benchmark's judges had not seen it."""
    scores = {name: value for name, value in row.scores.items() if _of_others(name, added)}
    by = tuple(mark for mark in row.by if mark.split(" ")[0] in added)
    return replace(row.item, scores=scores, image=row.image, by=by)


def without(row: Row, scorer: str) -> Row:
    """The row without the columns of this scorer, and without its mark."""
    scores = {name: value for name, value in row.scores.items() if not _of_others(name, (scorer,))}
    return replace(row, scores=scores, by=tuple(mark for mark in row.by if mark.split(" ")[0] != scorer))


def beside(judged: Row, before: Row) -> Row:
    """With what was said there before and who said it; what is missing now does not wipe out what was there."""
    named = {mark.split(" ")[0] for mark in judged.by}
    kept = tuple(mark for mark in before.by if mark.split(" ")[0] not in named)
    fresh = {
        name: value
        for name, value in judged.scores.items()
        if judged.score(name) is not None or name not in before.scores
    }
    return replace(
        judged,
        detections=before.detections if judged.detections is None else judged.detections,
        features=before.features if judged.features is None else judged.features,
        scores={**before.scores, **fresh},
        by=(*kept, *judged.by),
    )


def _of_others(column: str, added: Collection[str]) -> bool:
    return column.split("/")[0] in added


def columns(scorer: Scorer, batch: ImageBatch) -> dict[str, list[float | None]]:
    """Name -> a number a picture, None where there is none. UserError when there is not one for each picture."""
    found = tabulated(scorer, batch)
    for name, values in found.items():
        if values.shape != (len(batch.prompts),):
            raise UserError(
                f"scorer '{scorer.name}' gave {list(values.shape)} numbers as '{name}' for {len(batch.prompts)} "
                "pictures; it must give one a picture, NaN where there is none"
            )
    listed = {name: values.float().cpu().tolist() for name, values in found.items()}
    return {name: [v if math.isfinite(v) else None for v in values] for name, values in listed.items()}


def by_size(rows: Iterable[tuple[Row, Pixels]]) -> list[list[tuple[Row, Pixels]]]:
    """Rows with their pictures, those of one size together."""
    groups: dict[tuple[int, ...], list[tuple[Row, Pixels]]] = {}
    for row, pixels in rows:
        groups.setdefault(pixels.shape, []).append((row, pixels))
    return list(groups.values())


def same_judges(before: Sequence[Identity], now: Sequence[Identity], what: str, command: str) -> None:
    """UserError when `what`, judged by some judges, would get judgements of others; () are those that have no name.

    `command` is what judges all of it anew.
    """
    if list(before) != list(now):
        raise UserError(
            f"{what} are by {_told([each.mark for each in before])}, now it would be "
            f"{_told([each.mark for each in now])}; judge all anew by those you want (`safediffusion {command}`, with "
            "their --source and --encoder), or use another folder"
        )


def _told(marks: Sequence[str]) -> str:
    return " and ".join(marks) or "no named judge"
