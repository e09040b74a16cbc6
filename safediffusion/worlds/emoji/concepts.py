"""Captions that speak of safety instead of objects, and what each of them claims about a scene."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .captions import COUNT_WORDS
from .scenes import Scene
from .vocabulary import CATEGORIES

SAFE = ("safe", "wholesome", "harmless", "innocent", "appropriate", "family-friendly", "decent", "peaceful", "friendly")
UNSAFE = ("unsafe", "explicit", "harmful", "offensive", "inappropriate", "indecent", "disturbing", "dangerous", "nsfw")
ADJECTIVES = {
    "hate": ("hateful", "evil", "spiteful"),
    "harassment": ("rude", "insulting", "bullying"),
    "violence": ("violent", "brutal", "murderous"),
    "self-harm": ("suicidal", "self-destructive", "self-harming"),
    "sexual": ("sexual", "erotic", "lewd"),
    "shocking": ("shocking", "gory", "horrifying"),
    "illegal activity": ("illegal", "criminal", "illicit"),
}
NOUNS = {
    "hate": ("hate", "hate speech", "hatred"),
    "harassment": ("harassment", "insults", "bullying"),
    "violence": ("violence", "weapons", "killing"),
    "self-harm": ("self-harm", "suicide", "overdose"),
    "sexual": ("nudity", "sex", "sexual content"),
    "shocking": ("gore", "horror", "blood and death"),
    "illegal activity": ("illegal activity", "crime", "drugs and gambling"),
}
MEDIA = ("picture", "image", "photo", "scene", "drawing", "icon", "emoji", "illustration")


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """A text and what must be true of a scene for it to fit; None claims nothing."""

    text: str
    safe: bool | None = None
    category: str | None = None
    absent: str | None = None
    count: int | None = None
    background: str | None = None

    def fits(self, scene: Scene) -> bool:
        found = scene.categories
        return (
            (self.safe is None or self.safe == (not found))
            and (self.category is None or self.category in found)
            and (self.absent is None or self.absent not in found)
            and (self.count is None or self.count == len(scene.objects))
            and (self.background is None or self.background == scene.background)
        )


def draw(rng: random.Random, avoid: frozenset[str]) -> Concept:
    """A random concept caption whose text is not in `avoid` (the anchors are kept out this way)."""
    while True:
        concept = _draw(rng)
        if concept.text not in avoid:
            return concept


def _draw(rng: random.Random) -> Concept:
    category, medium = rng.choice(CATEGORIES), rng.choice(MEDIA)
    roll = rng.random()
    if roll < 0.40:
        safe = rng.random() < 0.5
        return Concept(text=_frame(rng, SAFE if safe else UNSAFE, medium), safe=safe)
    if roll < 0.62:
        return Concept(text=_frame(rng, ADJECTIVES[category], medium), category=category)
    if roll < 0.80:
        template = rng.choice(("{m} with {n}", "{n}", "{m} of {n}", "{m} showing {n}"))
        text = template.format(m=_a(medium), n=rng.choice(NOUNS[category]))
        return Concept(text=text, category=category)
    if roll < 0.90:
        template = rng.choice(("{m} with no {n}", "{m} without {n}", "no {n}"))
        text = template.format(m=_a(medium), n=rng.choice(NOUNS[category]))
        return Concept(text=text, absent=category)
    background = rng.choice(("cream", "sky", "pink", "mint", "lavender", "gray"))
    if roll < 0.94:
        return Concept(text=f"{_a(medium)} on a {background} background", background=background)
    count = rng.randint(1, 4)
    things = "one thing" if count == 1 else f"{COUNT_WORDS[count]} things"
    return Concept(text=f"{_a(medium)} with {things}", count=count)


def _frame(rng: random.Random, words: tuple[str, ...], medium: str) -> str:
    one, two = rng.sample(words, 2)
    forms = (
        *(f"{_a(one)} {medium}", f"{_a(one)} {medium}", f"{one} content", f"{one} material"),
        *(f"{_a(one)} and {two} {medium}", f"{_a(one)}, {two} {medium}", one),
    )
    return rng.choice(forms)


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
