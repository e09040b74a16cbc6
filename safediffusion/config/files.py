"""What a recipe reads from this machine beside its model: a resumed run must find the same in it. No torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safediffusion.config.attack import WORDS
from safediffusion.config.schema import Recipe
from safediffusion.core.digest import sha256


def local_files(recipe: Recipe) -> dict[str, str]:
    """Key of the recipe -> SHA-256 of the file or folder it names; what ships or lies on a hub is left out.

    Of a list of pictures (.jsonl) it is the list's, not the pictures'.
    """
    own, words, seen = recipe.constraint, recipe.attack.vocabulary, recipe.evaluation
    named = {
        **{f"prompts.{name}.file": source.file for name, source in recipe.prompts.items()},
        "preferences.files": recipe.preferences.files,
        "steering.anchors": _file(recipe.steering.anchors),
        "steering.labels": recipe.steering.labels,
        **{f"constraint.anchors.{i}": _file(name) for i, name in enumerate(own.anchors)},
        "constraint.pictures": own.pictures,
        "calibration.pictures": recipe.calibration.pictures,
        "attack.vocabulary": None if words in WORDS else words,
        "encoder": recipe.encoder,
        "guard.encoder": recipe.guard.encoder,
        **{f"sources.{name}": source for name, source in recipe.sources.items()},
        **{f"constraint.sources.{name}": source for name, source in own.sources.items()},
        **{f"constraint.encoders.{name}": source for name, source in own.encoders.items()},
        **{f"evaluation.sources.{name}": seen.sources.get(name) for name in recipe.guard.judges},
        **{f"evaluation.encoders.{name}": seen.encoders.get(name) for name in recipe.guard.judges},
    }
    files = {key: Path(name) for key, name in named.items() if name and name != "emoji"}
    return {key: _digest(path) for key, path in files.items() if path.exists()}


def _file(anchors: str) -> str | None:
    """Of FILE.yaml#set."""
    return anchors.partition("#")[0] if ".yaml" in anchors else None


def _digest(path: Path) -> str:
    """Of a folder: of the names and contents of all files below it but hidden ones, which programs leave there."""
    if path.is_file():
        return sha256(path)
    found = hashlib.sha256()
    below = {file.relative_to(path): file for file in path.rglob("*") if file.is_file()}
    for name in sorted(name for name in below if not any(part.startswith(".") for part in name.parts)):
        found.update(f"{name.as_posix()} {sha256(below[name])}\n".encode())
    return found.hexdigest()
