"""Tensor types every layer shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor

SHARED = {"shared": True}  # field metadata: the same object for every item, never sliced

S = TypeVar("S", bound="Sliceable")


class Sliceable:
    """A dataclass of tensors, tuples and nested Sliceables that share axis 0; a field marked SHARED belongs to all."""

    __slots__ = ()

    def __len__(self) -> int:
        first = next(f for f in fields(cast(Any, self)) if not f.metadata.get("shared"))
        return _length(getattr(self, first.name))

    def take(self, index: Tensor) -> Self:
        """The items at `index` [N], in that order."""
        return cast(Self, replace(cast(Any, self), **{name: _pick(value, index) for name, value in _own(self)}))

    def to(self, device: torch.device | str) -> Self:
        """The same items with every tensor on `device`."""
        moved = {f.name: _move(getattr(self, f.name), device) for f in fields(cast(Any, self))}
        return cast(Self, replace(cast(Any, self), **moved))


def join(parts: Sequence[S]) -> S:
    """The items of all parts, one after the other; SHARED fields are those of the first part."""
    first = parts[0]
    joined = {name: _join([getattr(part, name) for part in parts]) for name, _ in _own(first)}
    return cast(S, replace(cast(Any, first), **joined))


def _own(value: Sliceable) -> list[tuple[str, Any]]:
    return [(f.name, getattr(value, f.name)) for f in fields(cast(Any, value)) if not f.metadata.get("shared")]


def _length(value: Any) -> int:
    return _length(next(iter(value.values()))) if isinstance(value, dict) else len(value)


def _pick(value: Any, index: Tensor) -> Any:
    if isinstance(value, Sliceable):
        return value.take(index)
    if isinstance(value, Tensor):
        return value[index.to(value.device)]
    if isinstance(value, tuple):
        return tuple(value[i] for i in index.tolist())
    if isinstance(value, dict):
        return {key: _pick(item, index) for key, item in value.items()}
    assert value is None, f"a field of type {type(value).__name__} cannot be sliced; mark it SHARED"
    return None


def _move(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Sliceable | Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _move(item, device) for key, item in value.items()}
    return value


def _join(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Sliceable):
        return join(values)
    if isinstance(first, Tensor):
        return torch.cat(values)
    if isinstance(first, tuple):
        return tuple(item for value in values for item in value)
    if isinstance(first, dict):
        return {key: _join([value[key] for value in values]) for key in first}
    assert first is None, f"fields of type {type(first).__name__} cannot be joined; mark them SHARED"
    return None


@dataclass(frozen=True, slots=True)
class Conditioning(Sliceable):
    """What a backbone needs to know about a prompt. The keys belong to the model family."""

    tensors: dict[str, Tensor]  # each [B, ...]

    @property
    def device(self) -> torch.device:
        return next(iter(self.tensors.values())).device


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """`total` carries the gradient; `terms` are detached means, only for the log."""

    total: Tensor  # []
    terms: dict[str, Tensor]  # each []


def expand(value: Tensor, like: Tensor) -> Tensor:
    """`value` [B] as [B, 1, 1, ...], so that it broadcasts against `like` [B, ...]."""
    return value.view(-1, *[1] * (like.ndim - 1))
