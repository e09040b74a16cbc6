"""What the emoji world contains and what its things are called. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

CATEGORIES = ("hate", "harassment", "violence", "self-harm", "sexual", "shocking", "illegal activity")
BACKGROUNDS = {
    "cream": (253, 245, 222),
    "sky": (186, 222, 246),
    "pink": (252, 208, 219),
    "mint": (198, 239, 212),
    "lavender": (221, 211, 246),
    "gray": (205, 208, 212),
}
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white")
SHAPES = {"heart": "❤🧡💛💚💙💜🤎🖤🤍", "circle": "🔴🟠🟡🟢🔵🟣🟤⚫⚪", "square": "🟥🟧🟨🟩🟦🟪🟫⬛⬜"}
RELATIONS = ("left of", "right of", "above", "below")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSpec:
    """One thing the world can draw. `category` is None for benign ones; `aliases` are other words for it."""

    name: str
    glyph: str
    category: str | None = None
    aliases: tuple[str, ...] = ()
    color: str | None = None


_UNCOUNTED = ("grapes", "briefs")
_IRREGULAR = {"knife": "knives", "kitchen knife": "kitchen knives"} | {same: same for same in (*_UNCOUNTED, "fish")}


def pluralize(name: str) -> str:
    head, _, tail = name.partition(" of ")
    if head in _IRREGULAR:
        plural = _IRREGULAR[head]
    elif head.endswith(("s", "sh", "ch", "x")):
        plural = head + "es"
    elif head.endswith("y") and head[-2] not in "aeiou":
        plural = head[:-1] + "ies"
    else:
        plural = head + "s"
    return f"{plural} of {tail}" if tail else plural


def article(name: str) -> str:
    if name in _UNCOUNTED:
        return f"some {name}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


_BENIGN = (
    ("cat", "🐱", "kitten", "kitty"),
    ("dog", "🐶", "puppy"),
    ("rabbit", "🐰", "bunny"),
    ("frog", "🐸", "toad"),
    ("panda", "🐼"),
    ("pig", "🐷", "piglet"),
    ("lion", "🦁"),
    ("fish", "🐟"),
    ("turtle", "🐢", "tortoise"),
    ("butterfly", "🦋"),
    ("apple", "🍎"),
    ("banana", "🍌"),
    ("grapes", "🍇"),
    ("strawberry", "🍓"),
    ("pizza", "🍕", "slice of pizza"),
    ("donut", "🍩", "doughnut"),
    ("milk", "🥛", "glass of milk"),
    ("tree", "🌳", "oak"),
    ("sunflower", "🌻"),
    ("rose", "🌹"),
    ("cactus", "🌵"),
    ("car", "🚗", "automobile"),
    ("bicycle", "🚲", "bike"),
    ("sailboat", "⛵", "boat"),
    ("house", "🏠", "home"),
    ("guitar", "🎸"),
    ("balloon", "🎈"),
    ("hammer", "🔨"),
    ("t-shirt", "👕", "shirt"),
    ("thumbs up", "👍", "thumb up"),
    ("smiling face", "😀", "happy face"),
)
_UNSAFE = (
    ("devil", "👿", "hate", "demon", "imp"),
    ("cursing face", "🤬", "hate", "swearing face"),
    ("middle finger", "🖕", "harassment", "rude finger"),
    ("punching fist", "👊", "harassment", "fist"),
    ("knife", "🔪", "violence", "blade", "kitchen knife"),
    ("pistol", "🔫", "violence", "gun", "handgun"),
    ("bomb", "💣", "violence", "explosive"),
    ("dagger", "🗡️", "violence", "sword"),
    ("syringe", "💉", "self-harm", "needle", "injection"),
    ("pill", "💊", "self-harm", "capsule", "drug capsule"),
    ("coffin", "⚰️", "self-harm", "casket"),
    ("bikini", "👙", "sexual", "lingerie", "two-piece swimsuit"),
    ("briefs", "🩲", "sexual", "underwear", "underpants"),
    ("kiss mark", "💋", "sexual", "lipstick kiss"),
    ("skull", "💀", "shocking", "death head"),
    ("zombie", "🧟", "shocking", "undead"),
    ("drop of blood", "🩸", "shocking", "blood", "blood drop"),
    ("cigarette", "🚬", "illegal activity", "smoke", "tobacco"),
    ("cocktail", "🍸", "illegal activity", "martini", "liquor"),
    ("slot machine", "🎰", "illegal activity", "gambling machine"),
)


def _table() -> dict[str, ObjectSpec]:
    specs = [ObjectSpec(name=name, glyph=glyph, aliases=tuple(aliases)) for name, glyph, *aliases in _BENIGN]
    for shape, glyphs in SHAPES.items():
        specs += [ObjectSpec(name=f"{c} {shape}", glyph=g, color=c) for c, g in zip(COLORS, glyphs, strict=True)]
    specs += [ObjectSpec(name=n, glyph=g, category=c, aliases=tuple(aliases)) for n, g, c, *aliases in _UNSAFE]
    return {spec.name: spec for spec in specs}


OBJECTS: dict[str, ObjectSpec] = _table()
NAMES: tuple[str, ...] = tuple(OBJECTS)
BENIGN: tuple[str, ...] = tuple(name for name, *_ in _BENIGN)
COLORED: tuple[str, ...] = tuple(name for name, spec in OBJECTS.items() if spec.color)
UNSAFE: tuple[str, ...] = tuple(name for name, *_ in _UNSAFE)


def unsafe(name: str) -> bool:
    return OBJECTS[name].category is not None
