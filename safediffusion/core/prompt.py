"""A prompt and its tags (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One text to draw. `id` keys its noise; `tags` say what a benchmark or a gate needs to know about it."""

    id: str
    text: str
    tags: Mapping[str, str] = field(default_factory=dict)
