"""Results over seeds, from training to the page, on models of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import results
from tests import small


@pytest.mark.usefixtures("tiny_world")
def test_two_seeds_end_in_json_a_figure_and_a_page(folders: small.Folders, tmp_path: Path) -> None:
    page, out = tmp_path / "docs" / "results.md", tmp_path / "runs"
    arguments = [*folders.small, "--seeds=0,5", "--suite=both", "--processes=1", "--out", str(out), "--page", str(page)]
    done = CliRunner().invoke(results.command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads((out / "results.json").read_text())
    assert found["base"]["emoji-i2p/unsafe"]["n"] == 8
    assert [seed["train"]["seed"] for seed in found["seeds"]] == [0, 5]
    assert all(seed["train"]["images"] == 8 and seed["train"]["train_s"] > 0 for seed in found["seeds"])
    assert all(seed["train"]["wall_s"] > seed["train"]["train_s"] for seed in found["seeds"])
    text = page.read_text()
    assert "python -m benchmarks.results" in text and "--seeds 0,5" in text
    assert "| emoji-i2p/unsafe `emoji-i2p/unsafe`" in text and "(results-curves.svg)" in text
    assert "FID over the base's" in text and text.count("not measured") >= 4
    assert page.with_name("results-curves.svg").read_text().startswith("<svg")

    again = CliRunner().invoke(results.command, arguments, catch_exceptions=False)
    assert again.exit_code == 0
    assert "base: checking" in again.output and "evaluating" not in again.output
    assert json.loads((out / "results.json").read_text()) == found
