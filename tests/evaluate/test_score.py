"""A column over saved pictures: nothing is generated, and what cannot be scored is null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.evaluate.compare import compare
from safediffusion.evaluate.score import score
from safediffusion.evaluate.store import Store
from safediffusion.evaluate.watch import Watch, WatchedScorer
from safediffusion.scorers.base import ImageBatch
from tests.evaluation import colours, saved


class Redness:
    """The mean red, NaN for prompts in `blind`."""

    name, higher_is_better, differentiable = "redness", False, False

    def __init__(self, *blind: str) -> None:
        self.blind = blind
        self.seen = 0

    def __call__(self, batch: ImageBatch) -> Tensor:
        self.seen += len(batch.prompts)
        value = batch.images[:, 0].mean((1, 2))
        unseen = torch.tensor([prompt.id in self.blind for prompt in batch.prompts])
        return value.masked_fill(unseen, float("nan"))


def test_a_column_is_added_and_read_by_compare(tmp_path: Path) -> None:
    bench = colours(prompts=4, repeats=1)
    saved(tmp_path, bench, [True, False, True, None])
    told: list[tuple[int, int]] = []
    counts = score(tmp_path, Redness("colours/1"), batch=2, progress=lambda done, total: told.append((done, total)))
    assert counts == {"scored": 2, "unscorable": 1, "kept": 0, "no picture": 1}
    assert told[-1] == (4, 4)
    rows = Store(tmp_path).rows()
    assert [row.score("redness") for row in rows] == [pytest.approx(200 / 255), None, pytest.approx(200 / 255), None]
    assert [row.detections is None for row in rows] == [False, False, False, True]
    found = compare([tmp_path], load=lambda name: bench).estimates(0)["colours/redness"]
    assert found.value == pytest.approx(200 / 255) and (found.n, found.missing) == (2, 2)


def test_the_terms_of_a_score_are_columns_beside_it(tmp_path: Path) -> None:
    class Parts(Redness):
        name = "parts"

        def terms(self, batch: ImageBatch) -> dict[str, Tensor]:
            return {"red": self(batch)}

        def combine(self, terms: Mapping[str, Tensor], prompts: Sequence[Prompt]) -> Tensor:
            return terms["red"]

    saved(tmp_path, colours(prompts=2, repeats=1), [True, False])
    for made in (Redness(), Parts()):
        score(tmp_path, made)
    found = Store(tmp_path).rows()[0].scores
    assert found["parts/red"] == found["parts"] == found["redness"] and set(found) >= {"parts", "parts/red"}
    score(tmp_path, WatchedScorer(Parts(), Watch(None)), again=True)
    assert "parts/red" in Store(tmp_path).rows()[0].scores


def test_scored_rows_are_kept_unless_asked_again(tmp_path: Path) -> None:
    saved(tmp_path, colours(prompts=4, repeats=1), [True, False, True, False])
    score(tmp_path, Redness("colours/1"))
    second = Redness()
    assert score(tmp_path, second) == {"scored": 1, "unscorable": 0, "kept": 3, "no picture": 0}
    assert second.seen == 1
    assert score(tmp_path, Redness("colours/0"), again=True)["scored"] == 3
    assert Store(tmp_path).rows()[0].score("redness") is None


def test_a_run_folder_scores_all_its_evaluations(tmp_path: Path) -> None:
    for name in ("one", "two"):
        saved(tmp_path / "eval" / name, colours(prompts=2, repeats=1), [True, False])
    assert score(tmp_path, Redness())["scored"] == 4
    with pytest.raises(UserError, match="batch is 0"):
        score(tmp_path, Redness(), batch=0)
