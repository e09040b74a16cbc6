"""What several commands share: the device, the words for a model, and options. Imports torch only inside functions."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from safediffusion.core.errors import UserError

if TYPE_CHECKING:
    from safediffusion.config.schema import MemoryConfig
    from safediffusion.core.fleet import Fleet
    from safediffusion.diffusion.denoise import Plan
    from safediffusion.evaluate.benchmark import Kit
    from safediffusion.models.policy import Drawing, Saving

C = TypeVar("C", bound=Callable[..., Any])


def device_option(command: C) -> C:
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")(command)


def timeout_option(command: C) -> C:
    text = "A batch that takes its judges longer is missing.  [default: no limit]"
    kind = click.FloatRange(min=0, min_open=True)
    return click.option("--timeout", type=kind, metavar="SECONDS", help=text)(command)


def plan_options(command: C) -> C:
    """How pictures are drawn, where the model's own sampling.json is not wanted."""
    for name, kind, text in (
        ("eta", float, "Noise of a DDIM step, 0 to 1."),
        ("guidance", float, "Classifier-free guidance; 1 is none."),
        ("steps", int, "Denoising steps."),
    ):
        command = click.option(f"--{name}", type=kind, help=f"{text}  [default: the model's own]")(command)
    return command


def drawing_options(command: C) -> C:
    """What the model is told of its pictures, where neither its own nor its run's is wanted."""
    guided, sized = "Guidance that the network takes as an input (FLUX.1 dev).", "Height and width in pixels."
    command = click.option("--embedded-guidance", type=float, help=guided)(command)
    return click.option("--size", metavar="HxW", help=f"{sized}  [default: the run's or the model's]")(command)


def kit_options(command: C) -> C:
    """What benchmarks and judges need that is no part of this package, each NAME=VALUE and as often as needed."""
    for name, text in (
        ("encoder", "CLIP of a judge or score: a folder, a hub id or emoji.  [default: the published one]"),
        ("source", "Weights of a judge or score: a file, a folder or a hub id.  [default: the published ones]"),
        ("data", "Prompts of a benchmark or prompt set: your file or a hub id; coco-pictures=DIR are real pictures."),
    ):
        option = click.option(f"--{name}", f"{name}s", multiple=True, metavar="NAME=VALUE", help=text)
        command = option(command)
    return command


def kit_for(datas: Sequence[str], sources: Sequence[str], encoders: Sequence[str]) -> Kit:
    """From the options of `kit_options`. UserError names what is no NAME=VALUE, or no name."""
    from safediffusion.config.kit import kit_of, pairs
    from safediffusion.config.schema import EvaluationConfig

    given = EvaluationConfig(
        data=pairs("data", datas), sources=pairs("source", sources), encoders=pairs("encoder", encoders)
    )
    return kit_of(given)


def say_judges(folder: Path) -> None:
    """Who judged in these evaluations, and the licence of each one's weights, on stderr."""
    from safediffusion.evaluate.owners import judges_of
    from safediffusion.evaluate.store import Store, find

    named = [judge for place in find(folder) for judges in judges_of(Store(place)).values() for judge in judges]
    for line in dict.fromkeys(f"{each.id} {each.version}; licence of its weights: {each.licence}" for each in named):
        click.echo(f"judge {line}", err=True)


def drawing_for(model: str, *, size: str | None, embedded_guidance: float | None) -> Drawing:
    """What was asked for; for a run folder, what it was trained with stands behind it."""
    from safediffusion.models.policy import Drawing

    own = _config_of(model).get("plan", {})
    trained = own.get("size")
    given = embedded_guidance if embedded_guidance is not None else own.get("embedded_guidance")
    return Drawing(
        size=size_of(size) if size is not None else tuple(trained) if trained else None, embedded_guidance=given
    )


def means_for(model: str, *, precision: str | None) -> Means:
    """The arithmetic asked for, or that of a run; and what a run gives up for memory.

    Text encoders that training freed are needed again for other prompts: they compute in main memory.
    """
    from safediffusion.config.parse import read_section
    from safediffusion.config.schema import MemoryConfig

    own = _config_of(model)
    memory = read_section(MemoryConfig, own.get("memory", {}), "memory.")
    return means_of(precision or own.get("precision", "fp32"), memory)


