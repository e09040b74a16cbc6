"""`safediffusion merge`: several LoRAs of one base as one."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import click

from safediffusion.cli.common import read_config, say_guard, writable
from safediffusion.core.errors import UserError


@click.command("merge", short_help="Several LoRAs of one base as one.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--out", required=True, metavar="FILE", help="The LoRA to write, a .safetensors file.")
@click.option("--weights", metavar="W,W,...", help="How much of each run's change, in order.  [default: 1 each]")
def command(runs: tuple[str, ...], out: str, weights: str | None) -> None:
    """Add up what several RUNs change: run folders (their newest weights, or the best ones of a run that its guard
    stopped; averaged ones first) or LoRA files.

    The change of the merged LoRA is exactly the weighted sum of theirs, its rank the sum of their ranks. It stands
    where a run's weights may: BASE+FILE.
    """
    from safediffusion.models.experts import merge_experts

    target = Path(out)
    if target.exists():
        raise UserError(f"{target} is there already; name another file with --out, or remove it")
    writable(target.parent)
    base = _base(runs)
    say_guard(runs)
    merge_experts(runs, target, weights=None if weights is None else _numbers(weights))
    click.echo(f"{target}: {len(runs)} LoRAs as one\nmeasure it: safediffusion evaluate {shlex.quote(f'{base}+{out}')}")


def _base(runs: tuple[str, ...]) -> str:
    """The model that all changes add up on; BASE where files are given, which do not say.

    A run that was trained on top of another (model=BASE+RUN) adds up with that one, so both have to be there.
    """
    from safediffusion.models.load import check_ground, split

    given = {Path(run).resolve() for run in runs}
    trained = {run: split(str(read_config(Path(run))["model"])) for run in runs if (Path(run) / "run.json").is_file()}
    for run, (base, below) in trained.items():
        first, (its, _) = next(iter(trained.items()))
        if base != its:
            raise UserError(
                f"{first} was trained on {its} and {run} on {base}; their changes do not add up to a change of either. "
                "Merge runs of one base"
            )
        check_ground((*below, run))
        missing = [each for each in below if Path(each).resolve() not in given]
        if missing:
            raise UserError(f"{run} was trained on top of {missing[0]}, which is not among the runs; merge that, too")
    return next((base for base, _ in trained.values()), "BASE")


def _numbers(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(map(math.isfinite, found)):
        raise UserError(f"--weights {text} is no list of numbers; write one a run, e.g. --weights 1,0.5")
    return found
