"""Where numbers come from: source commit, package versions, machine, and the files of a model."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .digest import sha256

PACKAGES = (
    *("safediffusion", "torch", "diffusers", "transformers", "peft", "accelerate"),
    *("safetensors", "numpy", "pillow"),
)


def provenance(device: torch.device) -> dict[str, Any]:
    """What a run's or an evaluation's record says of how it came to be, as JSON."""
    return {"source": source(), "versions": versions(), "machine": machine(device)}


def versions() -> dict[str, str]:
    """Version of Python and of every package that can change a number; "not installed" where there is none."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def source() -> dict[str, str | bool | None]:
    """Commit of the checkout that tracks this very file and whether a tracked file differs; None outside a checkout."""
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return {"commit": None, "dirty": None}
    status = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    return {"commit": _git(here.parent, "rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def has_bf16() -> bool:
    """Whether torch computes bf16 on this CPU as fast as it may: AVX-512 is the least of an x86 one, others have it."""
    below = torch.backends.cpu.get_cpu_capability() in ("AVX2", "DEFAULT", "NO AVX")
    return not (below and "86" in platform.machine())


def machine(device: torch.device) -> dict[str, str | int]:
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpus": cores(),
        "threads": torch.get_num_threads(),
    }


def weight_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every safetensors file below a model folder, by relative path."""
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*.safetensors"))}


def _git(folder: Path, *words: str) -> str | None:
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
