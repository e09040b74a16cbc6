"""YAML and `key=value` overrides to a checked Recipe. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import yaml

from safediffusion.config.credits import CREDIT_KINDS
from safediffusion.config.objectives import OBJECTIVE_KINDS
from safediffusion.config.parse import read_section
from safediffusion.config.schema import Recipe
from safediffusion.config.unread import check_read
from safediffusion.core.errors import UserError
from safediffusion.core.registry import suggest

WHOLE = ("prompts", "scorers", "sources", "budgets")  # their keys are names of the user's choice, not settings
WATCHED = ("name", "about", "steps", "log", "checkpoint_every", "evaluation", "guard")  # not how a step learns
KINDS = {"objective": OBJECTIVE_KINDS, "credit": CREDIT_KINDS}  # sections whose keys go by their `kind`
FOLDER = Path(__file__).parents[1] / "recipes"


def recipe_names() -> tuple[str, ...]:
    """The recipes that ship."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that ships under `name`, or the YAML file of that path, with `key=value` overrides on top.

    A file that says `extends: RECIPE` has all of that recipe's keys but for those it names itself. What is under names
    of one's own choice (prompts, scorers, sources, budgets) is taken or replaced as a whole. Where a file or an
    override names another `kind` of objective or credit, keys that the kind below does not share with it do not come
    along. UserError for an override that the recipe does not read, and for what a file of the user's that extends
    another says that is no default, where that file's own recipe does not read it.
    """
    tree = _read(name, ())
    said = override({}, overrides)
    recipe = parse_recipe(_unguarded(override(tree, overrides), said))
    check_read(recipe, said, defaults=True)
    if (path := _find(name)).parent != FOLDER and "extends" in (own := _parse(path)):  # else it may say everything
        check_read(_alone(tree) or recipe, own, defaults=False)
    return recipe


def _unguarded(tree: Mapping[str, object], said: Mapping[str, object]) -> Mapping[str, object]:
    """Without the guard's encoder where the reward was given the same and nobody named one for the guard."""
    own, given = tree.get("guard"), said.get("guard")
    if not isinstance(own, Mapping) or own.get("encoder") is None or own["encoder"] != tree.get("encoder"):
        return tree
    if isinstance(given, Mapping) and "encoder" in given:
        return tree
    return {**tree, "guard": {**own, "encoder": None}}


def _alone(tree: Mapping[str, object]) -> Recipe | None:
    """A file's recipe before overrides, which may take away what reads its keys; None if it is none without them."""
    try:
        return parse_recipe(tree)
    except UserError:
        return None


def digest(name: str, overrides: Sequence[str] = ()) -> str:
    """12 hex digits of what `load_recipe` reads, but for how long it trains and how it is watched.

    It changes with a value in the recipe's file or in one that it extends. Keys that nobody set, and their defaults,
    are not in it, so a version that knows more keys gives the same.
    """
    tree = override(_read(name, ()), overrides)
    said = {key: value for key, value in tree.items() if key not in WATCHED}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _read(name: str, above: tuple[str, ...]) -> dict[str, object]:
    """The keys of a recipe over those of the recipe it extends; `above` are the recipes that led here."""
    if name in above:
        raise UserError(f"recipe '{name}' extends itself ({' -> '.join((*above, name))}); take one `extends` out")
    path = _find(name)
    tree = _parse(path)
    below = tree.pop("extends", None)
    if below is None:
        tree.setdefault("name", path.stem)
        return tree
    if not isinstance(below, str):
        raise UserError(f"recipe file '{path}': extends is {below!r}; it is the name of a recipe or a YAML file's path")
    local = path.parent / below
    base = _read(str(local) if path.parent != FOLDER and local.is_file() else below, (*above, name))
    return _over(base, {"name": path.stem, **tree})


def _over(base: Mapping[str, object], own: Mapping[str, object]) -> dict[str, object]:
    """`base` with the values of `own` in their place; sections are joined key by key."""
    out = _rekinded(base, {name: part.get("kind") for name in KINDS if isinstance(part := own.get(name), Mapping)})
    for key, value in own.items():
        before = out.get(key)
        joined = isinstance(value, Mapping) and isinstance(before, Mapping) and key not in WHOLE
        out[key] = _over(cast(Any, before), cast(Any, value)) if joined else value
    return out


def _rekinded(tree: Mapping[str, object], asked: Mapping[str, object]) -> dict[str, object]:
    """A copy of `tree` whose sections keep what their kind shares with the one `asked` of them (None: the same)."""
    out = dict(tree)
    for name, kind in asked.items():
        below = out.get(name)
        if kind is not None and isinstance(below, Mapping):
            out[name] = KINDS[name].common(below, kind)
    return out


def _find(name: str) -> Path:
    """The file of a recipe that ships, or of a path."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in recipe_names():
            raise UserError(f"unknown recipe '{name}'; {suggest(name, recipe_names())}, or a path that ends in .yaml")
        path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"recipe file '{path}' does not exist; known recipes: {', '.join(recipe_names())}")
    return path


def _parse(path: Path) -> dict[str, object]:
    """The keys in one file. UserError when it is no mapping."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"recipe file '{path}' is not YAML ({_one_line(error)})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"recipe file '{path}' is not UTF-8 text (byte {error.start})") from error
    if not isinstance(tree, dict):
        raise UserError(f"recipe file '{path}' is no mapping; it starts with lines such as `model: emoji`")
    return cast(dict[str, object], tree)


def parse_recipe(tree: Mapping[str, object]) -> Recipe:
    """A recipe from plain data, e.g. the `config` of a run.json. UserError names a key that is unknown or wrong."""
    return read_section(Recipe, tree, "")


def to_plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON-able data with every default written out; `parse_recipe` reads it back."""
    return cast(dict[str, Any], _plain(asdict(recipe)))


def override(tree: Mapping[str, object], overrides: Sequence[str]) -> dict[str, object]:
    """A copy of `tree` with each `dotted.key=value` set; values are YAML."""
    settings = [(text, *_setting(text)) for text in overrides]
    given = {name: value for _, name, value in settings}
    out = _rekinded(cast(dict[str, object], _plain(tree)), {name: given.get(f"{name}.kind") for name in KINDS})
    for text, name, value in settings:
        *path, last = name.split(".")
        at = out
        for part in path:
            inner = at.setdefault(part, {})
            if not isinstance(inner, dict):
                raise UserError(f"'{text}': '{part}' is {inner!r} and has no keys of its own")
            at = cast(dict[str, object], inner)
        at[last] = value
    return out


def _setting(text: str) -> tuple[str, object]:
    """The dotted key and the value of one override."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UserError(f"'{text}' is not of the form key=value, e.g. optimizer.lr=1e-4")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"'{text}': the value is not YAML ({_one_line(error)}); quote it") from error


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
