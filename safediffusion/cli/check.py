"""`safediffusion check`: tells what is wrong with a plug-in, or with a recipe's safety directions."""

from __future__ import annotations

import importlib
from typing import Any

import click

from safediffusion.cli.common import device_option, pick_device
from safediffusion.core.errors import UserError


@click.group("check", short_help="Tell what is wrong with a plug-in or a safety direction.")
def command() -> None:
    """Check a part of your own against what the trainer and the evaluation expect of it, or a recipe's directions."""


@command.command("scorer")
@click.argument("name", metavar="MODULE:CLASS")
def scorer(name: str) -> int:
    """Make a scorer without arguments and try it on random pictures. The exit status is 1 if a rule is broken.

    MODULE:CLASS is importable Python, or the name of an installed scorer.
    """
    made = load(name)
    from safediffusion.scorers.contract import check_scorer

    broken = 0
    for outcome in check_scorer(made):
        broken += not outcome.ok
        click.echo(f"{'ok' if outcome.ok else 'WRONG':<9}{outcome.what}")
        if not outcome.ok:
            click.echo(f"         -> {outcome.advice}")
    click.echo(f"{broken} broken" if broken else f"{name} can be a reward and a metric")
    return int(broken > 0)


def load(name: str) -> Any:
    """The object, made without arguments. UserError says at which point that failed."""
    from safediffusion.scorers.registry import SCORERS

    module, colon, attribute = name.partition(":")
    if not colon:
        found = SCORERS.get(name)
    else:
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UserError(f"{name} cannot be imported ({error}); install the package, or mend the path") from error
    try:
        return found()
    except TypeError as error:
        raise UserError(
            f"{name} cannot be made without arguments ({error}); a plug-in reads what it needs in its __init__"
        ) from error


@command.command("direction")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@device_option
def direction(recipe: str, overrides: tuple[str, ...], device: str) -> int:
    """Measure the safety directions of RECIPE on its calibration pictures, as training does before it starts.

    The exit status is 1 if one of them is below calibration.min_auc, so that training would be refused.
    """
    from rich.console import Console

    from safediffusion.config.labelled import load_pictures
    from safediffusion.config.load import load_recipe
    from safediffusion.config.scorers import SharedEncoder, build_scorer
    from safediffusion.core.fleet import Fleet
    from safediffusion.report.separation import show
    from safediffusion.scorers.steering import Steering
    from safediffusion.train.calibrate import measure_direction

    found = load_recipe(recipe, overrides)
    pictures = found.calibration.pictures
    if "steering" not in found.scorers or pictures is None:
        missing = "no steering reward" if "steering" not in found.scorers else "no calibration.pictures"
        raise UserError(
            f"recipe '{found.name}' has {missing}; set scorers.steering=1 and calibration.pictures=emoji, a folder of "
            "safe/ and unsafe/CATEGORY/, or a .jsonl file"
        )
    encoder = SharedEncoder(found.encoder, pick_device(device, Fleet()))
    steering = build_scorer("steering", found.steering, encoder, seed=found.seed)
    assert isinstance(steering, Steering)
    report = measure_direction(steering, load_pictures(pictures))
    show(report.json(), Console(), min_auc=found.calibration.min_auc)
    weak = report.weak(found.calibration.min_auc)
    said = ", ".join(each.name for each in weak)
    refused = bool(weak) and not found.calibration.allow_weak_direction
    told = f"below {found.calibration.min_auc}: {said}; training would {'not ' if refused else ''}start"
    click.echo(told if weak else "training would start")
    return int(refused)
