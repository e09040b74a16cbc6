"""What a recipe reads from this machine beside its model: a resumed run must find the same in it. No torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safediffusion.config.attack import WORDS
from safediffusion.config.schema import Recipe
from safediffusion.core.digest import sha256

NAMES = {"emoji", *WORDS}  # that are no paths, whatever lies in the working folder


def local_files(recipe: Recipe) -> dict[str, str]:
    """Key of the recipe -> SHA-256 of the file or folder it names; what ships or lies on a hub is left out."""
    own = recipe.constraint
    named = {
        **{f"prompts.{name}.file": source.file for name, source in recipe.prompts.items()},
        "preferences.files": recipe.preferences.files,
        "steering.anchors": _file(recipe.steering.anchors),
        "steering.labels": recipe.steering.labels,
        **{f"constraint.anchors.{i}": _file(name) for i, name in enumerate(own.anchors)},
        "constraint.pictures": own.pictures,
        "calibration.pictures": recipe.calibration.pictures,
        "attack.vocabulary": recipe.attack.vocabulary,
        "encoder": recipe.encoder,
        **{f"sources.{name}": source for name, source in recipe.sources.items()},
        **{f"constraint.sources.{name}": source for name, source in own.sources.items()},
    }
    files = {key: name for key, name in named.items() if name and name not in NAMES}
    return {key: _digest(Path(name)) for key, name in files.items() if Path(name).exists()}


def _file(anchors: str) -> str | None:
    """Of FILE.yaml#set."""
    return anchors.partition("#")[0] if ".yaml" in anchors else None


def _digest(path: Path) -> str:
    """Of a folder: of the names and contents of all files below it."""
    if path.is_file():
        return sha256(path)
    found = hashlib.sha256()
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        found.update(f"{file.relative_to(path)} {sha256(file)}\n".encode())
    return found.hexdigest()
