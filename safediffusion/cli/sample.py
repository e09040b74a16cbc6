"""`safediffusion sample`: pictures of a prompt, the same seed by one or several models side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from safediffusion.cli.common import (
    device_option,
    drawing_for,
    drawing_options,
    means_for,
    model_of,
    pick_device,
    plan_for,
    plan_options,
    say_guard,
    slug,
    writable,
)
from safediffusion.core.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from safediffusion.diffusion.denoise import Plan
    from safediffusion.models.policy import Policy


@click.command("sample", short_help="Draw pictures, the same seed by several models.")
@click.argument("model")
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@click.option("--against", multiple=True, metavar="MODEL", help="Another model, drawn beside it; may be repeated.")
@click.option("--count", type=click.IntRange(min=1), default=4, show_default=True, help="Pictures a prompt.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same pictures.")
@click.option("--out", default="samples", show_default=True, metavar="DIR", help="Where the pictures go.")
@click.option("--precision", help="fp32, bf16 or fp16.  [default: the run's, or fp32]")
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Pictures drawn at once.")
@plan_options
@drawing_options
@device_option
def command(
    model: str,
    prompts: tuple[str, ...],
    against: tuple[str, ...],
    count: int,
    seed: int,
    out: str,
    precision: str | None,
    batch: int,
    steps: int | None,
    guidance: float | None,
    eta: float | None,
    size: str | None,
    embedded_guidance: float | None,
    device: str,
) -> None:
    """Draw pictures of each PROMPT with MODEL: emoji, a diffusers folder, a hub id, BASE+LORA, or a run folder.

    Writes one PNG a picture, and grid.png: a row for every prompt and seed, a column for every model.
    """
    if any(not prompt.strip() for prompt in prompts):
        raise UserError("a prompt is empty; write what is to be drawn, in quotes")
    from safediffusion.cli.progress import bar
    from safediffusion.core.fleet import Fleet
    from safediffusion.models.load import load_policy

    folder = writable(Path(out))
    place, names = pick_device(device, Fleet()), (model, *against)
    say_guard(names)
    drawings = [drawing_for(name, size=size, embedded_guidance=embedded_guidance) for name in names]
    side = next((drawing.size for drawing in drawings if drawing.size is not None), None)  # of all: side by side
    columns: list[list[Image]] = []
    with bar("sampling") as progress:
        for name, drawing in zip(names, drawings, strict=True):
            loaded = model_of(name)
            plan = plan_for(loaded, steps=steps, guidance=guidance, eta=eta)
            means = means_for(name, precision=precision)
            policy = load_policy(
                loaded,
                device=place,
                precision=means.precision,
                drawing=replace(drawing, size=side),
                saving=means.saving,
            )
            columns.append([])
            for text in prompts:
                columns[-1] += draw_prompt(policy, text, plan, count=count, seed=seed, batch=batch)
                progress(sum(map(len, columns)), len(names) * len(prompts) * count)
    click.echo(str(save(folder, columns, [slug(name) for name in names])))


def draw_prompt(policy: Policy, text: str, plan: Plan, *, count: int, seed: int, batch: int = 8) -> list[Image]:
    """`count` pictures of a text; their noise depends on the text, the seed and their number alone."""
    from PIL import Image

    from safediffusion.evaluate.generate import draw
    from safediffusion.evaluate.rows import Row

    key = f"sample-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    rows = [
        Row(benchmark="sample", key=f"{key}-{number}", prompt=key, text=text, seed=seed, repeat=number)
        for number in range(count)
    ]
    parts = (draw(policy, rows[start : start + batch], plan) for start in range(0, count, batch))
    return [Image.fromarray(pixels) for part in parts for pixels in part]


def save(folder: Path, columns: Sequence[Sequence[Image]], names: Sequence[str]) -> Path:
    """Every picture and the grid, whose path is returned."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    width, height = columns[0][0].size
    grid = Image.new("RGB", (width * len(columns), height * len(columns[0])), "white")
    for column, (name, images) in enumerate(zip(names, columns, strict=True)):
        for row, image in enumerate(images):
            image.save(folder / f"{column}-{name}-{row:03d}.png")
            grid.paste(image, (column * width, row * height))
    grid.save(folder / "grid.png")
    return folder / "grid.png"
