"""Prompt files: JSONL, one prompt a line, or CSV. No torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt

from .tables import UNUSABLE, decoded, lines, strict_json

FORMATS = (
    '.jsonl ({"id", "text", "tags"} a line), .txt (one prompt a line) or .csv (a column "prompt", the others are tags)'
)


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a file, in its order. Blank lines are skipped; an `id` that is not given is `<file>-<line>`.

    UserError names the line of a bad entry. An empty file is an error: prompts that run out must never pass unseen.
    """
    readers = {".jsonl": _from_jsonl, ".txt": _from_text, ".csv": _from_csv}
    if path.suffix not in readers:
        raise UserError(f"prompt file '{path}' ends in '{path.suffix}'; allowed are {FORMATS}")
    if not path.is_file():
        raise UserError(f"prompt file '{path}' does not exist; give a file in one of the formats {FORMATS}")
    try:
        prompts = tuple(readers[path.suffix](path))
    except csv.Error as error:
        raise UserError(
            f"prompt file '{path}' has broken quotes or a field without end ({error}); quote prompts that contain a "
            'comma or a quote, and write a quote inside as ""'
        ) from error
    if not prompts:
        raise UserError(f"prompt file '{path}' holds no prompt; write at least one line")
    seen: dict[str, int] = {}
    for position, prompt in enumerate(prompts, 1):
        if prompt.id in seen:
            raise UserError(
                f"prompt file '{path}': entries {seen[prompt.id]} and {position} share the id '{prompt.id}'; ids must "
                "differ"
            )
        seen[prompt.id] = position
        if UNUSABLE.search("".join((prompt.id, prompt.text, *prompt.tags, *prompt.tags.values()))):
            raise UserError(
                f"prompt file '{path}': entry {position} holds a NUL byte or half a surrogate pair; remove it"
            )
    return prompts


def _from_text(path: Path) -> Iterator[Prompt]:
    return (Prompt(id=f"{path.stem}-{number}", text=line, tags={}) for number, line in lines(decoded(path)))


def _from_jsonl(path: Path) -> Iterator[Prompt]:
    for number, line in lines(decoded(path)):
        where = f"prompt file '{path}', line {number}"
        try:
            entry = strict_json(line)
        except ValueError as error:
            raise UserError(
                f'{where} is not JSON ({error}); each line is an object like {{"id": "a", "text": "a cat"}}'
            ) from error
        if not isinstance(entry, dict) or not isinstance(entry.get("text"), str) or not entry["text"].strip():
            raise UserError(f'{where} has no "text"; each line is an object like {{"id": "a", "text": "a cat"}}')
        tags = entry.get("tags", {})
        if not isinstance(tags, dict):
            raise UserError(f'{where}: "tags" is {type(tags).__name__}; it must be an object of names and values')
        unknown = sorted(entry.keys() - {"id", "text", "tags"})
        if unknown:
            raise UserError(f'{where} has the unknown key "{unknown[0]}"; allowed are "id", "text" and "tags"')
        yield Prompt(
            id=str(entry.get("id", f"{path.stem}-{number}")),
            text=entry["text"].strip(),
            tags={k: str(v) for k, v in tags.items()},
        )


def _from_csv(path: Path) -> Iterator[Prompt]:
    reader = csv.DictReader(io.StringIO(decoded(path), newline=""), strict=True)
    if reader.fieldnames is None:
        return
    if "prompt" not in reader.fieldnames:
        raise UserError(
            f"prompt file '{path}' has the columns {list(reader.fieldnames)}; one of them must be called 'prompt'"
        )
    for row in reader:
        where = f"prompt file '{path}', line {reader.line_num}"
        text = row["prompt"]
        if text is None or not text.strip():
            raise UserError(f"{where} has an empty 'prompt'; remove the line or fill it in")
        if None in row:
            raise UserError(f"{where} has more fields than the header; quote prompts that contain a comma")
        tags = {k: v for k, v in row.items() if k not in ("prompt", "id") and v}
        yield Prompt(id=row.get("id") or f"{path.stem}-{reader.line_num}", text=text.strip(), tags=tags)
