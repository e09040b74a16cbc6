"""Mutations of a prompt: what each does, and that none meets the embedded world's held-out attacks."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from safediffusion.core.errors import UserError
from safediffusion.data import attack
from safediffusion.data.attack import Material, Mutant, mutate, read_words, words_of
from safediffusion.worlds.emoji import prompts as world
from safediffusion.worlds.emoji.assets import pipeline_folder
from safediffusion.worlds.emoji.captions import HINTS
from safediffusion.worlds.emoji.reserved import reserved
from safediffusion.worlds.emoji.vocabulary import OBJECTS, UNSAFE, article, pluralize

MATERIAL = Material(words=("rose",), harmless=("a cat",))


def rng(key: object = 0) -> random.Random:
    return random.Random(f"test/{key}")


def test_each_mutation_changes_what_it_says() -> None:
    assert attack.substitute("a knife", MATERIAL, rng()) == "a rose"
    assert attack.substitute("a picture of the", MATERIAL, rng()) == "a picture of the"  # nothing has content
    assert attack.alone("a picture of a knife", MATERIAL, rng()) == "a rose"
    inserted = {attack.insert("a knife", MATERIAL, rng(i)) for i in range(30)}
    assert inserted == {"rose a knife", "a rose knife", "a knife rose"}
    found = {attack.misspell("a bomb", MATERIAL, rng(i)) for i in range(60)}
    assert found == {"a bo-mb", *(f"a b{vowel}mb" for vowel in "aeiu")}
    assert attack.misspell("a gun", MATERIAL, rng()) == "a gun"
    assert {attack.negate("x", MATERIAL, rng(i)) for i in range(60)} == {t.format("x") for t in attack.NEGATIONS}
    assert {attack.paraphrase("x", MATERIAL, rng(i)) for i in range(60)} == {t.format("x") for t in attack.PARAPHRASES}
    joined = {attack.concatenate("a bomb", MATERIAL, rng(i)) for i in range(60)}
    assert joined == {"a cat beside a bomb", "a bomb next to a cat", "a cat, then a bomb"}
    bare = Material()
    assert {
        each("a bomb", bare, rng()) for each in (attack.substitute, attack.insert, attack.alone, attack.concatenate)
    } == {"a bomb"}


def test_a_mutation_is_a_function_of_its_key_and_says_whether_a_word_was_put_in() -> None:
    found = [mutate("a knife", MATERIAL, rng(i)) for i in range(300)]
    assert found == [mutate("a knife", MATERIAL, rng(i)) for i in range(300)]
    assert {"rose" in each.text for each in found if each.worded} == {True}
    assert not any("rose" in each.text for each in found if not each.worded)
    assert {each.worded for each in found} == {True, False}
    assert not any(mutate("a knife", Material(), rng(i)).worded for i in range(100))
    assert all(mutate("a knife", Material(), rng(i)).text != "a knife" for i in range(100))
    assert mutate("a b", Material(), rng(), longest=2) == Mutant("a b", False)  # nothing is short enough


def test_a_cross_puts_words_in_the_place_of_the_first_harmful_ones() -> None:
    harmful = {"kiss", "marks", "bikini"}
    assert attack.cross("two kiss marks on a pink background", "devil", harmful) == "two devil on a pink background"
    assert attack.cross("a bikini with a bikini", "red devil", harmful) == "a red devil with a bikini"
    assert attack.cross("kiss marks", "devil", harmful) == "devil"
    assert attack.cross("a cat", "devil", harmful) == "a cat"


def test_no_word_is_dealt_again_before_all_were() -> None:
    words = ("axe", "bow", "club", "dart", "epee")
    row = [word for start in range(0, 30, 3) for word in attack.dealt(words, start, 3, key="k")]
    turns = [row[at : at + 5] for at in range(0, 30, 5)]
    assert all(sorted(turn) == list(words) for turn in turns) and len({tuple(turn) for turn in turns}) > 1
    assert attack.dealt(words, 4, 7, key="k") == row[4:11] != attack.dealt(words, 4, 7, key="other")


def test_words_of_prompts_and_of_a_file(tmp_path: Path) -> None:
    assert words_of(["a red knife", "two knives on a red background"]) == ("knife", "knives", "red")
    (tmp_path / "words.txt").write_text("sabre\n\nrose\nsabre\n")
    assert read_words(tmp_path / "words.txt") == ("sabre", "rose")
    (tmp_path / "several.txt").write_text("a rose\n")
    with pytest.raises(UserError, match="holds 'a rose'; write one word a line"):
        read_words(tmp_path / "several.txt")
    with pytest.raises(UserError, match="there is no file"):
        read_words(tmp_path / "none.txt")


def tokens() -> tuple[str, ...]:
    """What `attack.vocabulary=model` gives for the embedded model."""
    ended = re.findall(r'"([a-z]{3,})</w>"', (pipeline_folder() / "tokenizer" / "tokenizer.json").read_text())
    return tuple(sorted(set(ended)))


def test_thousands_of_mutations_meet_nothing_of_the_held_out_attacks() -> None:
    """Three mutations deep, with any word of the model's tokenizer, which knows the held-out names."""
    words = tokens()
    assert {"gun", "needle", "undead", "horned"} <= set(words)
    material = Material(words=words, harmless=tuple(p.text for p in world.training("benign", 200)))
    held = {p.text for name in ("attack", "i2p", "keep", "refusal", "geneval") for p in world.evaluation(name)}
    others = [alias for name in UNSAFE for alias in OBJECTS[name].aliases]
    phrases = [*others, *map(pluralize, others), *HINTS.values()]
    frames = re.compile(r"not unsafe at all|no harm, only|not a toy but")
    kept, dropped, stream = 0, 0, rng("thousands")
    for parent in world.training("unsafe"):
        text = parent.text
        for _ in range(6):
            found = mutate(text, material, stream).text
            if found == text or reserved(found):
                dropped += 1
                continue
            text, kept = found, kept + 1
            assert text not in held
            plain = f" {re.sub('[^a-z0-9 -]', ' ', text)} "
            assert not frames.search(text), text
            for name in sorted((*OBJECTS, *map(pluralize, OBJECTS)), key=len, reverse=True):
                plain = plain.replace(f" {name} ", " | ")
            assert not any(f" {phrase} " in plain for phrase in phrases), text
    assert kept > 4000 and dropped > 500


def test_held_out_wordings_are_reserved_whatever_their_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safediffusion.worlds.emoji.reserved.held_out", lambda text: False)
    assert [p.text for p in world.evaluation("attack") if not reserved(p.text)] == []
    for name in UNSAFE:  # while the training prompts' own words are free
        assert not reserved(article(name)) and not reserved(pluralize(name))
    free = [t.format("a knife", harmless="a cat", harmful="a knife") for t in (*attack.PARAPHRASES, *attack.NEGATIONS)]
    free += [t.format(harmless="a cat", harmful="a knife") for t in attack.JOINS]
    assert not any(map(reserved, free))
    assert reserved("a drop of blood beside blood") and not reserved("a drop of blood beside a drop of blood")
    assert reserved("blood blood") and reserved("a Gun.") and reserved("a gu-n") and reserved("a red-hot gun")


def test_no_training_prompt_is_reserved() -> None:
    assert not any(reserved(p.text) for name in ("benign", "unsafe") for p in world.training(name))
