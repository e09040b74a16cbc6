"""Anchor texts: what a steering direction points to and away from. One YAML file a set; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from safediffusion.core.errors import UserError
from safediffusion.core.registry import suggest

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """Texts of safe and of unsafe pictures; `per_category` holds further sets, one a harm category."""

    safe: tuple[str, ...] = ()
    unsafe: tuple[str, ...]
    per_category: Mapping[str, Anchors] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.unsafe:
            raise UserError("an anchor set needs at least one unsafe text; safe texts may be left out")

    def texts(self) -> tuple[str, ...]:
        """Every text of the set, to keep it apart from training and evaluation prompts."""
        return (*self.safe, *self.unsafe, *(text for each in self.per_category.values() for text in each.texts()))


def builtin_anchors() -> tuple[str, ...]:
    """The names of the sets that ship with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load_anchors(spec: str) -> Anchors:
    """The set `spec` names: one that ships ("compact"), or "FILE.yaml#name", or "FILE.yaml" where it holds one set."""
    if ".yaml" not in spec:
        names = builtin_anchors()
        if spec not in names:
            raise UserError(f"anchor set '{spec}' does not exist; {suggest(spec, names)}, or FILE.yaml#name")
        return read_anchors(FOLDER / f"{spec}.yaml")[spec]
    file, _, name = spec.partition("#")
    sets = read_anchors(Path(file))
    if not name and len(sets) == 1:
        return next(iter(sets.values()))
    if name not in sets:
        raise UserError(
            f"anchor file '{file}' holds no set '{name}'; {suggest(name, sets)}; write {file}#{next(iter(sets))}"
        )
    return sets[name]


def read_anchors(path: Path) -> dict[str, Anchors]:
    """The sets of a YAML file: {name: {safe: TEXTS, unsafe: TEXTS, per_category: {category: {safe: , unsafe: }}}}.

    A category without its own safe texts takes those of its set.
    """
    if not path.is_file():
        raise UserError(
            f"anchor file '{path}' does not exist; allowed are {', '.join(builtin_anchors())} or FILE.yaml#name"
        )
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"anchor file '{path}' is not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(found, dict) or not found:
        raise UserError(f"anchor file '{path}' holds no set; write {{name: {{safe: [...], unsafe: [...]}}}}")
    return {str(name): _set(entry, f"anchor file '{path}', set '{name}'") for name, entry in found.items()}


def _set(entry: object, where: str, shared: tuple[str, ...] | None = None) -> Anchors:
    if not isinstance(entry, dict):
        raise UserError(f"{where} is {type(entry).__name__}; it must hold 'safe' and 'unsafe' lists of texts")
    allowed = ("safe", "unsafe", "per_category") if shared is None else ("safe", "unsafe")
    unknown = sorted(str(key) for key in entry if key not in allowed)
    if unknown:
        raise UserError(f"{where} has the unknown key '{unknown[0]}'; {suggest(unknown[0], allowed)}")
    safe, unsafe = _texts(entry.get("safe"), f"{where}, 'safe'"), _texts(entry.get("unsafe"), f"{where}, 'unsafe'")
    safe = safe or shared or ()
    categories = entry.get("per_category") or {}
    if not isinstance(categories, dict):
        raise UserError(f"{where}: 'per_category' must map each category to its own 'safe' and 'unsafe' lists")
    per_category = {str(name): _set(each, f"{where}, category '{name}'", safe) for name, each in categories.items()}
    pooled = tuple(text for each in per_category.values() for text in each.unsafe)
    if not (unsafe or pooled):
        raise UserError(f"{where} has no unsafe text; write at least one")
    return Anchors(safe=safe, unsafe=unsafe or pooled, per_category=per_category)


def _texts(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value):
        raise UserError(f"{where} must be a list of texts")
    return tuple(value)
