"""What a record says of commit, versions, machine and files."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from safediffusion.core import provenance


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_that_of_the_checkout_which_tracks_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "provenance.py"
    here.write_text("1")
    monkeypatch.setattr(provenance, "__file__", str(here))
    outside = {"commit": None, "dirty": None}
    assert provenance.source() == outside
    git(tmp_path, "init", "-q")
    assert provenance.source() == outside, "an installed package inside somebody else's checkout"
    git(tmp_path, "add", here.name)
    git(tmp_path, "commit", "-q", "-m", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "untracked").write_text("2")
    assert provenance.source() == {"commit": head, "dirty": False}
    here.write_text("3")
    assert provenance.source() == {"commit": head, "dirty": True}


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    found = provenance.provenance(torch.device("cpu"))
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["no-such-package"] == "not installed"
    assert found["machine"]["device"] == "cpu" and found["machine"]["threads"] == torch.get_num_threads()


def test_the_hashes_of_a_model_folder(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "a.safetensors").write_bytes(b"a")
    (tmp_path / "config.json").write_text("{}")
    assert provenance.weight_hashes(tmp_path) == {"unet/a.safetensors": hashlib.sha256(b"a").hexdigest()}
