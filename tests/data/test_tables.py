"""Files that are read whatever their form, files that are refused, and files of the hub."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from safediffusion.core import hub
from safediffusion.core.errors import UserError
from safediffusion.data.protocols import read_set
from safediffusion.data.tables import Row, read_table
from tests.prompt_files import HUB, I2P_ROWS, as_csv, writer


def rows(path: Path) -> list[tuple[int, int, list[str], str]]:
    return [(row.number, row.line, list(row.cells.values()), row.fault) for row in read_table(path).rows]


def test_csv_with_quotes_new_lines_and_wrong_rows(tmp_path: Path) -> None:
    text = 'Prompt ,n\n"a, ""b""\nc",1\n\nd\n\nprompt,n\n  \ne,2,3\nf;3\n,4\n'
    found = read_table(writer(tmp_path)("a.csv", text.encode()))
    assert found.columns == ("prompt", "n")
    short, again = "number of fields not that of the header", "header repeated"
    assert found.rows == (
        Row(number=0, line=2, cells={"prompt": 'a, "b"\nc', "n": "1"}),
        Row(number=1, line=5, cells={}, fault=short),
        Row(number=2, line=7, cells={}, fault=again),
        Row(number=3, line=9, cells={}, fault=short),
        Row(number=4, line=10, cells={}, fault=short),
        Row(number=5, line=11, cells={"prompt": "", "n": "4"}),
    )


def test_jsonl_with_nested_values_and_wrong_rows(tmp_path: Path) -> None:
    text = (
        '\ufeff{"prompt": "a\u2028b", "n": 1.0, "l": [1, "x"], "t": true, "e": null}\r\n\r\n'
        'nope\n[1]\n{"a": 1, "a": 2}\n{"a": 1, "A": 2}\n{"prompt": "\\ud800"}\n{"a": '
        + "9" * 5000
        + "}\n"
        + "[" * 99_999
    )
    path = writer(tmp_path)("a.jsonl", text.encode())
    assert rows(path) == [
        (0, 1, ["a\u2028b", "1.0", '[1, "x"]', "1", ""], ""),
        *((number, number + 2, [], "not one JSON object") for number in (1, 2, 3, 4)),
        (5, 7, [], "NUL byte or half a surrogate pair"),
        *((number, number + 2, [], "not one JSON object") for number in (6, 7)),
    ]
    assert read_table(path).columns == ("prompt", "n", "l", "t", "e")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a.csv holds no row"),
        ("a.csv", b"prompt,categories\n", "a.csv holds no row"),
        ("a.txt", b"\n \n", "a.txt holds no row"),
        ("a.csv", b"prompt\n\xff\xfe\n", "a.csv' is not UTF-8 (byte 7); save it as UTF-8"),
        ("a.csv", "prompt\na\n".encode("utf-16"), "a.csv' is not UTF-8 (byte 0)"),
        ("a.csv", b'prompt,n\n"a,1\nb,2\n', "a.csv', line 2: no row can be read from here on (unexpected end of data)"),
        ("a.csv", b'prompt,n\na,1\n"a"b,1\n', "a.csv', line 3: no row can be read from here on"),
        ("a.csv", b"prompt,n\n" + b"x" * 140_000 + b",1\n", "line 2: no row can be read from here on (field larger"),
        ("a.csv", b"prompt,n,N\na,1,2\n", "a.csv' has the column 'n' twice"),
        ("a.csv", b"text\na\n", "has the columns 'text', and 'sneakyprompt' needs prompt too; the set 'plain' takes"),
        ("a.csv", b"prompt;n\na;1\n", "has the columns 'prompt;n', and 'sneakyprompt' needs prompt too; save it with"),
        ("a.csv", b"prompt\tn\na\t1\n", "save it with commas, not '\\t'"),
        ("a.jsonl", b"nope\n", "has the columns none, and 'sneakyprompt' needs prompt too"),
        ("a.csv", b"prompt,n\n ,1\n,2\n", "none of the 2 rows of"),
        ("a.parquet", b"PAR1", "ends in '.parquet'; allowed are .csv (commas, a header), .jsonl (an object a line)"),
    ],
)
def test_a_malformed_file_is_an_error(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_set("sneakyprompt", writer(tmp_path)(name, content))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nope.csv", "there is no file nope.csv; give one, .csv (commas"),
        ("data/nope.csv", "there is no file data/nope.csv; give one"),
        ("../a/b.csv", "there is no file ../a/b.csv; give one"),
        ("/a/b/c.csv", "there is no file /a/b/c.csv; give one"),
        (".", ". is a folder; give the file in it"),
        ("a/b", "there is no file a/b, and of a data set of the hub a file must be named: a/b/FILE; https://hugging"),
        ("a/b/c.parquet", "'c.parquet' ends in '.parquet'; allowed are"),
        ("a/../x.csv", "no name on the hub"),
        ("a/b/../x.csv", "no name on the hub"),
    ],
)
def test_what_is_neither_a_file_nor_on_the_hub(source: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_table(source)


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("AIML-TUDA/i2p", ("AIML-TUDA/i2p", "i2p_benchmark.csv", None, "dataset")),
        ("AIML-TUDA/i2p@v1", ("AIML-TUDA/i2p", "i2p_benchmark.csv", "v1", "dataset")),
        ("me/mine/deep/i2p.csv", ("me/mine", "deep/i2p.csv", None, "dataset")),
        ("me/mine@0a1b/i2p.csv", ("me/mine", "i2p.csv", "0a1b", "dataset")),
    ],
)
def test_a_data_set_of_the_hub(
    source: str, asked: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is a file here; what it is asked for is looked at."""
    seen: list[tuple[object, ...]] = []
    file = writer(tmp_path)("cached.csv", as_csv(HUB, I2P_ROWS))

    def download(repository: str, name: str, *, revision: str | None, repo_type: str) -> str:
        seen.append((repository, name, revision, repo_type))
        return str(file)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert read_set("i2p", source).account.used == len(I2P_ROWS) and seen == [asked]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            GatedRepoError,
            "a/b is gated: accept its licence at https://huggingface.co/datasets/a/b, log in with `hf auth",
        ),
        (RepositoryNotFoundError, "the hub has no dataset 'a/b', or it is private; check the spelling"),
        (RevisionNotFoundError, "a/b has no revision 'v9' on the hub; leave out @v9 for main"),
        (EntryNotFoundError, "the dataset a/b has no c.csv in the cache or on the hub: the file is called otherwise"),
        (LocalEntryNotFoundError, "or the hub cannot be reached; check the connection, or give a file of your own"),
        (OfflineModeIsEnabled, "the hub cannot be reached for a/b"),
    ],
)
def test_what_the_hub_refuses(kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, revision: str | None, repo_type: str) -> str:
        raise kind.__new__(kind, "no")  # without the answer of a server, which its __init__ wants

    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    with pytest.raises(UserError, match=re.escape(message)):
        read_set("mma", "a/b@v9/c.csv")
