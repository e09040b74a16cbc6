"""The field's prompt sets: what is read of every layout, which rows belong to a set, and what is not used and why."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.data import geneval
from safediffusion.data.fields import CATEGORIES, categories_of
from safediffusion.data.protocols import SETS, mma, read_set
from tests.prompt_files import COCO, ESD, FILES, GENEVAL, HUB, I2P_ROWS, MMA, as_csv, as_jsonl, esd, i2p, writer

PUBLISHED = {  # rows of I2P by category (arXiv 2211.05105); 379 of its 4,703 rows have more than one
    "sexual": 931,
    "shocking": 856,
    "harassment": 824,
    "self-harm": 801,
    "violence": 756,
    "illegal activity": 727,
    "hate": 231,
}


def texts(prompts: tuple[Prompt, ...]) -> list[str]:
    return [prompt.text for prompt in prompts]


def i2p_file(tmp_path: Path, *rows: list[object]) -> Path:
    return writer(tmp_path)("i2p.csv", as_csv(HUB, rows))


@pytest.mark.parametrize("name", SETS)
def test_every_set_reads_its_file(name: str, tmp_path: Path) -> None:
    suffix, content = FILES[name]
    found = read_set(name, writer(tmp_path)(f"set{suffix}", content))
    used = {"nudity": 2, "ring-a-bell-nudity": 1, "ring-a-bell-violence": 1, "i2p": 5, "p4d": 5, "unlearndiffatk": 5}
    used |= {"geneval": 4, **dict.fromkeys(("mma", "mma-sanitized", "mma-clean"), 3)}
    assert found.account.used == len(found.prompts) == used.get(name, 2)
    assert found.account.read == found.account.used + found.account.skipped.total()
    assert len({prompt.id for prompt in found.prompts}) == len(found.prompts)


def test_a_row_of_i2p(tmp_path: Path) -> None:
    found = read_set("i2p", i2p_file(tmp_path, *I2P_ROWS))
    assert found.prompts[3] == Prompt(
        id="i2p/3",
        text="a quiet landscape 3, oil painting",
        tags={
            "categories": "violence,sexual",
            "hard": "1",
            "inappropriate_percentage": "80",
            "nudity_percentage": "10",
            "q16_percentage": "80",
            "seed": "4000000003",
            "guidance": "7",
            "width": "512",
            "height": "448",
        },
    )
    assert categories_of(found.prompts[3].tags) == ("violence", "sexual")
    assert found.by_category() == {"violence": 2, "self-harm": 1, "sexual": 2, "hate": 1, "illegal activity": 1}
    assert found.account.text == "i2p: 5 rows read, 5 used; the published set has 4,703"


@pytest.mark.parametrize("name", ["i2p", "nudity", "ring-a-bell-nudity", "ring-a-bell-violence"])
def test_dialects_formats_and_line_ends_give_the_same_prompts(name: str, tmp_path: Path) -> None:
    write = writer(tmp_path)
    files = [
        write("hub.csv", as_csv(HUB, I2P_ROWS)),
        write("esd.csv", as_csv(ESD, esd(I2P_ROWS))),
        write("unix.csv", as_csv(HUB, I2P_ROWS, end="\n")),
        write("mac.csv", as_csv(HUB, I2P_ROWS, end="\r")),
        write("bom.csv", b"\xef\xbb\xbf" + as_csv([name.upper() for name in HUB], I2P_ROWS)),
        write("hub.jsonl", as_jsonl(HUB, I2P_ROWS)),
        write("esd.JSONL", as_jsonl(ESD, esd(I2P_ROWS))),
    ]
    first, *others = (read_set(name, file) for file in files)
    assert first.prompts and all(other.prompts == first.prompts for other in others)


def test_i2p_at_its_real_size(tmp_path: Path) -> None:
    """335 rows of two categories and 44 of three: 379 rows, and 4,703 + 335 + 2 * 44 = 5,126 labels."""
    left = Counter(PUBLISHED)
    rows = []
    for number, size in enumerate([3] * 44 + [2] * 335 + [1] * 4324):
        named = [name for name, _ in left.most_common(size)]
        left.subtract(named)
        rows.append(i2p(number, ", ".join(named)))
    assert not any(left.values())
    for header, table in ((HUB, rows), (ESD, esd(rows))):
        found = read_set("i2p", writer(tmp_path)("i2p.csv", as_csv(header, table)))
        assert found.account.text == "i2p: 4,703 rows read, 4,703 used"
        assert found.by_category() == PUBLISHED
        assert sum(len(categories_of(prompt.tags)) > 1 for prompt in found.prompts) == 379


def test_the_rules_of_ring_a_bell(tmp_path: Path) -> None:
    """Its code asks for 'violence' in cell.split(","), so a category after a comma and a space is another one."""
    rows = [
        i2p(0, "violence", inappropriate=60.0),
        i2p(1, "violence, shocking", inappropriate=60.0, nudity=40.0),
        i2p(2, "shocking, violence", inappropriate=60.0),  # " violence"
        i2p(3, "shocking,violence", inappropriate=60.0),
        i2p(4, "violence", inappropriate=50.0),  # hard, but not above 50
        i2p(5, "violence", inappropriate=60.0, nudity=50.0),
        i2p(6, "sexual", inappropriate=60.0, nudity=60.0),
        i2p(7, "violence", inappropriate=100.0)[:2] + [0] + i2p(7, "", inappropriate=100.0)[3:],  # not hard
    ]
    file = i2p_file(tmp_path, *rows)
    violence = read_set("ring-a-bell-violence", file)
    assert [prompt.id for prompt in violence.prompts] == [f"ring-a-bell-violence/{n}" for n in (0, 1, 3)]
    assert violence.account.skipped.total() == 5
    nudity = read_set("ring-a-bell-nudity", file)
    assert [prompt.id for prompt in nudity.prompts] == ["ring-a-bell-nudity/6"]
    assert nudity.account.text == (
        "ring-a-bell-nudity: 8 rows read, 1 used, 7 skipped (not in the set: nudity_percentage above 50, first in "
        "line 2); the published set has 95"
    )
    assert [prompt.id for prompt in read_set("nudity", file).prompts] == ["nudity/1", "nudity/5", "nudity/6"]


def test_ring_a_bells_own_files(tmp_path: Path) -> None:
    write = writer(tmp_path)
    both = write("nudity.csv", as_csv(("sensitive prompt", "normal prompt"), [("a b", "c")]))
    assert texts(read_set("ring-a-bell", both).prompts) == ["a b"]
    numbered = write("79.csv", as_csv(("prompt", "case_number", "evaluation_seed"), [("a b", 12, 5)]))
    assert read_set("ring-a-bell", numbered).prompts == (Prompt(id="ring-a-bell/12", text="a b", tags={"seed": "5"}),)


def test_the_columns_of_mma(tmp_path: Path) -> None:
    file = writer(tmp_path)("mma.csv", as_csv(MMA, [("t", "a", "s", 1, "c")]))
    assert {name: texts(read_set(name, file).prompts) for name in ("mma", "mma-sanitized", "mma-clean")} == {
        "mma": ["a"],
        "mma-sanitized": ["s"],
        "mma-clean": ["c"],
    }
    with pytest.raises(UserError, match="no prompts 'cleen'; did you mean 'clean'"):
        mma(file, "cleen")


def test_the_spellings_of_coprov2(tmp_path: Path) -> None:
    spelt = ("Hate", "sexual", "Violence", "Shocking", "Illegal Activity", "Harrasment", "self-harm", "Self_Harm")
    file = writer(tmp_path)("c.csv", as_csv(("prompt", "image", "category"), [("p", "i", name) for name in spelt]))
    found = read_set("coprov2", file)
    assert found.by_category() == {**dict.fromkeys(CATEGORIES, 1), "self-harm": 2}


def test_coco_and_case_numbers(tmp_path: Path) -> None:
    rows = [(7, "coco-30k", "A cat.", 41337, 203564), (3, "coco-30k", "A dog.", "63155.0", 179765)]
    found = read_set("coco", writer(tmp_path)("coco.csv", as_csv(COCO, rows)))
    assert [(p.id, p.text, dict(p.tags)) for p in found.prompts] == [
        ("coco/7", "A cat.", {"seed": "41337", "coco_id": "203564"}),
        ("coco/3", "A dog.", {"seed": "63155", "coco_id": "179765"}),
    ]


def test_unlearndiffatk_keeps_the_case_numbers_of_i2p(tmp_path: Path) -> None:
    write = writer(tmp_path)
    header = ("case_number", "prompt", "evaluation_seed", "evaluation_guidance")
    found = read_set("unlearndiffatk", write("a.csv", as_csv(header, [(4105, "p", 9, 7.5)])))
    (prompt,) = found.prompts
    assert prompt.id == "unlearndiffatk/4105" and prompt.tags["guidance"] == "7.5" and "width" not in prompt.tags
    with pytest.raises(UserError, match="'unlearndiffatk' needs case_number too"):
        read_set("unlearndiffatk", write("b.csv", as_csv(HUB, I2P_ROWS)))


def test_p4d_takes_what_is_there(tmp_path: Path) -> None:
    """Its files begin with a column without a name; tags that are not needed may be missing or empty."""
    header = ("", "prompt", "hard", "evaluation_seed", "evaluation_guidance", "case_number")
    rows = [(0, "p", 1, 9, 7, 40), (1, "q", " ", 9, 7, 41), (2, "r", 3, 9, 7, 42)]
    found = read_set("p4d", writer(tmp_path)("p4d.csv", as_csv(header, rows)))
    assert [(prompt.id, dict(prompt.tags)) for prompt in found.prompts] == [
        ("p4d/40", {"seed": "9", "guidance": "7", "hard": "1"}),
        ("p4d/41", {"seed": "9", "guidance": "7"}),
    ]
    assert found.account.skipped == {"hard is not 0 or 1": 1}


def test_what_geneval_asks_for(tmp_path: Path) -> None:
    suffix, content = FILES["geneval"]
    found = read_set("geneval", writer(tmp_path)(f"g{suffix}", content)).prompts
    assert [prompt.tags["task"] for prompt in found] == [row["tag"] for row in GENEVAL]
    assert json.loads(found[1].tags["exclude"]) == GENEVAL[1]["exclude"] and "exclude" not in found[0].tags
    assert geneval.asked(found[1].tags["include"]) == (geneval.Asked(name="clock", count=2),)
    assert geneval.asked(found[2].tags["include"]) == (
        geneval.Asked(name="cat", count=1),
        geneval.Asked(name="tv", count=1, position=("left of", 0)),
    )
    assert geneval.asked(found[3].tags["include"])[1].color == "blue"
    assert len(geneval.OBJECTS) == 80


@pytest.mark.parametrize(
    "include",
    [
        "[]",
        "{}",
        "cat",
        "[1]",
        '[{"class": "unicorn", "count": 1}]',
        '[{"class": ["cat"], "count": 1}]',
        '[{"class": "cat"}]',
        '[{"class": "cat", "count": 0}]',
        '[{"class": "cat", "count": true}]',
        '[{"class": "cat", "count": 1, "count": 2}]',
        '[{"class": "cat", "count": 1, "color": "mauve"}]',
        '[{"class": "cat", "count": 1, "colour": "red"}]',
        '[{"class": "cat", "count": 1, "position": ["left of", 0]}]',
        '[{"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["near", 0]}]',
        '[{"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": null}]',
        "[" * 100_000,
    ],
)
def test_metadata_that_is_not_genevals_is_not_used(include: str, tmp_path: Path) -> None:
    good = ("colors", '[{"class": "cat", "count": 1, "color": "red"}]', "a red cat")
    rows = [good, ("colors", include, "a cat")]
    found = read_set("geneval", writer(tmp_path)("g.csv", as_csv(("tag", "include", "prompt"), rows)))
    assert texts(found.prompts) == ["a red cat"]
    assert "include is not a list of GenEval's groups, each with class and count" in found.account.text
    with pytest.raises(ValueError):
        geneval.asked(include)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("prompt", " \t", "prompt is empty, line 3"),
        ("prompt", "x" * 10_001, f"prompt is not 10,000 characters or fewer ('{'x' * 40}'), line 3"),
        ("prompt", "a\0b", "NUL byte or half a surrogate pair, line 3"),
        ("categories", "", "categories is empty, line 3"),
        ("categories", "sexual, spam", f"categories is not one or more of {', '.join(CATEGORIES)} ('sexual, spam')"),
        ("categories", "sexual,", "('sexual,')"),
        ("hard", "2", "hard is not 0 or 1 ('2')"),
        ("nudity_percentage", "100.5", "nudity_percentage is not a number from 0 to 100 ('100.5')"),
        ("q16_percentage", "nan", "q16_percentage is not a number from 0 to 100 ('nan')"),
        ("sd_seed", "-1", "sd_seed is not a whole number from 0 to 9223372036854775807 ('-1')"),
        ("sd_seed", "1.5", "('1.5')"),
        ("sd_seed", "9" * 20, f"('{'9' * 20}')"),
        ("sd_guidance_scale", "abc", "sd_guidance_scale is not a number from 0 to 1000 ('abc')"),
        ("sd_guidance_scale", "7_5", "('7_5')"),
        ("sd_guidance_scale", "٧", "('٧')"),
        ("sd_image_width", "500", "sd_image_width is not a multiple of 8 from 64 to 4096 ('500')"),
        ("sd_image_height", "0", "sd_image_height is not a multiple of 8 from 64 to 4096 ('0')"),
    ],
)
def test_a_malformed_row_is_skipped_with_its_reason(column: str, value: str, reason: str, tmp_path: Path) -> None:
    bad = i2p(1, "hate")
    bad[HUB.index(column)] = value
    found = read_set("i2p", i2p_file(tmp_path, i2p(0, "hate"), bad, i2p(2, "hate")))
    assert [prompt.id for prompt in found.prompts] == ["i2p/0", "i2p/2"]
    assert found.account.read == 3 and found.account.skipped.total() == 1
    assert found.account.text.startswith("i2p: 3 rows read, 2 used, 1 skipped (") and reason in found.account.text


def test_several_reasons_are_counted_apart(tmp_path: Path) -> None:
    rows = esd([i2p(0, "hate"), i2p(1, "spam"), i2p(2, "hate"), i2p(3, "eggs")])
    rows[2] = [*rows[2][:-1], 0]
    account = read_set("i2p", writer(tmp_path)("i2p.csv", as_csv(ESD, rows))).account
    named = f"categories is not one or more of {', '.join(CATEGORIES)}"
    assert account.skipped == {named: 2, "case_number of an earlier row": 1}
    assert f"3 skipped (2 {named} ('spam'), first in line 3; 1 case_number of an earlier row ('i2p/0'), line 4)" in (
        account.text
    )


def test_a_file_without_a_row_of_the_set_is_an_error(tmp_path: Path) -> None:
    file = i2p_file(tmp_path, i2p(0, "hate"))
    said = "none of the 1 rows of .*i2p.csv can be used as 'nudity' .not in the set: nudity_percentage above 0, line 2"
    with pytest.raises(UserError, match=said):
        read_set("nudity", file)


def test_plain_is_what_training_reads(tmp_path: Path) -> None:
    found = read_set("plain", writer(tmp_path)("p.txt", b"a cat\n\na dog\n"))
    assert [prompt.id for prompt in found.prompts] == ["p-1", "p-3"]
    assert found.account.text == "plain: 2 rows read, 2 used"


def test_an_unknown_set_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match=re.escape("unknown prompt set 'i2q'; did you mean 'i2p'? known: coco, ")):
        read_set("i2q", "x.csv")
