"""The second act again: a new column over pictures that are already saved. Nothing is generated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.scorers.base import ImageBatch, Scorer

from .generate import Progress, as_tensor
from .rows import Row
from .store import Pixels, Store, find, write_json


@torch.no_grad()
def score(
    folder: Path,
    scorer: Scorer,
    *,
    batch: int = 64,
    device: torch.device | str = "cpu",
    again: bool = False,
    progress: Progress = lambda done, total: None,
) -> dict[str, int]:
    """Add `scores[scorer.name]` to every row in `folder`; how many were scored, unscorable, kept, without a picture.

    Rows that already hold a number are kept unless `again`. NaN is written as null: unscorable, not 0.
    """
    if batch < 1:
        raise UserError(f"batch is {batch}; it must be at least 1")
    stores = [Store(place) for place in find(folder)]
    counts = dict.fromkeys(("scored", "unscorable", "kept", "no picture"), 0)
    tables = [(store, store.rows()) for store in stores]
    total, done = sum(len(rows) for _, rows in tables), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    for store, rows in tables:
        todo = [row for row in rows if row.image is not None and (again or row.score(scorer.name) is None)]
        counts["no picture"] += sum(row.image is None for row in rows)
        counts["kept"] += sum(row.image is not None for row in rows) - len(todo)
        advance(len(rows) - len(todo))
        fresh = _score(store, scorer, todo, batch=batch, device=device, advance=advance)
        counts["unscorable"] += sum(value is None for value in fresh.values())
        counts["scored"] += sum(value is not None for value in fresh.values())
        store.replace_rows(
            replace(row, scores={**row.scores, scorer.name: fresh[row.key]}) if row.key in fresh else row
            for row in rows
        )
        manifest = store.read_manifest()
        listed = {**manifest.get("scorers", {}), scorer.name: {"higher_is_better": scorer.higher_is_better}}
        write_json(store.manifest, {**manifest, "scorers": listed})
    return counts


def _score(
    store: Store,
    scorer: Scorer,
    rows: list[Row],
    *,
    batch: int,
    device: torch.device | str,
    advance: Callable[[int], None],
) -> dict[str, float | None]:
    out: dict[str, float | None] = {}
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        opened = [(row, pixels) for row in part if (pixels := store.open(row.key)) is not None]
        for group in _by_size(opened):
            prompts = tuple(Prompt(id=row.prompt, text=row.text, tags=row.tags) for row, _ in group)
            images = as_tensor([pixels for _, pixels in group]).to(device)
            values = scorer(ImageBatch(images, prompts)).float().cpu().tolist()
            out |= {
                row.key: value if math.isfinite(value) else None for (row, _), value in zip(group, values, strict=True)
            }
        advance(len(part))
    return out


def _by_size(opened: list[tuple[Row, Pixels]]) -> list[list[tuple[Row, Pixels]]]:
    groups: dict[tuple[int, ...], list[tuple[Row, Pixels]]] = {}
    for row, pixels in opened:
        groups.setdefault(pixels.shape, []).append((row, pixels))
    return list(groups.values())
