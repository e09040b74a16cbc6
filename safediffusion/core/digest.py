"""SHA-256 of files, and in what a record differs from what is there now. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """In hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys, sorted, whose values are not the same in both; a key that one of them lacks is there as None."""
    return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
