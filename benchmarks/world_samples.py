"""The embedded world to look at: sheets of pictures, the curves of its fits, and docs/worlds/README.md."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import floors, sheet
from benchmarks.figure import Line, Panel, figure
from benchmarks.page import duration, table, write_page
from benchmarks.start import command_line, made_by, start
from safediffusion.cli.common import device_option, model_of, pick_device, plan_for, slug
from safediffusion.cli.progress import bar
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.prompt import Prompt
from safediffusion.core.stats import Estimate
from safediffusion.evaluate.generate import draw
from safediffusion.evaluate.geneval import TASKS
from safediffusion.evaluate.rows import Row
from safediffusion.evaluate.run import digest
from safediffusion.evaluate.store import read_json, write_text
from safediffusion.models.load import load_policy
from safediffusion.worlds.emoji.assets import ROOT, verify
from safediffusion.worlds.emoji.prompts import evaluation
from safediffusion.worlds.emoji.vocabulary import CATEGORIES

SHIPPED = ROOT / "manifest.json"
SHOWN = "-shown"  # a sheet without blur, which the page leaves out
Kinds = dict[str, tuple[Prompt, ...]]


def kinds(count: int) -> Kinds:
    """The rows of a sheet: `count` held-out prompts of every task, mixed ones, and of every harm category."""
    tasks = {title: _spread(_tagged("geneval", "task", task), count) for task, title in TASKS.items()}
    mixed = {"mixed, unsafe": _spread(evaluation("keep"), count)}
    harm = {category: _spread(_alone(_tagged("i2p", "category", category)), count) for category in CATEGORIES}
    return tasks | mixed | harm


def _tagged(name: str, tag: str, value: str) -> tuple[Prompt, ...]:
    return tuple(prompt for prompt in evaluation(name) if prompt.tags[tag] == value)


def _alone(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    return tuple(prompt for prompt in prompts if "keep" not in prompt.tags)


def _spread(prompts: Sequence[Prompt], count: int) -> tuple[Prompt, ...]:
    """`count` of them, evenly; all where there are fewer."""
    count = min(count, len(prompts))
    return tuple(prompts[i * len(prompts) // count] for i in range(count))


def covered(prompt: Prompt) -> bool:
    return prompt.tags.get("label") == "unsafe"


def draw_sheet(model: str, rows: Kinds, *, seed: int, device: str, show: bool) -> Image.Image:
    """The same prompts and noise for every model; row by row through the network."""
    loaded = model_of(model)
    policy = load_policy(loaded, device=device)
    plan = plan_for(loaded, steps=None, guidance=None, eta=None)
    drawn = []
    with bar(f"drawing {slug(model)}") as progress:
        for number, (title, prompts) in enumerate(rows.items()):
            items = [_item(prompt, seed) for prompt in prompts]
            images = [Image.fromarray(pixels) for pixels in draw(policy, items, plan)]
            cells = tuple(
                sheet.Cell(image=image, text=prompt.text, covered=covered(prompt) and not show)
                for image, prompt in zip(images, prompts, strict=True)
            )
            drawn.append(sheet.Row(title=title, cells=cells))
            progress(number + 1, len(rows))
    words = f"{slug(model)}: {plan.steps} steps, guidance {plan.guidance:g}, seed {seed}, prompts never trained on"
    return sheet.sheet(words, drawn)


def _item(prompt: Prompt, seed: int) -> Row:
    return Row(
        benchmark="sheet", key=prompt.id, prompt=prompt.id, text=prompt.text, seed=seed, repeat=0, tags=prompt.tags
    )


Log = list[dict[str, float]]


def read_log(path: Path) -> Log:
    """The lines of a fit's log by step; a step that was done twice after a stop counts as it was done last."""
    found: dict[float, dict[str, float]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            raw = json.loads(line)
            found[raw["step"]] = {key: float(value) for key, value in raw.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}, line {number} is no line of a training log ({error!r}); remove it") from error
    return [found[step] for step in sorted(found)]


def seconds_of(log: Log) -> float:
    """Training seconds over all sessions; the clock of each starts at 0."""
    total, last = 0.0, 0.0
    for line in log:
        total += line["s"] - last if line["s"] >= last else line["s"]
        last = line["s"]
    return total


def plot(logs: Mapping[str, Log]) -> str:
    """The loss of every fit, with its terms where they are logged."""
    panels = []
    for name, log in logs.items():
        terms = [key for key in log[0] if key not in ("step", "s", "norm")]
        lines = tuple(
            Line(label=term, points=[(line["step"], line[term]) for line in log if line.get(term, 0.0) > 0])
            for term in terms
        )
        panels.append(Panel(title=f"{name}: loss", x="step", lines=lines, smooth=True, logarithmic=True))
    return figure("Losses of the world's fits", panels)


def readme(
    folder: Path, manifest: Mapping[str, Any], base: Mapping[str, Estimate], logs: Mapping[str, Log], *, command: str
) -> list[str]:
    """docs/worlds/README.md."""
    measured = {key: float(value) for key, value in manifest.get("floors", {}).items()}
    sets = floors.anchor_sets(measured)
    rows = [floor.row() for floor in floors.models(measured, base)]
    sheets = sorted(path for path in folder.glob("samples-*.png") if not path.stem.endswith(SHOWN))
    return [
        "# The embedded world `emoji`",
        "",
        *made_by(command),
        "",
        "Its models are made by `python -m safediffusion.worlds.emoji.build all`, from scenes that are drawn anew.",
        "",
        "## Floors",
        "",
        *table(["what", "measured", "required", ""], rows),
        "",
        "The safety direction in the encoder: AUC of z(x)\u00b7v_safe on fresh scenes, v_safe from anchor texts alone.",
        "",
        *table(["", *sets, "required", "all sets"], floors.direction(measured, sets)),
        "",
        "## How it was made",
        "",
        *_made(manifest, logs),
        *(["", "![Losses of the world's fits](training.svg)"] if logs else []),
        "",
        "## Pictures",
        "",
        "Unsafe pictures are blurred here; `python -m benchmarks.world_samples --show` draws them as they are.",
        *[
            line
            for path in sheets
            for line in ("", f"![Pictures of {path.stem.removeprefix('samples-')}]({path.name})")
        ],
    ]


def _made(manifest: Mapping[str, Any], logs: Mapping[str, Log]) -> list[str]:
    facts = [f"{key}: {value}" for key, value in manifest.items() if isinstance(value, str | int)]
    if "bytes" in manifest:
        facts = [f"{manifest['bytes'] / 2**20:.1f} MiB in all", *(f for f in facts if not f.startswith("bytes"))]
    rows = [
        [name, f"{log[-1]['step'] + 1:.0f}", duration(seconds_of(log)), f"{log[-1]['loss']:.3f}"]
        for name, log in logs.items()
    ]
    told = table(["fit", "steps", "training", "last loss"], rows) if rows else ["No training log is kept here."]
    return [*told, "", *[f"- {fact}" for fact in facts]]


def read_manifest(path: Path) -> dict[str, Any]:
    """What was measured when the world was packaged. UserError when the shipped files are not those it speaks of."""
    if not path.is_file():
        raise UserError(f"the world's manifest is missing at {path}; build the world, or give --manifest")
    if path == SHIPPED:
        verify()
    return read_json(path)


def read_base(folder: Path, *, model: str = "emoji") -> dict[str, Estimate]:
    """What an evaluation of the base found; nothing where there is none, or where it is of other weights."""
    path = folder / "report.json"
    if not path.is_file():
        return {}
    if read_json(folder / "eval.json").get("network") != digest(load_policy(model)):
        click.echo(f"{folder} is an evaluation of other weights than {model} has now; it is left out", err=True)
        return {}
    return {key: Estimate(**e) for key, e in read_json(path)["metrics"].items()}


@click.command("world_samples")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--count", type=click.IntRange(1, 20), default=8, show_default=True, help="Pictures a row.")
@click.option("--seed", default=0, show_default=True, help="Of the noise.")
@click.option("--show", is_flag=True, help="Do not blur what unsafe prompts ask for.")
@click.option("--redraw", is_flag=True, help="Draw sheets that are there already, too.")
@click.option("--out", default="docs/worlds", show_default=True, metavar="DIR", help="Sheets, figure and README.md.")
@click.option("--logs", metavar="DIR", help="Where the fits' *.jsonl lie.  [default: the folder of --out]")
@click.option("--manifest", default=str(SHIPPED), metavar="FILE", help="[default: the shipped one]")
@click.option(
    "--evaluation",
    default="runs/results/base/eval/emoji-full",
    show_default=True,
    metavar="DIR",
    help="An evaluation of the base, for the pipeline's floors.",
)
@device_option
@click.pass_context
def command(
    context: click.Context,
    models: tuple[str, ...],
    count: int,
    seed: int,
    show: bool,
    redraw: bool,
    out: str,
    logs: str | None,
    manifest: str,
    evaluation: str,
    device: str,
) -> None:
    """Draw a sheet of each MODEL (default: emoji) or run folder, plot the fits and write the world's page.

    A sheet that is there is kept, so a stopped command goes on; --redraw makes all of them anew.
    """
    folder, place = Path(out), pick_device(device, Fleet())
    folder.mkdir(parents=True, exist_ok=True)
    rows = functools.cache(kinds)
    for model in models or ("emoji",):
        target = folder / f"samples-{slug(model)}{SHOWN if show else ''}.png"
        if redraw or not target.is_file():
            partial = target.with_name(f".{target.name}")
            draw_sheet(model, rows(count), seed=seed, device=place, show=show).save(partial, "png", optimize=True)
            partial.replace(target)
            click.echo(f"wrote {target}")
    found = {path.stem: read_log(path) for path in sorted(Path(logs or out).glob("*.jsonl"))}
    found = {name: log for name, log in found.items() if log}
    if found:
        write_text(folder / "training.svg", plot(found))
    facts, base = read_manifest(Path(manifest)), read_base(Path(evaluation))
    write_page(folder / "README.md", readme(folder, facts, base, found, command=command_line(context)))
    click.echo(f"wrote {folder / 'README.md'}")


if __name__ == "__main__":
    start(command)
