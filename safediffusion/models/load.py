"""From the words of a user to a policy: MODEL = emoji | folder | hub id | checkpoint file, and + a LoRA or a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from safediffusion.core.digest import sha256
from safediffusion.core.errors import UserError
from safediffusion.core.registry import suggest
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.dynamics import Ddim

from .banks import FrozenBank, FullBank, FullSpec, LoraBank, LoraSpec
from .files import apply_weights
from .policy import Bank, Drawing, Policy, Saving
from .registry import MODELS
from .source import pipeline_class, read_pipeline, save_memory

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ODE = Ddim(0.0)
PLANS = {  # how the pipelines of diffusers sample when nothing is said
    "StableDiffusionPipeline": Plan(steps=50, guidance=7.5, dynamics=ODE),
    "StableDiffusionXLPipeline": Plan(steps=50, guidance=5.0, dynamics=ODE),
    "StableDiffusion3Pipeline": Plan(steps=28, guidance=7.0, dynamics=ODE),
    "FluxPipeline": Plan(steps=28, guidance=1.0, dynamics=ODE),  # its guidance is an input of the network
}


def load_policy(
    model: str,
    *,
    weights: LoraSpec | FullSpec | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    drawing: Drawing = Drawing(),  # noqa: B008
    saving: Saving = Saving(),  # noqa: B008
) -> Policy:
    """The policy of `model`; `weights` says what is trained in it, None for a model that is only sampled from.

    What stands after + is merged into the base, so that the reference of further training is base plus LoRA.
    """
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision '{precision}'; {suggest(precision, PRECISIONS)}")
    base, extras = split(model)
    dtype = PRECISIONS[precision]
    stored = None if precision == "fp32" or isinstance(weights, FullSpec) else dtype
    check_ground(extras)
    pipe = read_pipeline(resolve(base), dtype=stored, exact=bool(extras))
    for extra in extras:
        apply_weights(pipe, weights_file(extra))
    save_memory(pipe, saving)
    backbone = MODELS.get(type(pipe).__name__)(pipe, dtype=dtype, device=device, drawing=drawing, saving=saving)
    bank: Bank
    if weights is None:
        bank = FrozenBank(backbone.network, frozen_dtype=dtype)
    elif isinstance(weights, LoraSpec):
        bank = LoraBank(backbone.network, weights, frozen_dtype=dtype)
    else:
        bank = FullBank(backbone.network, weights, reference_on_cpu=saving.reference_on_cpu)
    return Policy(backbone, bank)


def split(model: str) -> tuple[str, tuple[str, ...]]:
    """The base and what is added to it. A path that exists is never split, whatever its name."""
    if Path(model).exists() or "+" not in model:
        return model, ()
    base, *extras = model.split("+")
    if not base or not all(extras):
        raise UserError(f"'{model}' has an empty part; write BASE+LORA.safetensors or BASE+RUN_FOLDER")
    return base, tuple(extras)


def resolve(base: str) -> Path | str:
    """The folder of `emoji`, or `base` itself."""
    if base == "emoji":
        from safediffusion.worlds.emoji.assets import pipeline_folder

        return pipeline_folder()
    return base


def default_plan(model: str) -> Plan:
    """How `model` is sampled when nothing else is said: sampling.json beside model_index.json, or its family's way."""
    base = resolve(split(model)[0])
    file = Path(base) / "sampling.json"
    if not file.is_file():
        return PLANS.get(pipeline_class(base), PLANS["StableDiffusionPipeline"])
    try:
        raw = json.loads(file.read_text())
        return Plan(steps=int(raw["steps"]), guidance=float(raw["guidance"]), dynamics=Ddim(float(raw["eta"])))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{file} is damaged ({error!r}); it holds {{"steps": 16, "guidance": 2.0, "eta": 0.0}}'
        ) from error


def weights_file(path: str) -> Path:
    """The file of trained weights that `path` means: itself, or a checkpoint of a run folder (EMA first).

    It is the newest one, but the best one of a run that its guard stopped, unless guard.use=last was said.
    """
    given = Path(path)
    if given.is_file():
        return given
    if not given.is_dir():
        raise UserError(f"there is no LoRA file and no run folder at {path}")
    folders = _best(given) or sorted((given / "checkpoints").glob("step-*")) or [given]
    for folder in reversed(folders):
        for name in ("ema.safetensors", "live.safetensors"):
            if (folder / "manifest.json").is_file() and (folder / name).is_file():
                return _verified(folder / name)
    raise UserError(f"{path} holds no finished checkpoint (checkpoints/step-*/manifest.json); train the run first")


def check_ground(extras: Sequence[str]) -> None:
    """UserError where a run follows others than those it was trained on top of: their weights are not what they were.

    What it was trained on may be left out (a category of harm taken away again), not replaced.
    """
    for place, extra in enumerate(extras):
        below = extras[:place]
        trained_on: Mapping[str, str] = _about(Path(extra)).get("weights", {}).get("added", {})
        if len(below) != len(trained_on):
            continue
        for under, was in zip(below, trained_on.values(), strict=True):
            if sha256(weights_file(under)) != was:
                files = sorted(Path(under).glob("checkpoints/step-*/*.safetensors"))
                kept = next((file.parent for file in files if sha256(file) == was), None)
                raise UserError(
                    f"{extra} was trained on top of {under} as it was then; its weights are others now (trained on, or "
                    "other ones taken). "
                    + (f"Name those it was trained on: {kept} in place of {under}" if kept else "Train it anew")
                )


def stopped_by_guard(run: Path) -> dict[str, Any] | None:
    """What run.json says of a guard that stopped this run: `stopped`, `why`, `best`, `use`; None when none did."""
    found = _about(run).get("guard")
    return found if isinstance(found, dict) else None


def _about(run: Path) -> dict[str, Any]:
    """run.json; nothing where there is none. UserError for a damaged one."""
    file = run / "run.json"
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error!r}); put the file back or start a new run") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} is damaged (it is no object); put the file back or start a new run")
    return found


def without_weights(run: Path) -> bool:
    """Whether its guard stopped this run before any weights were better than the base, and the last are not wanted."""
    guard = stopped_by_guard(run)
    return guard is not None and guard["use"] != "last" and not guard["best"]


def _best(run: Path) -> list[Path]:
    """The best checkpoint of a run that its guard stopped; none where the newest is wanted. UserError without one."""
    guard = stopped_by_guard(run)
    if guard is None or guard["use"] == "last":
        return []
    last = f"name {run}/checkpoints/step-NUMBER, or say `safediffusion train {run} --resume guard.use=last`"
    if without_weights(run):
        raise UserError(
            f"{run} was stopped by its guard, and no weights that it saw passed its rule (better than "
            f"the base, within the tolerances); use the base, or for the last weights all the same {last}"
        )
    place = run / "checkpoints" / f"step-{guard['best']:06d}"
    if not place.is_dir():
        raise UserError(f"{place}, the best checkpoint of a run that its guard stopped, is gone; {last}")
    return [place]


def _verified(file: Path) -> Path:
    """`file`, once its digest is the one in the manifest beside it."""
    manifest = file.with_name("manifest.json")
    try:
        recorded = json.loads(manifest.read_text())["files"][file.name]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{manifest} is damaged or does not list {file.name}; use another checkpoint") from error
    if sha256(file) != recorded:
        raise UserError(f"{file} is not what its manifest says: it was cut short or edited; use another checkpoint")
    return file
