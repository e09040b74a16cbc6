"""What a GenEval prompt asks for: the lines of its evaluation_metadata.jsonl (arXiv 2310.11513). No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.data.geneval import COLORS, RELATIONS

TASKS = {
    "single_object": "one object",
    "two_object": "two objects",
    "counting": "counting",
    "colors": "colours",
    "position": "position",
    "color_attr": "two coloured objects",
}
TAG = "geneval"  # the tag of a row that holds its line of metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a clause's objects must be: in `relation` to those of the include clause with the index `group`."""

    relation: str
    group: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """`count` objects of class `name`; as an exclude clause, so many are too many."""

    name: str
    count: int
    colour: str | None = None
    place: Place | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What one prompt asks for: all of `include` and none of `exclude`."""

    task: str
    prompt: str
    include: tuple[Clause, ...]
    exclude: tuple[Clause, ...] = ()


def parse(line: str, where: str) -> Metadata:
    """A line of evaluation_metadata.jsonl; UserError naming `where` when it is none."""
    try:
        raw = json.loads(line)
        _keys(raw, {"tag", "include", "prompt"}, {"exclude"})
        if raw["tag"] not in TASKS:
            raise ValueError(f"tag {raw['tag']!r}; allowed are {', '.join(TASKS)}")
        if not raw["include"]:
            raise ValueError("'include' is empty")
        if not isinstance(raw["prompt"], str):
            raise ValueError(f"prompt {raw['prompt']!r} is no text")
        return Metadata(
            task=raw["tag"],
            prompt=raw["prompt"],
            include=tuple(_clause(clause, earlier) for earlier, clause in enumerate(raw["include"])),
            exclude=tuple(_bare(clause) for clause in raw.get("exclude", ())),
        )
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{where}: not a line of GenEval's metadata ({error}); use evaluation_metadata.jsonl of djghosh13/geneval"
        ) from error


def dump(metadata: Metadata) -> str:
    """The line that `parse` reads, byte for byte the official one."""
    out: dict[str, Any] = {"tag": metadata.task, "include": [_raw(clause) for clause in metadata.include]}
    if metadata.exclude:
        out["exclude"] = [_raw(clause) for clause in metadata.exclude]
    return json.dumps({**out, "prompt": metadata.prompt})


def prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts of an evaluation_metadata.jsonl, each with its task and its line as tags; UserError naming a bad
    line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); give the evaluation_metadata.jsonl of GenEval") from error
    asked = [parse(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not asked:
        raise UserError(f"{path} holds no prompt; give the evaluation_metadata.jsonl of GenEval")
    return tuple(
        Prompt(id=f"{TAG}/{number:05d}", text=one.prompt, tags={"task": one.task, TAG: dump(one)})
        for number, one in enumerate(asked)
    )


def _clause(raw: Any, earlier: int) -> Clause:
    """`earlier` counts the include clauses before this one, the only ones that it can be placed to."""
    _keys(raw, {"class", "count"}, {"color", "position"})
    bare = _bare({key: raw[key] for key in ("class", "count")})
    colour, place = raw.get("color"), None
    if colour is not None and colour not in COLORS:
        raise ValueError(f"color {colour!r}; allowed are {', '.join(COLORS)}")
    if "position" in raw:
        relation, group = raw["position"]
        if relation not in RELATIONS:
            raise ValueError(f"position {relation!r}; allowed are {', '.join(RELATIONS)}")
        if type(group) is not int or not 0 <= group < earlier:
            raise ValueError(f"position to clause {group!r} from clause {earlier}; it must be an earlier one")
        place = Place(relation=relation, group=group)
    return Clause(name=bare.name, count=bare.count, colour=colour, place=place)


def _bare(raw: Any) -> Clause:
    _keys(raw, {"class", "count"}, set())
    name, count = raw["class"], raw["count"]
    if not isinstance(name, str) or type(count) is not int or count < 1:
        raise ValueError(f"class {name!r} with count {count!r}; a clause has a name and a count from 1")
    return Clause(name=name, count=count)


def _keys(raw: Any, needed: set[str], allowed: set[str]) -> None:
    if not isinstance(raw, Mapping):
        raise ValueError(f"{raw!r} is no object")
    if missing := needed - raw.keys():
        raise ValueError(f"'{min(missing)}' is missing in {dict(raw)}")
    if unknown := raw.keys() - needed - allowed:
        raise ValueError(f"unknown key '{min(unknown)}' in {dict(raw)}")


def _raw(clause: Clause) -> dict[str, Any]:
    out: dict[str, Any] = {"class": clause.name, "count": clause.count}
    if clause.colour is not None:
        out["color"] = clause.colour
    if clause.place is not None:
        out["position"] = [clause.place.relation, clause.place.group]
    return out
