"""From a recipe to its guard: when it looks, who may look, and what it costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from safediffusion.config.build import build_experiment
from safediffusion.config.cost import forecast
from safediffusion.config.guard import looks
from safediffusion.config.load import load_recipe
from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.scorers.base import ImageBatch
from safediffusion.train.metrics import read_metrics
from safediffusion.train.run import train
from safediffusion.worlds.emoji.assets import calibration
from safediffusion.worlds.emoji.witness import EmojiFeatures, EmojiWitness
from tests import small


def test_a_look_is_paid_with_one_in_twenty_pictures() -> None:
    assert looks(load_recipe("emoji-steer")) == 5  # 48 of 5 x 192
    assert looks(load_recipe("emoji-steer", ["steps=4"])) == 0
    assert looks(load_recipe("emoji-steer", ["guard.every=0"])) == 0
    assert looks(load_recipe("emoji-steer", ["guard.every=7"])) == 7


def test_a_recipe_s_guard_looks_and_costs_what_was_forecast(folders: small.Folders, tmp_path: Path) -> None:
    panel = ["guard.every=1", "guard.prompts=3", "guard.repeats=2", "guard.stop=false"]
    recipe = load_recipe("emoji-steer", [*folders.small, *panel])
    result = train(build_experiment(recipe), tmp_path / "run")
    expected, lines = forecast(recipe), read_metrics(tmp_path / "run")
    assert expected.guard == (1 + 2) * 6 * 3 == lines[-1]["guard/unet_forwards"]
    assert result.unet_forwards == lines[-1]["unet_forwards"] <= expected.forwards
    assert any(line.startswith("guard            54 ") for line in expected.lines())
    measured = {key for key in lines[-1] if key.startswith("guard/change/")}
    assert measured == {
        f"guard/change/{name}" for name in ("edges", "entropy", "saturation", "sharpness", "diversity", "frechet")
    }


def test_what_nothing_rewards_is_guarded_too(folders: small.Folders, tmp_path: Path) -> None:
    assert looks(load_recipe("emoji-safety-dpo")) == 10  # 48 of 5 x 96
    panel = ["guard.every=1", "guard.prompts=3", "guard.repeats=2", "guard.tolerances={frechet: 1.0e-9}"]
    recipe = load_recipe("emoji-safety-dpo", [*folders.small, *panel])
    result = train(build_experiment(recipe), tmp_path / "run")
    last = read_metrics(tmp_path / "run")[-1]
    assert not result.stopped and last["guard/unet_forwards"] == forecast(recipe).guard > 0
    assert last["guard/worst"] > 1 and last["guard/best"] == 0 and not {"guard/reward", "guard/gain"} & last.keys()


def test_where_nothing_is_drawn_no_share_of_it_is_spared(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("")
    files = ["prompts={}", "preferences.source=files", f"preferences.files={tmp_path / 'pairs.jsonl'}"]
    assert looks(load_recipe("emoji-safety-dpo", files)) == 0
    assert looks(load_recipe("emoji-safety-dpo", [*files, "guard.every=7"])) == 7


def test_what_is_optimised_cannot_guard() -> None:
    with pytest.raises(UserError, match=r"guard.judges names q16, which is in `scorers`"):
        load_recipe("emoji-steer", ["scorers={q16: 1.0}", "guard.judges=[q16]"])
    boxes = ["objective.region=nudenet", "objective.share=null"]
    with pytest.raises(UserError, match=r"guard.judges names nudenet, which is .* `objective.region`"):
        load_recipe("emoji-focus-n-fix", [*boxes, "guard.judges=[nudenet]"])
    assert load_recipe("emoji-focus-n-fix", [*boxes, "guard.judges=[q16]"]).guard.judges == ("q16",)
    with pytest.raises(UserError, match=r"guard.judges names q16, which is .* `attack.score`"):
        load_recipe("emoji-attacked", ["attack.score=q16", "guard.judges=[q16]"])
    with pytest.raises(UserError, match="guard.encoder is emoji, the reward's own encoder"):
        load_recipe("emoji-steer", ["guard.encoder=emoji"])
    with pytest.raises(UserError, match=r"guard.tolerances.unsafe is 0, of which no share can be used up"):
        load_recipe("emoji-steer", ["guard.tolerances={unsafe: 0}"])
    with pytest.raises(UserError, match="unknown judge 'q61'"):
        load_recipe("emoji-steer", ["guard.judges=[q61]"])


def test_the_embedded_world_s_detector_looks() -> None:
    images, labels = calibration()
    rows = [next(i for i, label in enumerate(labels) if label["unsafe"] is unsafe) for unsafe in (True, False)]
    prompts = (
        Prompt(id="a", text="a knife", tags={"label": "unsafe"}),
        Prompt(id="b", text="a phoenix", tags={"label": "safe", "task": "single_object", "want": "phoenix:1"}),
    )
    found = EmojiWitness()(ImageBatch(images[rows], prompts))
    assert found["unsafe"].tolist() == [1.0, 0.0]
    assert torch.isnan(found["follow"][0]) and float(found["follow"][1]) == 0.0
    assert EmojiFeatures()(images[rows], torch.zeros(2, 4, 16, 16)).shape == (2, 128)
