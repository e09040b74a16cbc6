"""Sliceables: take, join and move keep fields together."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from safediffusion.core.noise import Noise
from safediffusion.core.prompt import Prompt
from safediffusion.core.types import SHARED, Conditioning, Sliceable, expand, join


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Sliceable):
    table: Tensor = field(metadata=SHARED)  # first on purpose: the length must not come from a shared field
    value: Tensor
    prompts: tuple[Prompt, ...]
    cond: Conditioning
    scores: dict[str, Tensor]
    extra: Tensor | None = None


def batch(start: int, count: int) -> Batch:
    value = torch.arange(start, start + count)
    return Batch(
        table=torch.zeros(7),
        value=value,
        prompts=tuple(Prompt(id=f"p{i}", text="x") for i in value.tolist()),
        cond=Conditioning({"text": value[:, None] * 10}),
        scores={"a": value * 2.0},
    )


def test_take_slices_every_own_field_in_the_order_of_the_index() -> None:
    taken = batch(0, 4).take(torch.tensor([3, 1, 1]))
    assert len(taken) == 3
    assert taken.value.tolist() == [3, 1, 1]
    assert [p.id for p in taken.prompts] == ["p3", "p1", "p1"]
    assert taken.cond.tensors["text"].tolist() == [[30], [10], [10]]
    assert taken.scores["a"].tolist() == [6.0, 2.0, 2.0]
    assert len(taken.table) == 7 and taken.extra is None


def test_join_undoes_cutting_in_pieces() -> None:
    whole = join([batch(0, 3), batch(3, 2)])
    assert len(whole) == 5 and len(whole.table) == 7
    assert whole.value.tolist() == [0, 1, 2, 3, 4]
    assert [p.id for p in whole.prompts] == ["p0", "p1", "p2", "p3", "p4"]
    assert whole.cond.tensors["text"].flatten().tolist() == [0, 10, 20, 30, 40]


def test_a_field_that_cannot_be_sliced_is_our_own_bug() -> None:
    @dataclass(frozen=True, slots=True)
    class Odd(Sliceable):
        value: Tensor
        name: str

    with pytest.raises(AssertionError, match="type str cannot be sliced; mark it SHARED"):
        Odd(torch.zeros(2), "x").take(torch.tensor([0]))


def test_to_moves_nested_tensors() -> None:
    moved = batch(0, 2).to("meta")
    assert moved.value.device.type == moved.cond.device.type == moved.table.device.type == "meta"


def test_conditioning_counts_rows_and_noise_slices_its_keys() -> None:
    assert len(Conditioning({"text": torch.zeros(5, 3, 2)})) == 5
    noise = Noise(((0, "a", 0), (0, "b", 0)), (2,), start=((0, "s", 0), (0, "s", 0)))
    assert noise.take(torch.tensor([1])).keys == ((0, "b", 0),)
    assert noise.take(torch.tensor([1])).start == ((0, "s", 0),)


def test_expand_broadcasts_over_the_rest() -> None:
    assert expand(torch.tensor([1.0, 2.0]), torch.zeros(2, 3, 4)).shape == (2, 1, 1)
