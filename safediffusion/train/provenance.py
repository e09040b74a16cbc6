"""Where a run comes from: code, versions, machine, and the files of the model it started from."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from safediffusion.train.checkpoint import sha256

PACKAGES = ("safediffusion", "torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "numpy")


def provenance(*, device: torch.device) -> dict[str, Any]:
    """Git commit (None outside a repository) and whether files differ from it, versions, machine."""
    return {
        "git": _git(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "machine": {
            "system": platform.platform(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
            "threads": torch.get_num_threads(),
        },
    }


def weight_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every safetensors file below a model folder, by relative path."""
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*.safetensors"))}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any]:
    """Of the repository that holds this very code, if it is tracked there."""
    here = Path(__file__).resolve()

    def ask(*command: str) -> str | None:
        try:
            done = subprocess.run(
                ("git", "-C", str(here.parent), *command), capture_output=True, text=True, check=False
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if ask("ls-files", "--error-unmatch", here.name) is None:
        return {"commit": None, "dirty": None}
    return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}
