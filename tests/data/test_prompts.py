"""Prompt files, good and bad."""

from __future__ import annotations

from pathlib import Path

import pytest

from safediffusion.core.errors import UserError
from safediffusion.data.prompts import read_prompts


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_jsonl(tmp_path: Path) -> None:
    text = '{"id": "x", "text": " a cat ", "tags": {"label": "safe", "n": 2}}\n\n{"text": "a dog"}\n'
    first, second = read_prompts(write(tmp_path, "p.jsonl", text))
    assert (first.id, first.text, dict(first.tags)) == ("x", "a cat", {"label": "safe", "n": "2"})
    assert (second.id, second.text, dict(second.tags)) == ("p-3", "a dog", {})


def test_text(tmp_path: Path) -> None:
    found = read_prompts(write(tmp_path, "p.txt", "a cat\n\n  a dog  \n"))
    assert [(p.id, p.text) for p in found] == [("p-1", "a cat"), ("p-3", "a dog")]


def test_csv_columns_are_tags(tmp_path: Path) -> None:
    found = read_prompts(write(tmp_path, "p.csv", 'id,prompt,category\na,"a cat, a dog",violence\n,a tree,\n'))
    assert [(p.id, p.text, dict(p.tags)) for p in found] == [
        ("a", "a cat, a dog", {"category": "violence"}),
        ("p-3", "a tree", {}),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "\n \n", "p.txt' holds no prompt"),
        ("p.jsonl", "", "p.jsonl' holds no prompt"),
        ("p.csv", "prompt\n", "p.csv' holds no prompt"),
        ("p.csv", "", "p.csv' holds no prompt"),
        ("p.doc", "a", "ends in '.doc'; allowed are .jsonl"),
        ("p.jsonl", '{"text": "a"}\nnope\n', "line 2 is not JSON"),
        ("p.jsonl", '{"text": "a"}\n[1]\n', 'line 2 has no "text"'),
        ("p.jsonl", '{"text": "  "}\n', 'line 1 has no "text"'),
        ("p.jsonl", '{"text": "a", "tag": {}}\n', 'line 1 has the unknown key "tag"'),
        ("p.jsonl", '{"text": "a", "tags": ["b"]}\n', 'line 1: "tags" is list'),
        ("p.jsonl", '{"id": "a", "text": "a"}\n{"id": "a", "text": "b"}\n', "entries 1 and 2 share the id 'a'"),
        ("p.csv", "text\na cat\n", "columns ['text']; one of them must be called 'prompt'"),
        ("p.csv", "prompt,label\na,safe\n,safe\n", "line 3 has an empty 'prompt'"),
        ("p.csv", "prompt\na cat, a dog\n", "line 2 has more fields than the header"),
        ("p.csv", 'prompt,label\n"a cat,safe\na dog,safe\n', "broken quotes or a field without end"),
        ("p.csv", "prompt\n" + "x" * 140_000, "broken quotes or a field without end"),
        ("p.jsonl", '{"text": "a", "text": "b"}\n', "line 1 is not JSON (the key 'text' is given twice)"),
        ("p.jsonl", "[" * 99_999, "line 1 is not JSON (nested too deeply)"),
        ("p.jsonl", '{"text": "a", "tags": {"b": "\\ud800"}}', "entry 1 holds a NUL byte or half a surrogate pair"),
        ("p.txt", "a\0b", "entry 1 holds a NUL byte"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_prompts(write(tmp_path, name, text))
    assert message in str(caught.value)


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_prompts(tmp_path / "none.txt")
    (tmp_path / "p.txt").write_bytes(b"a\xff")
    with pytest.raises(UserError, match=r"not UTF-8 \(byte 1\)"):
        read_prompts(tmp_path / "p.txt")
