"""The profile of a training step: its parts are all there and add up to the step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import profile_step
from benchmarks.profile_step import BACKWARD, CREDIT, DECODING, PARTS, REFERENCE, SAMPLING, SCORING, TRAINING, Profile
from tests import small


def test_both_recipes_land_between_the_markers(folders: small.Folders, tmp_path: Path) -> None:
    page, out = tmp_path / "performance.md", tmp_path / "runs"
    page.write_text("# Performance\n\nBy hand.\n")
    arguments = [
        *folders.small,
        "objective.kl=0.01",
        "--steps",
        "2",
        "--warmup",
        "1",
        "--rounds",
        "2",
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(profile_step.command, [*arguments, "--page", str(page)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads((out / "emoji-steer.json").read_text())
    assert len(found["steps"]) == 2 and found["images"] == 4 and found["items"] == 8
    for step in found["steps"]:
        assert set(step) <= set(PARTS)
        assert all(step[part] > 0 for part in (SAMPLING, DECODING, SCORING, CREDIT, TRAINING, REFERENCE, BACKWARD))
    assert [speed["batch"] for speed in found["unet"]] == [4, 8] and all(speed["ms"] > 0 for speed in found["unet"])
    text = page.read_text()
    assert "By hand." in text and "### emoji-steer" in text and "required is below 10%" in text


def test_shares_are_of_the_mean_step() -> None:
    profile = Profile(
        recipe="r",
        config={},
        steps=({SAMPLING: 1.0, SCORING: 1.0}, {SAMPLING: 5.0, CREDIT: 1.0}),
        images=1,
        items=1,
        unet=(),
    )
    assert profile.means[SAMPLING] == 3.0
    assert profile.share(SAMPLING) == pytest.approx(0.75)
    assert profile.share(SCORING, CREDIT) == pytest.approx(0.25)
