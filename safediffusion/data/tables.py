"""One reader of tables: CSV, JSONL or one text a line, in a file of the user's or a data set of the hub. No torch.

What a cell means is `fields.py`'s matter, what a row means `protocols.py`'s.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safediffusion.core.errors import UserError
from safediffusion.core.hub import fetch

ALLOWED = ".csv (commas, a header), .jsonl (an object a line) or .txt (a prompt a line), in UTF-8"
HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?", re.ASCII)
MAIN_FILES = {"AIML-TUDA/i2p": "i2p_benchmark.csv"}  # what a data set means when no file is named
UNUSABLE = re.compile(
    "[\0\ud800-\udfff]"
)  # NUL, and halves of surrogate pairs that JSON can escape: no text holds them


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: `number` counts the rows of the table from 0, `line` those of its file from 1.

    `fault` says why its cells could not be read and is "" if they were. A nested JSON value is its JSON text.
    """

    number: int
    line: int
    cells: Mapping[str, str]
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under the names of their columns, which are lower case and stripped."""

    source: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_table(source: Path | str) -> Table:
    """The table in a file, or in OWNER/NAME[@REVISION][/FILE] on the hub. Blank lines are no rows.

    A row that cannot be read has a `fault`; UserError when the whole file cannot be, or holds no row.
    """
    path = locate(source)
    text = decoded(path)
    columns, rows = _CONTENT[path.suffix.lower()](text, str(source))
    if not rows:
        raise UserError(f"{source} holds no row; give a file with at least one prompt")
    return Table(source=str(source), columns=columns, rows=tuple(rows))


def locate(source: Path | str) -> Path:
    """The file itself, or the copy in the cache of one on the hub, which is downloaded if need be."""
    path, found = Path(source), HUB_ID.fullmatch(str(source))
    if path.is_file():
        return _of_a_known_kind(path)
    if path.is_dir():
        raise UserError(f"{source} is a folder; give the file in it, {ALLOWED}")
    if found is None or found["name"].startswith((".", "/")) or not found["file"] and path.suffix.lower() in _CONTENT:
        raise UserError(f"there is no file {source}; give one, {ALLOWED}, or OWNER/NAME/FILE of a data set of the hub")
    name, file = found["name"], found["file"] or MAIN_FILES.get(found["name"])
    if file is None:
        raise UserError(
            f"there is no file {source}, and of a data set of the hub a file must be named: {source}/FILE; "
            f"https://huggingface.co/datasets/{name}/tree/main lists them"
        )
    _of_a_known_kind(Path(file))
    return fetch(
        name,
        file,
        revision=found["revision"],
        kind="dataset",
        absent="the file is called otherwise",
        instead=f"or give a file of your own ({source} is none)",
    )


def _of_a_known_kind(path: Path) -> Path:
    if path.suffix.lower() not in _CONTENT:
        raise UserError(f"'{path}' ends in '{path.suffix}'; allowed are {ALLOWED}. Save it as one of these")
    return path


def decoded(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark, its line ends all "\\n"."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}); check its permissions") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Number and content of the lines that are not blank; only "\\n" ends a line, as JSONL wants it."""
    return ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def csv_rows(text: str, source: str) -> Iterator[tuple[int, list[str]]]:
    """First line and fields of every row, the header too. UserError where quotes are broken or a field never ends."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    last = 0
    try:
        for fields in reader:
            first, last = last + 1, reader.line_num
            if len(fields) > 1 or fields and fields[0].strip():
                yield first, fields
    except csv.Error as error:
        raise UserError(
            f"'{source}', line {last + 1}: no row can be read from here on ({error}); quote a field that holds a "
            'comma, a quote or a new line, and write a quote inside it as ""'
        ) from error


def strict_json(text: str) -> Any:
    """The value of a JSON text; ValueError also for keys that are given twice and for what is nested too deeply."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"the key '{name}' is given twice")
        made[name] = value
    return made


def _from_csv(text: str, source: str) -> tuple[tuple[str, ...], list[Row]]:
    content = csv_rows(text, source)
    columns = _names(next(content, (0, []))[1])
    twice = [name for name, count in Counter(columns).items() if name and count > 1]
    if twice:
        raise UserError(f"'{source}' has the column '{twice[0][:40]}' twice; remove one")
    rows = []
    for number, (line, fields) in enumerate(content):
        fault = ""
        if _names(fields) == columns:
            fault = "header repeated"
        elif len(fields) != len(columns):
            fault = "number of fields not that of the header"
        cells = {} if fault else dict(zip(columns, fields, strict=True))
        rows.append(_row(number, line, cells, fault))
    return columns, rows


def _from_jsonl(text: str, _: str) -> tuple[tuple[str, ...], list[Row]]:
    rows = []
    for number, (line, content) in enumerate(lines(text)):
        try:
            found = strict_json(content)
            cells = _once((name.strip().lower(), _cell(value)) for name, value in found.items())
            rows.append(_row(number, line, cells, ""))
        except (ValueError, AttributeError):
            rows.append(_row(number, line, {}, "not one JSON object"))
    return tuple(dict.fromkeys(name for row in rows for name in row.cells)), rows


def _from_text(text: str, _: str) -> tuple[tuple[str, ...], list[Row]]:
    return ("prompt",), [
        _row(number, line, {"prompt": content}, "") for number, (line, content) in enumerate(lines(text))
    ]


_CONTENT = {".csv": _from_csv, ".jsonl": _from_jsonl, ".txt": _from_text}


def _names(fields: Iterable[str]) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in fields)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(int(value))
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _row(number: int, line: int, cells: Mapping[str, str], fault: str) -> Row:
    if not fault and UNUSABLE.search("".join((*cells, *cells.values()))):
        cells, fault = {}, "NUL byte or half a surrogate pair"
    return Row(number=number, line=line, cells=cells, fault=fault)
