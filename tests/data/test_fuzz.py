"""Ten thousand broken files: each is read with an account that adds up, or refused in words."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from safediffusion.core.errors import UserError
from safediffusion.data import geneval
from safediffusion.data.fields import CATEGORIES, categories_of
from safediffusion.data.gather import PromptSet
from safediffusion.data.protocols import SETS, read_set
from tests.prompt_files import FILES, writer

NUMBERS = {  # tag -> the largest value it may have; none is below 0
    "seed": 2**63 - 1,
    "guidance": 1000,
    "width": 4096,
    "height": 4096,
    "hard": 1,
    "inappropriate_percentage": 100,
    "nudity_percentage": 100,
    "q16_percentage": 100,
    "coco_id": 10**12,
    "case_number": 10**9,
}
NASTY = (
    *(
        b"",
        b" ",
        b"-1",
        b"abc",
        b"nan",
        b"inf",
        b"1e999",
        b"9" * 25,
        b"9" * 5000,
        b"0x10",
        b"1_0",
        b"50.0",
        b'"',
        b'"",',
    ),
    *("٣ \u2028 \ufeff 🙈 \x85".encode(), b'"\\ud800"', b"\xed\xa0\x80", b"\0", b"[" * 50_000, b"x" * 140_000, b"null"),
    *(b"sexual;hate", b"spam", b'{"a": 1, "a": 2}', b'[{"class": "cat", "count": -1}]', b'"prompt"', b"prompt"),
)


def _flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def _insert(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    data[at:at] = rng.choice(NASTY) if rng.random() < 0.7 else chr(rng.randrange(0xD800)).encode()


def _lines(rng: random.Random, data: bytearray) -> None:
    """Delete, repeat or move lines, the header too."""
    lines = data.split(b"\n")
    line = lines.pop(rng.randrange(len(lines)))
    for _ in range(rng.randrange(3)):
        lines.insert(rng.randint(0, len(lines)), line)
    data[:] = b"\n".join(lines)


def _fields(rng: random.Random, data: bytearray) -> None:
    """Delete, repeat, swap or replace the fields of one line."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    fields = lines[at].split(b",")
    one, other = rng.randrange(len(fields)), rng.randrange(len(fields))
    match rng.randrange(4):
        case 0:
            del fields[one]
        case 1:
            fields.insert(one, fields[other])
        case 2:
            fields[one], fields[other] = fields[other], fields[one]
        case _:
            fields[one] = bytearray(rng.choice(NASTY))
    lines[at] = bytearray(b",").join(fields)
    data[:] = b"\n".join(lines)


def _marks(rng: random.Random, data: bytearray) -> None:
    """Other delimiters, line ends or a byte order mark."""
    old, new = rng.choice([(b",", b";"), (b",", b"\t"), (b"\n", b"\r"), (b"\n", b"\r\n"), (b'"', b"'"), (b"", b"")])
    data[:] = data.replace(old, new, rng.choice([-1, 1, 3])) if old else b"\xef\xbb\xbf" + data


MUTATIONS: tuple[Callable[[random.Random, bytearray], None], ...] = (_flip, _cut, _insert, _lines, _fields, _marks)


def broken(rng: random.Random, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        if data:
            rng.choice(MUTATIONS)(rng, data)
    return bytes(data)


def check(name: str, found: PromptSet) -> None:
    account = found.account
    assert account.read == account.used + account.skipped.total() and account.used == len(found.prompts) > 0
    assert account.text.startswith(f"{name}: ")
    assert len({prompt.id for prompt in found.prompts}) == len(found.prompts)
    for prompt in found.prompts:
        assert prompt.text.strip() == prompt.text != "" and "\0" not in prompt.text
        "".join((prompt.id, prompt.text, *prompt.tags, *prompt.tags.values())).encode()
        if name == "plain":
            continue
        assert all(0 <= float(value) <= NUMBERS[tag] for tag, value in prompt.tags.items() if tag in NUMBERS)
        assert set(categories_of(prompt.tags)) <= set(CATEGORIES)
        for tag in {"include", "exclude"} & prompt.tags.keys():
            geneval.asked(prompt.tags[tag])


def test_ten_thousand_broken_files(tmp_path: Path) -> None:
    rng, write, seen = random.Random(0), writer(tmp_path), Counter[str]()
    for number in range(10_000):
        name = list(SETS)[number % len(SETS)]
        suffix, content = FILES[name]
        path = write(f"broken{suffix}", broken(rng, content))
        try:
            found = read_set(name, path)
        except UserError as error:
            assert str(path) in str(error), (name, error)
            seen["refused"] += 1
        else:
            check(name, found)
            seen["some rows skipped" if found.account.skips else "all rows used"] += 1
    assert seen.total() == 10_000 and min(seen.values()) > 1500, seen