def means_of(precision: str, memory: MemoryConfig) -> Means:
    """Of a run's recipe, as `means_for` of its folder."""
    from dataclasses import asdict, replace

    from safediffusion.models.policy import Saving

    saving = Saving(**asdict(memory))
    if saving.text_encoders == "free":
        saving = replace(saving, text_encoders="cpu")
    return Means(precision, saving)


class Means(NamedTuple):
    precision: str
    saving: Saving


def _config_of(model: str) -> dict[str, Any]:
    """The recipe of a run folder; nothing for any other MODEL."""
    return read_config(Path(model)) if (Path(model) / "run.json").is_file() else {}


def size_of(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text.lower())
    if found is None:
        raise UserError(f"--size {text} is no size in pixels; write height x width, e.g. --size 768x512")
    return int(found[1]), int(found[2])


def pick_device(name: str, fleet: Fleet) -> str:
    """`auto` is this process's GPU where there is one, else the CPU. UserError when it cannot be used."""
    import torch

    if name == "auto":
        return f"cuda:{fleet.local}" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device '{name}' cannot be used ({reason}); try --device auto, or `safediffusion doctor`"
        ) from error
    return name


def model_of(text: str) -> str:
    """MODEL as `models.load` reads it: a run folder becomes its base plus its weights, best or newest."""
    path = Path(text)
    if not (path / "run.json").is_file():
        return text
    return f"{read_config(path)['model']}+{text}"


def read_config(run: Path) -> dict[str, Any]:
    """The resolved recipe of a run. UserError when run.json is missing or damaged."""
    file = run / "run.json"
    if not file.is_file():
        raise UserError(f"{run} is no run folder (it has no run.json); start one with `safediffusion train RECIPE`")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error!r}); put the file back or start a new run") from error
    if not isinstance(config, dict):
        raise UserError(f"{file} is damaged (its config is no object); put the file back or start a new run")
    return config


def say_guard(models: Sequence[str]) -> None:
    """Which weights of runs that their guards stopped are meant, of those below another, too, on stderr."""
    from safediffusion.models.load import split, stopped_by_guard

    for model in dict.fromkeys(part for each in models for part in split(model_of(each))[1]):
        guard = stopped_by_guard(Path(model))
        if guard is None or not is_main():
            continue
        told = {"best": f"its best weights, of step {guard['best']}, are taken", "last": "its last weights are taken"}
        other = {"best": "last", "last": "best"}[guard["use"]]
        click.echo(
            f"{model} was stopped by its guard after step {guard['stopped']}: {told[guard['use']]}; for the {other}: "
            f"safediffusion train {model} --resume guard.use={other}",
            err=True,
        )


def is_main() -> bool:
    """Whether this process is the one that speaks, without joining a process group."""
    return os.environ.get("RANK", "0") == "0"


def slug(model: str) -> str:
    """A folder name for a model; of BASE+LORA both have a part in it."""
    from safediffusion.models.load import split

    base, extras = split(model)
    parts = [each.rstrip("/").rsplit("/", 1)[-1].removesuffix(".safetensors") for each in (base, *extras)]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts)) or "model"


def plan_for(model: str, *, steps: int | None, guidance: float | None, eta: float | None) -> Plan:
    """The model's own plan, with what was asked for in its place."""
    from dataclasses import replace

    from safediffusion.diffusion.dynamics import Ddim
    from safediffusion.models.load import default_plan

    plan = default_plan(model)
    if steps is not None:
        plan = replace(plan, steps=steps)
    if guidance is not None:
        plan = replace(plan, guidance=guidance)
    return plan if eta is None else replace(plan, dynamics=Ddim(eta))


def writable(folder: Path) -> Path:
    """A folder to be made or written into. UserError when it, or what it lies in, is a file."""
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise UserError(f"{place} is a file, so no folder {folder} can be written; give another --out")
            break
    return folder


def existing(paths: Sequence[str]) -> list[Path]:
    """Folders that must be there. UserError names the first that is not."""
    for path in paths:
        if not Path(path).is_dir():
            raise UserError(f"there is no folder {path}; give a run folder, or one that `safediffusion evaluate` wrote")
    return [Path(path) for path in paths]
