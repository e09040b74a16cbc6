"""Where the names of points go, so that no two cover each other. Plain geometry; lengths in the drawing's units."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

HEIGHT, LONGEST = 16.0, 26
THIN, LETTER, BROAD = 6.0, 9.0, 11.0
REACHES = (10.0, 18.0, 30.0, 46.0, 66.0, 90.0, 120.0)
TURNS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle: its left, top, width and height."""

    x: float
    y: float
    w: float
    h: float

    def shared(self, other: Box) -> float:
        """The area both cover."""
        wide = min(self.x + self.w, other.x + other.w) - max(self.x, other.x)
        high = min(self.y + self.h, other.y + other.h) - max(self.y, other.y)
        return wide * high if wide > 0 and high > 0 else 0.0

    def holds(self, other: Box) -> bool:
        return (
            self.x <= other.x
            and self.y <= other.y
            and other.x + other.w <= self.x + self.w
            and other.y + other.h <= self.y + self.h
        )


def shortened(text: str) -> str:
    """A name short enough for a drawing."""
    plain = " ".join(text.split())
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1].rstrip() + "…"


def width(text: str) -> float:
    """How wide the text is drawn in bold DejaVu Sans or a narrower font; East Asian letters and signs count double."""
    return sum(map(_advance, text)) + 4


def _advance(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 2 * LETTER
    if letter in "Ifijlrt .,:;!'|/()[]-":
        return THIN
    return BROAD if letter.isupper() or letter in "mw%@" else LETTER


def place(points: Sequence[tuple[float, float]], texts: Sequence[str], taken: Sequence[Box], frame: Box) -> list[Box]:
    """A box for each text near its point and inside `frame`: no box over another or over a point where that can be.

    `taken` are things better not covered, such as error bars. Places near the point are tried first, right of it,
    then around it, then further out; the least bad one is kept.
    """
    dots = [Box(x=x - 7, y=y - 7, w=14, h=14) for x, y in points]
    done: list[Box] = []
    for point, text in zip(points, texts, strict=True):
        size = width(text)
        options = [box for box in _around(point, size) if frame.holds(box)]
        if not options:
            options = [Box(x=frame.x, y=min(max(point[1], frame.y), frame.y + frame.h - HEIGHT), w=size, h=HEIGHT)]
        done.append(min(options, key=lambda box: _cost(box, point, (*dots, *done), taken)))
    return done


def _around(point: tuple[float, float], size: float) -> list[Box]:
    x, y = point
    boxes = []
    for reach in REACHES:
        for turn in range(TURNS):
            angle = 2 * math.pi * turn / TURNS
            across, down = math.cos(angle), -math.sin(angle)
            left = x + reach * across - size * (1 - across) / 2
            boxes.append(Box(x=left, y=y + (reach + HEIGHT / 2 - 8) * down - HEIGHT / 2, w=size, h=HEIGHT))
    return boxes


def _cost(box: Box, point: tuple[float, float], hard: Sequence[Box], soft: Sequence[Box]) -> float:
    away = math.hypot(box.x + box.w / 2 - point[0], box.y + box.h / 2 - point[1]) - box.w / 2
    covered = sum(box.shared(other) for other in soft)
    return 1000.0 * sum(box.shared(other) > 0 for other in hard) + covered + max(away, 0.0)
