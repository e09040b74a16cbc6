"""A study notices that its weights were replaced."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.guard import FILE, same_weights, weights
from safediffusion.config.load import load_recipe
from safediffusion.core.errors import UserError
from tests import small, tiny


def test_replaced_weights_stop_a_study(folders: small.Folders, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(folders.model, model)
    recipe = load_recipe("emoji-steer", [*folders.small, f"model={model}"])
    names = [name for name in weights([recipe]) if not name.startswith("judge/")]
    assert sum(name.startswith("emoji-steer/model/unet/") for name in names) == 1
    assert sum(name.startswith("emoji-steer/encoder/") for name in names) == 1
    study = tmp_path / "study"
    same_weights([recipe], study)
    same_weights([recipe], study)
    assert (study / FILE).is_file()
    tiny.pipeline(seed=1).unet.save_pretrained(model / "unet")
    with pytest.raises(UserError, match=r"emoji-steer/model/unet/.* is not the file that the study in .* began with"):
        same_weights([recipe], study)
    same_weights([recipe], tmp_path / "another")
