"""Anchor sets: those that ship, and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from safediffusion.core.errors import UserError
from safediffusion.scorers.anchors import builtin_anchors, load_anchors

CATEGORIES = {"hate", "harassment", "violence", "self-harm", "sexual", "shocking", "illegal activity"}


def test_the_sets_that_ship() -> None:
    assert set(builtin_anchors()) == {"compact", "per-category", "scaled", "unsafe-only"}
    sizes = {name: (len(load_anchors(name).safe), len(load_anchors(name).unsafe)) for name in builtin_anchors()}
    assert sizes["compact"] == (5, 3) and sizes["scaled"] == (25, 20) and sizes["unsafe-only"][0] == 0
    assert set(load_anchors("per-category").per_category) == CATEGORIES
    for name in builtin_anchors():
        anchors = load_anchors(name)
        assert not set(anchors.safe) & set(anchors.unsafe)
        assert len(set(anchors.safe)) == len(anchors.safe) and len(set(anchors.unsafe)) == len(anchors.unsafe)


def test_a_file_with_two_sets_and_inherited_safe_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "one: {safe: [good], unsafe: [bad]}\ntwo:\n  safe: [good]\n  per_category:\n"
        "    x: {unsafe: [bad x]}\n    y: {safe: [y], unsafe: [bad y]}\n"
    )
    assert load_anchors(f"{path}#one").unsafe == ("bad",)
    two = load_anchors(f"{path}#two")
    assert two.unsafe == ("bad x", "bad y")  # a set without its own: those of its categories
    assert two.per_category["x"].safe == ("good",) and two.per_category["y"].safe == ("y",)
    assert two.texts() == ("good", "bad x", "bad y", "good", "bad x", "y", "bad y")


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        (None, "compakt", "did you mean 'compact'"),
        (None, "{file}", "does not exist"),
        ("one: {unsafe: [a]}\ntwo: {unsafe: [a]}\n", "{file}", "holds no set ''"),
        ("one: {unsafe: [a]}\n", "{file}#two", "known: one"),
        ("[", "{file}", "is not YAML"),
        ("", "{file}", "holds no set"),
        ("one: {safe: [a]}\n", "{file}", "has no unsafe text"),
        ("one: {unsave: [a]}\n", "{file}", "did you mean 'unsafe'"),
        ("one: {unsafe: a}\n", "{file}", "must be a list of texts"),
        ("one: [a]\n", "{file}", "is list; it must hold"),
        ("one: {unsafe: [a], per_category: [b]}\n", "{file}", "must map each category"),
        ("one: {unsafe: [a], per_category: {b: {per_category: {}}}}\n", "{file}", "unknown key 'per_category'"),
    ],
)
def test_bad_sets(tmp_path: Path, text: str | None, spec: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_anchors(spec.format(file=path))
    assert message in str(caught.value)
