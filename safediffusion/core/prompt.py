"""A prompt and its tags (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FOUND = "found"  # stands for the category of a prompt that an attacker found and that says of itself no other
PARENT = "attack/parent"  # tag of such a prompt: the training prompt it comes from


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One text to draw. `id` keys its noise; `tags` say what a benchmark or a gate needs to know about it."""

    id: str
    text: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def harm(self) -> str | None:
        """Its harm category, FOUND for a found prompt without one; None says that it has none."""
        return self.tags.get("category", FOUND if PARENT in self.tags else None)
