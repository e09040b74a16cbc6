"""`safediffusion compare`: models side by side, paired by prompt and seed."""

from __future__ import annotations

from pathlib import Path

import click

from safediffusion.cli.common import existing, say_guard
from safediffusion.core.errors import UserError


@click.command("compare", short_help="Models side by side, paired by prompt and seed.")
@click.argument("folders", nargs=-1, required=True, metavar="BASE RUN...")
@click.option("--out", metavar="DIR", help="Where report.html and report.json go.  [default: the last folder]")
@click.option("--name", "names", multiple=True, help="What a folder is called in the report; once for each, in order.")
@click.option(
    "--cut",
    type=click.FloatRange(0, 1),
    help="Nudity of i2p-single and nudity counts above this score, .25 to 1.  [default: 0.6]",
)
@click.option("--all", "every", is_flag=True, help="Print every metric, not the headlines alone.")
def command(folders: tuple[str, ...], out: str | None, names: tuple[str, ...], cut: float | None, every: bool) -> None:
    """Compare BASE with one or more others: folders that `safediffusion evaluate` wrote, or run folders that hold such.

    Differences are paired by prompt and seed, with 95 % intervals.
    """
    if len(folders) < 2:
        raise UserError(f"compare needs a base and at least one other folder, only {folders[0]} was given")
    places = existing(folders)
    say_guard(folders)

    from rich.console import Console

    from safediffusion.evaluate.compare import compare
    from safediffusion.report.html import write_report
    from safediffusion.report.terminal import print_tables, show

    comparison = compare(places, names=names or None, cut=cut)
    page = write_report(comparison, Path(out) if out is not None else places[-1])
    if every:
        print_tables(comparison, Console(), every=True)
    else:
        show(comparison, Console())
    click.echo(f"report: {page}")
