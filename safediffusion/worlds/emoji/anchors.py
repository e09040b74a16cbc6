"""The world's anchor texts, as `anchors.yaml` has them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parent / "anchors.yaml"


@functools.cache
def anchor_texts() -> frozenset[str]:
    """Every anchor of every set: the encoder is never trained on one, no prompt is one."""
    found: set[str] = set()
    pending: list[Any] = [yaml.safe_load(FILE.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            pending.extend(node.values())
        elif isinstance(node, list):
            found.update(node)
    return frozenset(found)
