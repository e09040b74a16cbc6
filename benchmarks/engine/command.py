"""The command: what is run, in which order, and what is written."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.engine.arithmetic import encoder_bytes, flops_of, work_of
from benchmarks.engine.page import Shipped, Study, page
from benchmarks.engine.ratios import measure_ratios
from benchmarks.engine.stand_in import StandIn, stand_in_encoder, stand_in_model
from benchmarks.engine.turns import Contestant, take_turns
from benchmarks.page import duration, write_page
from benchmarks.start import command_line, made_by
from safediffusion.cli.common import device_option, pick_device, slug
from safediffusion.config.cost import forecast
from safediffusion.config.load import load_recipe, to_plain
from safediffusion.config.objectives import GrpoConfig
from safediffusion.config.schema import Recipe
from safediffusion.core import provenance
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.evaluate.store import write_json
from safediffusion.models.source import is_hub_id

PAIR, ALONE = ("sd15-steer", "r1-released"), ("sdxl-steer",)
SAID = f"{', '.join(PAIR)}, and on a GPU {', '.join(ALONE)}"
IMAGES = {"cpu": 8, "cuda": 16}  # of a step


def smaller(recipe: Recipe, *, images: int, reduced: bool) -> list[str]:
    """Overrides for a step of about `images` pictures, each drawn and trained as the recipe does it.

    An update takes the recipe's own number of pictures, or all there are. `reduced` halves the plan as well, and fits
    rank and precision to a reduced architecture on a CPU.
    """
    size = min(recipe.group_size, images)
    groups = max(1, images // size)
    share = groups * size / (recipe.groups * recipe.group_size)
    found: dict[str, object] = {
        "groups": groups,
        "group_size": size,
        "objective.updates": max(1, round(recipe.objective.updates * share)),
        "steering.alpha": 0.5 if recipe.steering.alpha == "auto" else recipe.steering.alpha,  # few prompts, few steered
        "log": "[]",
        "guard.every": 0,  # steps alone are measured; its encoder need not be there
    }
    if reduced:
        plan, objective = recipe.plan, recipe.objective
        trained = objective.steps_per_image if isinstance(objective, GrpoConfig) else None
        found |= {"precision": "fp32", "plan.steps": max(1, plan.steps // 2)}
        if recipe.weights.kind == "lora":
            found["weights.rank"] = max(1, recipe.weights.rank // 8)
        if plan.window is not None:
            first, last = plan.window
            found["plan.window"] = [first // 2, max(first // 2 + 1, last // 2)]
        if trained is not None:
            found["objective.steps_per_image"] = max(1, trained // 2)
    return [f"{key}={value}" for key, value in found.items()]


def changed(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> list[str]:
    """`groups 32 to 1` for every key that differs, but for where model and encoder lie and what is logged."""
    found = []
    for key, old in before.items():
        new, name = after[key], f"{path}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping) and old.keys() == new.keys():
            found += changed(old, new, f"{name}.")
        elif old != new and name not in ("model", "encoder", "log"):
            found.append(f"{name} {_plain(old)} to {_plain(new)}")
    return found


def _plain(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else "null" if value is None else str(value)


ADAPTER = ("weights.rank", "weights.alpha", "weights.targets", "weights.within")  # not of a recipe of all weights


class Bench:
    """Recipes on stand-ins for their models and encoders, which lie in one folder."""

    def __init__(self, folder: Path, device: str, *, images: int | None, size: int | None) -> None:
        self.device, self.kind = device, torch.device(device).type
        self.reduced = False  # whether the architecture of any recipe is
        self.changes: dict[str, Sequence[str]] = {}  # as in `Study`
        self._folder, self._images = folder, images or IMAGES.get(self.kind, IMAGES["cpu"])
        self._size = [] if size is None else [f"plan.size=[{size},{size}]"]

    def overrides(self, name: str, given: Sequence[str]) -> list[str]:
        """All that makes recipe `name` the one that is measured; `given`, which is for all recipes, comes last."""
        shipped = load_recipe(name)
        reduced = self.kind != "cuda" and is_hub_id(shipped.model)
        model, encoder = self._stand_in(shipped, reduced=reduced)
        found = [f"model={model.source}", f"encoder={encoder.source}", *self._size]
        adapted = shipped.weights.kind == "lora"
        own = [text for text in given if adapted or text.partition("=")[0] not in ADAPTER]
        found += [*smaller(shipped, images=self._images, reduced=reduced), *own]
        self.changes[name] = changed(to_plain(shipped), to_plain(load_recipe(name, found)))
        self.changes |= {shipped.model: model.changes, shipped.encoder: encoder.changes}
        self.reduced |= reduced
        return found

    def _stand_in(self, recipe: Recipe, *, reduced: bool) -> tuple[StandIn, StandIn]:
        place = [self._folder / slug(name) for name in (recipe.model, recipe.encoder)]
        return (
            stand_in_model(recipe.model, place[0], reduced=reduced, device=self.device),
            stand_in_encoder(recipe.encoder, place[1], reduced=reduced, device=self.device),
        )

    def shipped(self, name: str) -> Shipped | None:
        """What the recipe takes as it ships; None where its model is no published one."""
        recipe = load_recipe(name, self._size)
        if not is_hub_id(recipe.model):
            return None
        memory = forecast(recipe).memory
        scorers = encoder_bytes(recipe.encoder) if memory.uncounted else 0  # what is not on this machine
        return Shipped(recipe=name, work=work_of(recipe), flops=flops_of(recipe), memory=memory.peak + scorers)


@click.command("engine")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--recipe", "names", multiple=True, help="May be repeated.  [default: sd15-steer, r1-released; GPU: sdxl-steer]"
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=3, show_default=True, help="Measured steps of each recipe."
)
@click.option("--images", type=click.IntRange(min=2), help="Pictures a step.  [default: 8 on a CPU, 16 on a GPU]")
@click.option("--size", type=click.IntRange(min=8), help="Side of the pictures in pixels.  [default: the model's own]")
@click.option("--minutes", type=float, default=8.0, show_default=True, help="No further round begins after that.")
@click.option("--out", default="runs/engine", show_default=True, metavar="DIR", help="Where the JSON goes.")
@click.option("--page", "target", default="docs/engine.md", show_default=True, metavar="FILE", help="To write.")
@device_option
@click.pass_context
def command(
    context: click.Context,
    overrides: tuple[str, ...],
    names: tuple[str, ...],
    steps: int,
    images: int | None,
    size: int | None,
    minutes: float,
    out: str,
    target: str,
    device: str,
) -> None:
    """Measure recipes in turns on networks of random weights, the first against the second, and write the page.

    On a GPU the architectures are the published ones, elsewhere reduced ones of the same classes. KEY=VALUE is for all
    recipes. A time is only worth something when nothing else runs: it always measures anew.
    """
    began, load = time.perf_counter(), os.getloadavg()[0]
    place = pick_device(device, Fleet())
    kind = torch.device(place).type
    names = names or (PAIR + ALONE if kind == "cuda" else PAIR)
    if len(set(names)) < len(names):
        raise UserError(f"--recipe names a recipe twice ({', '.join(names)}); give each once")
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), place, images=images, size=size)
        given = {name: bench.overrides(name, overrides) for name in names}
        ratios = [row for name in names for row in measure_ratios(name, given[name], device=place)]
        click.echo(f"ratios measured after {duration(time.perf_counter() - began)}")
        recipes = [load_recipe(name, given[name]) for name in names]
        flops = [flops_of(recipe) for recipe in recipes]
        shipped = [found for name in names if (found := bench.shipped(name)) is not None]
        click.echo(f"operations counted after {duration(time.perf_counter() - began)}")
        left = 60 * minutes - (time.perf_counter() - began)
        contestants = [Contestant(recipe, place) for recipe in recipes]
        results = take_turns(contestants, flops, rounds=steps, seconds=left, say=click.echo)
    study = Study(
        results=results,
        shipped=shipped,
        ratios=ratios,
        changes=bench.changes,
        reduced=bench.reduced,
        device=kind,
        load=load,
    )
    Path(out).mkdir(parents=True, exist_ok=True)
    write_json(Path(out) / "engine.json", asdict(study))
    write_page(Path(target), page(study, made=made_by(command_line(context)), cores=provenance.cores()))
    click.echo(f"wrote {target} after {duration(time.perf_counter() - began)}")
