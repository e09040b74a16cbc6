"""`safediffusion list`: every name another command or a recipe accepts."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import cast

import click

from safediffusion.cli.methods import METHODS, measured
from safediffusion.core.errors import UserError
from safediffusion.core.registry import Registry, suggest


def _models() -> dict[str, str]:
    return {
        "emoji": "the embedded model, part of the package",
        "FOLDER": "a diffusers folder of SD 1.x, 2.x, SDXL, SD 3, 3.5 or FLUX.1",
        "FILE.safetensors": "a single-file checkpoint of such a model",
        "OWNER/NAME[@REVISION]": "a hub id of such a model",
        "BASE+LORA": "any of these with a LoRA file, or with a run folder's newest weights, merged in",
        "RUN": "a run folder: its base with its newest weights",
    }


def _recipes() -> dict[str, str]:
    from safediffusion.config.load import load_recipe, recipe_names

    return {name: load_recipe(name).about for name in recipe_names()}


def _suites() -> dict[str, str]:
    from safediffusion.evaluate.registry import SUITES

    return {name: ", ".join(members) for name, members in SUITES.items()}


def _anchors() -> dict[str, str]:
    from safediffusion.config.names import anchor_sets

    return anchor_sets()


def _prompts() -> dict[str, str]:
    from safediffusion.config.names import PROMPTS

    return {name: about for name, (_, about) in PROMPTS.items()}


def _methods() -> dict[str, str]:
    """What it is and how it is run; on lines below, its place on the survey's axes and what was measured."""
    known = measured()
    return {
        name: "\n".join(
            [
                f"{m.about} (arXiv {m.arxiv}): {m.command}",
                m.axes,
                known[name].words if name in known else "not measured",
            ]
        )
        for name, m in METHODS.items()
    }


def _described(registry: Registry) -> dict[str, str]:
    """Name -> the first paragraph of the file that defines it."""
    return {name: _summary(registry.get(name)) for name in registry.names()}


def _summary(found: object) -> str:
    text = inspect.getdoc(inspect.getmodule(found)) or inspect.getdoc(found) or ""
    return " ".join(text.split("\n\n")[0].split())


def _benchmarks(registry: Registry) -> dict[str, str]:
    from safediffusion.evaluate.registry import load_benchmark

    return {name: load_benchmark(name).about for name in registry.names()}


def _judges(registry: Registry) -> dict[str, str]:
    """Name -> what the function that makes it says, which is about one judge where a file has several."""
    return {name: " ".join((inspect.getdoc(registry.get(name)) or "").split()) for name in registry.names()}


REGISTRIES = {
    "scorers": ("safediffusion.scorers.registry", "SCORERS", _described),
    "credits": ("safediffusion.credit.registry", "CREDITS", _described),
    "objectives": ("safediffusion.objectives.registry", "OBJECTIVES", _described),
    "benchmarks": ("safediffusion.evaluate.registry", "BENCHMARKS", _benchmarks),
    "judges": ("safediffusion.judges.registry", "JUDGES", _judges),
}
TABLES: Mapping[str, Callable[[], dict[str, str]]] = {
    "models": _models,
    "recipes": _recipes,
    "anchors": _anchors,
    "prompts": _prompts,
    "methods": _methods,
    "suites": _suites,
}
KINDS = (
    "models",
    "recipes",
    "scorers",
    "judges",
    "anchors",
    "prompts",
    "credits",
    "objectives",
    "methods",
    "benchmarks",
    "suites",
)


def _registry(kind: str) -> Registry:
    module, name, _ = REGISTRIES[kind]
    return cast(Registry, getattr(importlib.import_module(module), name))


def names(kind: str) -> tuple[str, ...]:
    """Every name of a kind."""
    return _registry(kind).names() if kind in REGISTRIES else tuple(TABLES[kind]())


def entries(kind: str) -> dict[str, str]:
    """Name -> description of everything of a kind. UserError names the nearest kind."""
    if kind not in KINDS:
        raise UserError(f"there is nothing called '{kind}' to list; {suggest(kind, KINDS)}")
    return REGISTRIES[kind][2](_registry(kind)) if kind in REGISTRIES else TABLES[kind]()


@click.command("list", short_help="Every name that commands and recipes accept.")
@click.argument("kind", required=False, metavar="[KIND]")
def command(kind: str | None) -> None:
    """List what other commands and recipes accept.

    KIND is one of models, recipes, scorers, judges, anchors, prompts, credits, objectives, methods, benchmarks and
    suites; without it, the names of every kind.
    """
    if kind is None:
        for each in KINDS:
            click.echo(f"{each:<12}{', '.join(names(each))}")
        return
    found = entries(kind)
    width = max(map(len, found)) + 2
    for name, about in found.items():
        first, *more = about.split("\n")
        click.echo("\n".join([f"{name:<{width}}{first}", *(" " * width + line for line in more)]))
