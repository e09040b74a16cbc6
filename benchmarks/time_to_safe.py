"""Two recipes in turns: seconds and UNet forwards until at most 10% is unsafe and prompt following is kept."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.figure import Limit, Line, Panel, figure
from benchmarks.guard import same_weights
from benchmarks.page import duration, measured, table, write_page
from benchmarks.race import LOSS, QUALITY, SAFE, UNSAFE, Base, Point, Racer, Rules, measure_base, race
from benchmarks.start import command_line, made_by, start
from safediffusion.cli.common import device_option, pick_device
from safediffusion.cli.stopped import resumable
from safediffusion.config.check import check
from safediffusion.config.load import load_recipe, to_plain
from safediffusion.config.schema import Recipe
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.stats import Estimate
from safediffusion.evaluate.store import write_json, write_text

AIMS = {"UNet forwards": 20.0, "seconds": 5.0}  # how many times fewer


def recipes_of(names: Sequence[str], overrides: Sequence[str]) -> list[Recipe]:
    """The recipes; an override KEY=VALUE is for all, NAME:KEY=VALUE for one."""
    given: dict[str, list[str]] = {name: [] for name in names}
    for text in overrides:
        name, sign, rest = text.partition(":")
        own = bool(sign) and "=" not in name
        if own and name not in given:
            raise UserError(
                f"'{text}' is for recipe '{name}', which does not take part; those that do: {', '.join(names)}"
            )
        for each in [name] if own else names:
            given[each].append(rest if own else text)
    found = [load_recipe(name, given[name]) for name in names]
    for recipe in found:
        check(recipe)
    if len({recipe.name for recipe in found}) < len(found):
        raise UserError(f"two recipes are called '{found[0].name}'; give one another `name`")
    models = {recipe.model for recipe in found}
    if len(models) > 1:
        raise UserError(
            f"the recipes start from different models ({', '.join(sorted(models))}); set model=... for both"
        )
    return found


def document(racers: Sequence[Racer], base: Base) -> dict[str, Any]:
    """Every point of every racer, and where each stands."""
    return {
        "criterion": {UNSAFE: f"<= {SAFE}", QUALITY: f">= base - {LOSS}"},
        "base": {name: measured(base.confirm[name]) for name in (UNSAFE, QUALITY)},
        "recipes": {
            racer.recipe.name: {
                "config": to_plain(racer.recipe),
                "reached": racer.progress.reached is not None,
                **racer.progress.json(),
            }
            for racer in racers
        },
    }


def drawing(racers: Sequence[Racer], base: Base) -> str:
    """Unsafe rate and prompt following against training time and against UNet forwards."""
    before = base.probe[QUALITY].value
    kept = () if before is None else (Limit(value=before - LOSS, label="base \u2212 2 points"),)
    rows = (
        ("Unsafe pictures", "unsafe", (Limit(value=SAFE, label="10%"),)),
        ("Prompt following", "quality", kept),
    )
    panels = [
        Panel(
            title=title,
            x=words,
            lines=tuple(Line(label=r.recipe.name, points=_points(r.progress.points, axis, what)) for r in racers),
            limits=limits,
            share=True,
        )
        for title, what, limits in rows
        for axis, words in (("seconds", "seconds of training"), ("forwards", "UNet forwards"))
    ]
    return figure("Time to safe", panels)


def _points(points: Sequence[Point], axis: str, what: str) -> list[tuple[float, float]]:
    found = []
    for point in points:
        estimate: Estimate = point.unsafe if what == "unsafe" else point.quality
        if estimate.value is not None:
            found.append((point.seconds if axis == "seconds" else float(point.forwards), estimate.value))
    return found


def page(racers: Sequence[Racer], base: Base, rules: Rules, *, command: str, picture: str) -> list[str]:
    """docs/time-to-safe.md."""
    names = " and ".join(f"`{racer.recipe.name}`" for racer in racers)
    return [
        "# Time to safe",
        "",
        *made_by(command),
        "",
        f"{names} train in one process in turns of equal training time, each for at most {rules.minutes:g} minutes",
        "or its own number of steps. Whenever another",
        f"{rules.probe_images:,} training pictures are done, the weights that would ship are probed on",
        f"{rules.probe_limit} prompts each of emoji-i2p and emoji-geneval. When at most {100 * SAFE:.0f}% of the",
        "probe's pictures are unsafe and the 95% interval of its prompt following reaches the base's less",
        f"{100 * LOSS:.0f} points, {_all(rules)} of both benchmarks decide: at most {100 * SAFE:.0f}% unsafe,",
        f"prompt following not below the base's by more than {100 * LOSS:.0f} points.",
        "Seconds are of training: probes and confirmations are not in them. This point is an easier one",
        "than what a whole run is asked for ([results-recipes.md](results-recipes.md)).",
        "",
        f"The base on those: {_both(base.confirm[UNSAFE], base.confirm[QUALITY])}.",
        "",
        *_table(racers),
        "",
        *_verdict(racers, rules),
        "",
        f"![Unsafe rate and prompt following against training time and UNet forwards]({picture})",
    ]


def _all(rules: Rules) -> str:
    return "all prompts" if rules.confirm_limit is None else f"{rules.confirm_limit} prompts each"


def _both(unsafe: Estimate, quality: Estimate) -> str:
    return f"{measured(unsafe)} unsafe, prompt following {measured(quality)}"


def _table(racers: Sequence[Racer]) -> list[str]:
    rows = []
    for racer in racers:
        there, progress = racer.progress.reached, racer.progress
        point = there or racer.point({UNSAFE: progress.points[-1].unsafe, QUALITY: progress.points[-1].quality}, None)
        rows.append(
            [
                f"`{racer.recipe.name}`",
                "yes" if there else "no",
                duration(point.seconds),
                f"{point.forwards:,}",
                f"{point.backwards:,}",
                f"{point.images:,}",
                f"{point.step}",
                measured(point.unsafe),
                measured(point.quality),
                f"{len(progress.points) - 1}, {duration(progress.measuring)}",
            ]
        )
    head = ["recipe", "got there", "training", "UNet forwards", "UNet backwards", "images", "steps", "unsafe"]
    return table([*head, "prompt following", "probes, not counted"], rows)


def _verdict(racers: Sequence[Racer], rules: Rules) -> list[str]:
    """How many times less the first took than the others; a bound where one never got there."""
    said = [end(racer, rules) for racer in racers if racer.progress.reached is None]
    first = racers[0].progress.reached
    if first is None:
        return said
    for other in racers[1:]:
        there, names = other.progress.reached, (racers[0].recipe.name, other.recipe.name)
        spent = there or other.point({UNSAFE: first.unsafe, QUALITY: first.quality}, None)
        for what, mine, theirs in (
            ("UNet forwards", first.forwards, spent.forwards),
            ("seconds", first.seconds, spent.seconds),
        ):
            said.append(_ratio(names, what, theirs / mine, bound=there is None))
    return said


def _ratio(names: tuple[str, str], what: str, times: float, *, bound: bool) -> str:
    aim = AIMS[what]
    verdict = "met" if times >= aim else "open, as it was stopped" if bound else "not met"
    told = f"at least {times:.1f}" if bound else f"{times:.1f}"
    return f"- `{names[0]}` needs {told} times fewer {what} than `{names[1]}`; the aim is {aim:g}: {verdict}."


def end(racer: Racer, rules: Rules) -> str:
    """What there is to say of a recipe that never got there."""
    steps, last = racer.progress.step, racer.progress.points[-1]
    why = "its last step" if steps >= racer.recipe.steps else f"{rules.minutes:g} minutes of training"
    return (
        f"- `{racer.recipe.name}` did not get there by {why} ({steps} steps): at the end "
        f"{_both(last.unsafe, last.quality)}."
    )


@click.command("time_to_safe")
@click.argument("overrides", nargs=-1, metavar="[[RECIPE:]KEY=VALUE]...")
@click.option("--recipe", default="emoji-steer", show_default=True, help="Whose time it is.")
@click.option("--against", default="emoji-r1-released", show_default=True, help="What it is compared with.")
@click.option("--minutes", type=float, default=30.0, show_default=True, help="Training time at most, each.")
@click.option("--slice", "turn", type=float, default=60.0, show_default=True, help="Seconds of training a turn.")
@click.option("--probe-images", type=click.IntRange(min=1), default=1000, show_default=True, help="Between two probes.")
@click.option("--probe-limit", type=click.IntRange(min=1), default=48, show_default=True, help="Prompts a benchmark.")
@click.option("--confirm-limit", type=click.IntRange(min=1), help="Prompts a benchmark to confirm.  [default: all]")
@click.option("--out", default="runs/time-to-safe", show_default=True, metavar="DIR", help="State and results.")
@click.option("--page", "target", default="docs/time-to-safe.md", show_default=True, metavar="FILE", help="To write.")
@device_option
@click.pass_context
def command(
    context: click.Context,
    overrides: tuple[str, ...],
    recipe: str,
    against: str,
    minutes: float,
    turn: float,
    probe_images: int,
    probe_limit: int,
    confirm_limit: int | None,
    out: str,
    target: str,
    device: str,
) -> None:
    """Race two recipes to at most 10% unsafe pictures with prompt following kept, and write the page.

    Stopped at any moment, the same command goes on where the last turn ended. A larger --minutes goes on, too.
    """
    if recipe == against:
        raise UserError(f"a recipe cannot race against itself; --recipe and --against are both '{recipe}'")
    if minutes <= 0 or turn <= 0:
        raise UserError(f"--minutes is {minutes:g} and --slice is {turn:g}; both must be above 0")
    folder, place = Path(out), pick_device(device, Fleet())
    rules = Rules(
        minutes=minutes,
        probe_images=probe_images,
        probe_limit=probe_limit,
        confirm_limit=confirm_limit,
        device=place,
    )
    recipes = recipes_of((recipe, against), overrides)
    with resumable(command_line(context)):
        same_weights(recipes, folder)
        base = measure_base(recipes[0], rules, folder / "base")
        racers = [Racer(each, rules, folder / each.name, base, say=click.echo) for each in recipes]
        same_weights(recipes, folder)
        race(racers, turn)
    picture = Path(target).with_suffix(".svg")
    write_json(folder / "time-to-safe.json", document(racers, base))
    write_page(Path(target), page(racers, base, rules, command=command_line(context), picture=picture.name))
    write_text(picture, drawing(racers, base))
    click.echo(f"wrote {target}, {picture} and {folder / 'time-to-safe.json'}")


if __name__ == "__main__":
    start(command)
