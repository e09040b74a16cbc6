"""`safediffusion train`: a recipe to a run folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from safediffusion.cli.common import device_option, is_main, pick_device, read_config, writable
from safediffusion.cli.stopped import resumable
from safediffusion.core.errors import UserError

if TYPE_CHECKING:
    from safediffusion.config.schema import Recipe
    from safediffusion.train.run import RunResult


def chosen(target: str, overrides: tuple[str, ...], out: str | None) -> tuple[Recipe, Path]:
    """The recipe and the run folder of a command line; a run folder as `target` stands for its own recipe."""
    from safediffusion.config.load import load_recipe, override, parse_recipe

    if (Path(target) / "run.json").is_file():
        if out is not None and Path(out) != Path(target):
            raise UserError(f"{target} is a run folder, so --out {out} cannot be another; drop --out, or name a recipe")
        return parse_recipe(override(read_config(Path(target)), overrides)), Path(target)
    recipe = load_recipe(target, overrides)
    return recipe, Path(out) if out is not None else Path("runs") / recipe.name


def train_run(recipe: Recipe, folder: Path, *, device: str, resume: bool) -> RunResult:
    """Train with a progress bar; only the main process speaks."""
    from safediffusion.cli.progress import training
    from safediffusion.config.build import build_experiment
    from safediffusion.core.fleet import Fleet
    from safediffusion.train.run import train

    fleet = Fleet.current()
    experiment = build_experiment(recipe, fleet=fleet, device=pick_device(device, fleet))
    with training(recipe.name, shown=fleet.is_main) as progress:
        return train(experiment, folder, resume=resume, progress=progress)


@click.command("train", short_help="Train a model by a recipe, or go on with a run.")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", metavar="DIR", help="The run folder.  [default: runs/NAME of the recipe]")
@click.option("--resume", is_flag=True, help="Go on with the run in that folder, exactly where its last checkpoint is.")
@click.option("--dry-run", is_flag=True, help="Print what it will cost, and stop.")
@click.option(
    "--processes", type=click.IntRange(min=1), default=1, show_default=True, help="For --dry-run: who share the work."
)
@device_option
def command(
    recipe: str, overrides: tuple[str, ...], out: str | None, resume: bool, dry_run: bool, processes: int, device: str
) -> None:
    """Train by RECIPE: a name from `safediffusion list recipes`, a YAML file, or (with --resume) a run folder.

    Any key of the recipe can be set: optimizer.lr=1e-4 plan.window=[0,5] model=path/to/folder.
    """
    found, folder = chosen(recipe, overrides, out)
    if processes > 1 and not dry_run:
        raise UserError(
            f"--processes is for --dry-run; to train with {processes}: accelerate launch --num_processes {processes} "
            f"-m safediffusion train {recipe}"
        )
    if dry_run:
        from safediffusion.config.check import check
        from safediffusion.config.cost import forecast
        from safediffusion.config.notes import notes

        said = [f"note: {note}" for note in notes(found, check(found))]
        click.echo("\n".join([*forecast(found, processes=processes).lines(), *said]))
        return
    started = (writable(folder) / "run.json").is_file()
    if resume and not started:
        raise UserError(f"there is no run in {folder} to resume; drop --resume to start one there")
    if started and not resume:
        raise UserError(f"{folder} holds a run already; add --resume to go on with it, or --out DIR for another")
    from safediffusion.train.reached import closing

    with resumable(f"safediffusion train {shlex.quote(str(folder))} --resume"):
        result = train_run(found, folder, device=device, resume=resume)
    if is_main():
        click.echo(
            f"{folder}: {result.steps} steps, {result.images:,} images, {result.unet_forwards:,} UNet forwards, "
            f"{result.wall_s:.0f} s"
        )
        click.echo("\n".join(closing(result.folder)))
