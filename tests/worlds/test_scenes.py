"""Scenes: what is placed where, what is told of it, and that a seed gives the same pictures again."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from safediffusion.core.errors import UserError
from safediffusion.evaluate.rows import Detection
from safediffusion.worlds.emoji import scenes
from safediffusion.worlds.emoji.benchmarks import stands
from safediffusion.worlds.emoji.judge import CELL
from safediffusion.worlds.emoji.scenes import KINDS, SIZE, Placed, Sample, Scene
from safediffusion.worlds.emoji.vocabulary import BACKGROUNDS, UNSAFE
from tests.worlds.fonts import needs_font


def drawn(kind: str, count: int = 300, **options: float) -> list[Sample]:
    rng = random.Random(f"test/{kind}")
    return [scenes.draw(rng, kind=kind, **options) for _ in range(count)]


def seen(placed: Placed) -> Detection:
    return Detection(name=placed.name, x=placed.x, y=placed.y, score=1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_sprites_lie_inside_the_picture(kind: str) -> None:
    for placed in itertools.chain.from_iterable(sample.scene.objects for sample in drawn(kind)):
        for centre in (placed.x, placed.y):
            assert placed.side / 2 <= centre <= SIZE - placed.side / 2, placed


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "single"])
def test_centres_are_further_apart_than_neighbouring_cells_of_the_judge(kind: str) -> None:
    for sample in drawn(kind):
        for a, b in itertools.combinations(sample.scene.objects, 2):
            assert max(abs(int(a.x // CELL) - int(b.x // CELL)), abs(int(a.y // CELL) - int(b.y // CELL))) > 1, sample


def test_a_told_relation_is_true_and_all_four_are_told() -> None:
    samples = drawn("relation")
    for sample in samples:
        first, second = sample.scene.objects
        assert first.name != second.name and sample.relation is not None
        assert stands(seen(first), sample.relation, seen(second)), sample
    assert {sample.relation for sample in samples} == {"left of", "right of", "above", "below"}
    assert all(sample.relation is None for sample in drawn("two"))


def test_kinds_hold_what_they_say() -> None:
    assert all(len(s.scene.objects) == 1 for s in drawn("single"))
    counted = drawn("count")
    assert {len(s.scene.objects) for s in counted} == {2, 3, 4}
    assert all(len(set(s.scene.names)) == 1 for s in counted)
    for sample in drawn("mixed"):
        kept, harm = sample.scene.names
        assert kept not in UNSAFE and harm in UNSAFE and len(sample.scene.categories) == 1
    assert not any(s.scene.categories for s in drawn("two", unsafe_share=0.0))


def test_shares_of_kinds_and_backgrounds() -> None:
    rng = random.Random(0)
    samples = [scenes.draw(rng) for _ in range(4000)]
    for kind, share in KINDS.items():
        assert sum(s.kind == kind for s in samples) / len(samples) == pytest.approx(share, abs=0.03)
    for background in BACKGROUNDS:
        assert sum(s.scene.background == background for s in samples) > 0.8 * len(samples) / len(BACKGROUNDS)


@needs_font
def test_a_sprite_is_drawn_where_it_stands() -> None:
    one = Placed(name="cat", x=20, y=40, side=30)
    picture = scenes.render(Scene(background="sky", objects=(one,)))
    assert picture.shape == (SIZE, SIZE, 3) and picture.dtype == np.uint8
    inside = np.zeros((SIZE, SIZE), dtype=bool)
    inside[25:55, 5:35] = True
    plain = (picture == np.array(BACKGROUNDS["sky"])).all(-1)
    assert plain[~inside].all()
    assert (~plain[inside]).mean() > 0.5


@needs_font
def test_pictures_are_a_pure_function_of_the_seed() -> None:
    samples, pictures = scenes.dataset(40, 5)
    scenes._sprite.cache_clear()
    scenes._glyph.cache_clear()
    again, same = scenes.dataset(40, 5)
    assert again == samples and np.array_equal(same, pictures)
    longer, _ = scenes.dataset(41, 5)
    assert longer[:40] == samples
    assert scenes.dataset(40, 6)[0] != samples


def test_a_missing_font_comes_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes._font.cache_clear()
    monkeypatch.setattr(scenes, "_FONTS", ())
    with pytest.raises(UserError, match="apt-get install fonts-noto-color-emoji"):
        scenes._font()
