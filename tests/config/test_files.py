"""Files that a recipe names are known by what is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from safediffusion.config.files import local_files
from safediffusion.config.load import load_recipe


def test_what_is_read_from_this_machine_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("emoji", "prompts", "compact", "model"):
        Path(name).mkdir()  # names of what ships are no paths
    assert local_files(load_recipe("emoji-steer")) == {}
    assert set(local_files(load_recipe("emoji-steer", ["encoder=model"]))) == {"encoder"}
    Path("mine.txt").write_text("a cat\n")
    Path("pictures/safe").mkdir(parents=True)
    Path("pictures/safe/a.png").write_bytes(b"a")
    keys = ["prompts={}", "prompts.mine.file=mine.txt", "prompts.mine.label=unsafe", "calibration.pictures=pictures"]
    recipe = load_recipe("emoji-steer", keys)
    before = local_files(recipe)
    assert set(before) == {"prompts.mine.file", "calibration.pictures"} and before == local_files(recipe)
    Path("pictures/.cache").mkdir()
    Path("pictures/.cache/seen").write_text("by a program")
    assert local_files(recipe) == before
    Path("pictures/safe/a.png").rename("pictures/safe/b.png")
    moved = local_files(recipe)
    assert moved["calibration.pictures"] != before["calibration.pictures"]
    Path("mine.txt").write_text("a dog\n")
    assert local_files(recipe)["prompts.mine.file"] != moved["prompts.mine.file"]
