"""Where numbers come from: package versions, source commit, machine. No torch."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "safediffusion",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "numpy",
    "pillow",
    "safetensors",
)


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
    """Commit of the checkout this package runs from and whether it has uncommitted changes; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}
    commit, status = (_git(root, *words) for words in (("rev-parse", "HEAD"), ("status", "--porcelain")))
    return {"commit": commit or None, "dirty": None if status is None else bool(status)}


def machine() -> dict[str, str | int]:
    return {"system": f"{platform.system()} {platform.machine()}", "cpus": os.cpu_count() or 0}


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
