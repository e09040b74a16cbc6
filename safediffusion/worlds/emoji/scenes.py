"""Scenes of the emoji world: which sprites stand where, and their pictures (needs the Noto Color Emoji font)."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from safediffusion.core.errors import UserError

from .vocabulary import BACKGROUNDS, BENIGN, COLORED, OBJECTS, RELATIONS, UNSAFE

SIZE = 64
_FONTS = (
    Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/noto/NotoColorEmoji.ttf"),
    Path("/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One sprite: its centre (x right, y down) and its side, in pixels."""

    name: str
    x: float
    y: float
    side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    background: str
    objects: tuple[Placed, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(o.name for o in self.objects)

    @property
    def categories(self) -> frozenset[str]:
        return frozenset(c for o in self.objects if (c := OBJECTS[o.name].category))


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    for path in _FONTS:
        if path.exists():
            return ImageFont.truetype(str(path), 109)
    raise UserError(
        f"the Noto Color Emoji font was not found (looked in {', '.join(map(str, _FONTS))}); "
        "only building the world needs it: apt-get install fonts-noto-color-emoji"
    )


@functools.cache
def _glyph(name: str) -> Image.Image:
    """The sprite of `name`, cropped to a square around its ink, RGBA."""
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((12, 12), OBJECTS[name].glyph, font=_font(), embedded_color=True)
    left, top, right, bottom = canvas.getbbox() or (0, 0, 160, 160)
    side = max(right - left, bottom - top)
    cx, cy = (left + right) // 2, (top + bottom) // 2
    return canvas.crop((cx - side // 2, cy - side // 2, cx - side // 2 + side, cy - side // 2 + side))


@functools.lru_cache(maxsize=8192)
def _sprite(name: str, side: int) -> Image.Image:
    return _glyph(name).resize((side, side), Image.Resampling.LANCZOS)


def render(scene: Scene) -> np.ndarray:
    """uint8 [64, 64, 3]."""
    picture = Image.new("RGBA", (SIZE, SIZE), (*BACKGROUNDS[scene.background], 255))
    for o in scene.objects:
        picture.alpha_composite(
            _sprite(o.name, o.side),
            (min(max(round(o.x - o.side / 2), 0), SIZE - o.side), min(max(round(o.y - o.side / 2), 0), SIZE - o.side)),
        )
    return np.asarray(picture.convert("RGB"))


def place(names: tuple[str, ...], rng: random.Random, *, relation: str | None = None) -> tuple[Placed, ...]:
    """Sprites at jittered places of a layout. With `relation`, names[0] stands in that relation to names[1]."""
    if len(names) == 1:
        side = rng.randint(34, 42)
        slots = [(32.0, 32.0)]
        jitter = min((SIZE - side) // 2 - 1, 8)
    elif len(names) == 2:
        side, jitter = rng.randint(26, 29), 2
        horizontal = relation in ("left of", "right of") if relation else rng.random() < 0.5
        slots = [(17.0, 32.0), (47.0, 32.0)] if horizontal else [(32.0, 17.0), (32.0, 47.0)]
        if relation in ("right of", "below") or (relation is None and rng.random() < 0.5):
            slots.reverse()
    else:
        side, jitter = rng.randint(24, 27), 2
        slots = [(17.0, 17.0), (47.0, 17.0), (17.0, 47.0), (47.0, 47.0)]
        if len(names) == 3 and rng.random() < 0.5:
            slots = [(32.0, 17.0), (17.0, 47.0), (47.0, 47.0)]
        rng.shuffle(slots)
    wide = 8 if len(names) == 2 else 0  # a pair may drift along its free axis
    free_x, free_y = (wide, 0) if wide and slots[0][0] == slots[1][0] else (0, wide)
    placed = []
    for name, (x, y) in zip(names, slots, strict=False):
        dx = rng.randint(-jitter - free_x, jitter + free_x)
        dy = rng.randint(-jitter - free_y, jitter + free_y)
        placed.append(Placed(name=name, x=x + dx, y=y + dy, side=side))
    return tuple(placed)


KINDS = {"single": 0.28, "two": 0.20, "count": 0.15, "relation": 0.22, "mixed": 0.15}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A scene and what its caption may say: `relation` is that of the first object to the second, if it is told."""

    scene: Scene
    kind: str
    relation: str | None = None


def draw(rng: random.Random, *, kind: str | None = None, unsafe_share: float = 0.35) -> Sample:
    """A random scene of `kind` (default: by the shares of KINDS)."""
    kind = kind or rng.choices(tuple(KINDS), weights=tuple(KINDS.values()))[0]
    background = rng.choice(tuple(BACKGROUNDS))
    relation = rng.choice(RELATIONS) if kind == "relation" else None
    names: tuple[str, ...]
    if kind in ("single", "count"):
        names = (_pick(rng, unsafe_share),) * (1 if kind == "single" else rng.randint(2, 4))
    elif kind == "mixed":
        names = (rng.choice(BENIGN + COLORED), rng.choice(UNSAFE))
    else:
        first = _pick(rng, unsafe_share / 2)
        names = (first, _pick(rng, unsafe_share / 2, other_than=first))
    scene = Scene(background=background, objects=place(names, rng, relation=relation))
    return Sample(scene=scene, kind=kind, relation=relation)


def _pick(rng: random.Random, unsafe_share: float, other_than: str | None = None) -> str:
    while True:
        roll = rng.random()
        pool = UNSAFE if roll < unsafe_share else COLORED if roll > 0.75 else BENIGN
        if (name := rng.choice(pool)) != other_than:
            return name


def dataset(count: int, seed: int) -> tuple[list[Sample], np.ndarray]:
    """`count` random samples and their pictures, uint8 [count, 64, 64, 3]; a pure function of its arguments."""
    rng = random.Random(seed)
    samples = [draw(rng) for _ in range(count)]
    return samples, np.stack([render(s.scene) for s in samples])
