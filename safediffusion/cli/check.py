"""`safediffusion check`: tells the author of a plug-in what is wrong with it."""

from __future__ import annotations

import importlib
from typing import Any

import click

from safediffusion.core.errors import UserError


@click.group("check", short_help="Tell the author of a plug-in what is wrong with it.")
def command() -> None:
    """Check a part of your own against what the trainer and the evaluation expect of it."""


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
