"""`safediffusion score`: a new column over pictures that are already there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from safediffusion.cli.common import device_option, existing, pick_device, read_config, timeout_option
from safediffusion.cli.stopped import resumable
from safediffusion.core.errors import UserError
from safediffusion.core.registry import suggest

if TYPE_CHECKING:
    from safediffusion.config.schema import SteeringConfig
    from safediffusion.scorers.base import Scorer


@click.command("score", short_help="Add a score to pictures that are already there.")
@click.argument("run")
@click.argument("overrides", nargs=-1, metavar="[steering.KEY=VALUE]...")
@click.option("--scorer", required=True, help="A name from `safediffusion list scorers` or `list judges`.")
@click.option(
    "--encoder",
    help="Its CLIP: emoji, a folder, a hub id, open_clip:MODEL/PRETRAINED.  [default: the run's; a judge's: its own]",
)
@click.option("--source", help="Weights of a scorer that has its own.  [default: the run's, or the published ones]")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True, help="Pictures at once.")
@click.option("--again", is_flag=True, help="Score pictures anew that have this score already.")
@timeout_option
@device_option
def command(
    run: str,
    overrides: tuple[str, ...],
    scorer: str,
    encoder: str | None,
    source: str | None,
    batch: int,
    again: bool,
    timeout: float | None,
    device: str,
) -> None:
    """Add a score to every saved picture of RUN (a run or evaluation folder). Nothing is drawn again.

    The settings of `steering` are the run's own unless given: steering.alpha=1.5 steering.gate=all. `harm` is fitted as
    the constraint of the run does. A judge adds a column for each of its scores, a score of terms one for each term;
    NudeNet's and open_nsfw's networks run on the CPU.
    """
    from safediffusion.config.constraint import HARM
    from safediffusion.core.fleet import Fleet
    from safediffusion.judges.registry import JUDGES
    from safediffusion.scorers.registry import SCORERS

    if scorer not in (known := (*SCORERS.names(), *JUDGES.names(), HARM)):
        raise UserError(f"unknown scorer '{scorer}'; {suggest(scorer, known)}")
    (folder,) = existing([run])
    place = pick_device(device, Fleet())
    if scorer in JUDGES:
        if overrides:
            raise UserError(f"{scorer} is a judge and has no settings; leave out {' '.join(overrides)}")
        made: Scorer = _judge(scorer, source, encoder, place)
    elif scorer == HARM:
        if overrides or encoder or source:
            raise UserError("harm is fitted as the run's recipe says; leave out settings, --encoder and --source")
        made = _harm(folder, place)
    else:
        _check_settings(scorer, overrides, encoder, source)
        made = _scorer(scorer, folder, overrides, encoder, source, place)

    from safediffusion.cli.progress import bar
    from safediffusion.evaluate.score import score
    from safediffusion.evaluate.watch import Watch, WatchedScorer

    watch = Watch(timeout)
    made = WatchedScorer(made, watch)
    with resumable("the same command"), bar(f"{scorer} on {folder}") as progress:
        counts = score(folder, made, batch=batch, device=place, again=again, progress=progress)
    click.echo(f"{folder}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    watch.check()


def _check_settings(name: str, overrides: tuple[str, ...], encoder: str | None, source: str | None) -> None:
    """UserError for what this scorer would not read."""
    from safediffusion.config.check import ENCODED, SOURCED

    for given, allowed, what in (
        (overrides, ("steering",), "settings"),
        (encoder, ENCODED, "--encoder"),
        (source, SOURCED, "--source"),
    ):
        if given and name not in allowed:
            raise UserError(f"{name} has no {what}; that is for {', '.join(allowed)}: leave it out")


def _judge(name: str, source: str | None, encoder: str | None, device: str) -> Scorer:
    """The judge as a scorer; who it is and its licence are printed first."""
    import torch

    from safediffusion.config.names import encoder_source
    from safediffusion.judges.base import Setup
    from safediffusion.judges.registry import JUDGES
    from safediffusion.judges.scorer import Judged

    clip = None if encoder is None else str(encoder_source(encoder))
    made = Judged(judge=JUDGES.get(name)(Setup(source=source, encoder=clip, device=torch.device(device))))
    who = made.identity
    click.echo(f"judge {who.id}, {who.version}; licence of its weights: {who.licence}", err=True)
    return made


def _harm(folder: Path, device: str) -> Scorer:
    """The constraint's own cost of the run of `folder`."""
    from safediffusion.config.constrained import build_harm
    from safediffusion.config.constraint import HARM
    from safediffusion.config.load import parse_recipe
    from safediffusion.config.scorers import SharedEncoder

    own = _recipe(folder)
    recipe = parse_recipe(own) if own else None
    if recipe is None or HARM not in recipe.constraint.costs:
        raise UserError(f"{folder} belongs to no run with harm in constraint.costs, so nothing says how it is fitted")
    return build_harm(recipe, SharedEncoder(recipe.encoder, device)())


def _scorer(
    name: str, folder: Path, overrides: tuple[str, ...], encoder: str | None, source: str | None, device: str
) -> Scorer:
    """The scorer as the run of `folder` had it, where nothing else is asked."""
    from safediffusion.config.check import ENCODED
    from safediffusion.config.scorers import SharedEncoder, build_scorer

    own = _recipe(folder)
    steering, clip = _settings(own, overrides), encoder or own.get("encoder")
    if clip is None and name in ENCODED:
        raise UserError(
            f"{folder} belongs to no run, so its encoder is not known; add --encoder emoji, a folder, a hub id or "
            "open_clip:MODEL/PRETRAINED"
        )
    kept = source or own.get("sources", {}).get(name)
    return build_scorer(name, steering, SharedEncoder(clip or "", device), source=kept)


def _recipe(folder: Path) -> dict[str, Any]:
    """Of the run the folder belongs to; empty where it is no run's."""
    run = next((each for each in (folder, *folder.parents[:2]) if (each / "run.json").is_file()), None)
    return {} if run is None else read_config(run)


def _settings(own: dict[str, Any], overrides: tuple[str, ...]) -> SteeringConfig:
    """The steering settings: the run's, or the defaults where the folder is no run's."""
    from safediffusion.config.load import override
    from safediffusion.config.parse import read_section
    from safediffusion.config.schema import SteeringConfig

    for text in overrides:
        if not text.startswith("steering."):
            raise UserError(
                f"'{text}' does not belong to a scorer; settings start with steering., e.g. steering.alpha=1"
            )
    return read_section(SteeringConfig, override(own, overrides).get("steering", {}), "steering.")
