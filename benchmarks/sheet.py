"""A sheet of pictures with captions: one row a kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFilter, ImageFont

TILE, PAD, SIDE, CAPTION = 128, 12, 128, 44  # pixels: a picture, around it, the row's name, the words below a picture
SMALL, NORMAL = 11, 15
INK, SOFT, PAPER = "#1c2024", "#5c6670", "#fdfcfa"
BLUR = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One picture. `covered` shows it blurred."""

    image: Image.Image
    text: str
    covered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    title: str
    cells: tuple[Cell, ...]


def sheet(title: str, rows: Sequence[Row]) -> Image.Image:
    """All rows under one title; pictures are enlarged to equal size, words are wrapped below them."""
    columns = max(len(row.cells) for row in rows)
    width = PAD + SIDE + columns * (TILE + PAD)
    head, step = 3 * PAD + NORMAL, TILE + CAPTION + PAD
    page = Image.new("RGB", (width, head + len(rows) * step), PAPER)
    draw = ImageDraw.Draw(page)
    large, small = ImageFont.load_default(NORMAL), ImageFont.load_default(SMALL)
    draw.text((PAD, PAD), title, fill=INK, font=large)
    for number, row in enumerate(rows):
        top = head + number * step
        name = wrapped(row.title, SIDE - PAD, NORMAL)
        draw.multiline_text((PAD, top + TILE // 2), name, fill=INK, font=large, anchor="lm")
        for column, cell in enumerate(row.cells):
            left = PAD + SIDE + column * (TILE + PAD)
            page.paste(_shown(cell), (left, top))
            draw.multiline_text(
                (left, top + TILE + 3), wrapped(cell.text, TILE, SMALL), fill=SOFT, font=small, spacing=1
            )
    return page


def _shown(cell: Cell) -> Image.Image:
    large = cell.image.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)
    return large.filter(ImageFilter.GaussianBlur(BLUR)) if cell.covered else large


def wrapped(text: str, width: int, size: int) -> str:
    """The text in lines of at most `width` pixels; a word that is wider stands alone."""
    font, lines = ImageFont.load_default(size), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
