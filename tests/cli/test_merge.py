"""`merge`: LoRAs of one base as one file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safediffusion.cli.main import run
from tests.models.test_experts import expert


def test_files_are_merged_and_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    experts = [expert(tmp_path, 0), expert(tmp_path, 1)]
    assert run(["merge", *experts, "--out", "both.safetensors", "--weights", "1,0.5"]) == 0
    assert "safediffusion evaluate BASE+both.safetensors" in capsys.readouterr().out
    kept = Path("both.safetensors").read_bytes()
    for line, message in (
        (["--out", "both.safetensors"], "is there already"),
        (["--out", "both.safetensors/x.safetensors"], "both.safetensors is a file, so no folder"),
        (["--out", "other.safetensors", "--weights", "1,x"], "is no list of numbers"),
        (["--out", "other.safetensors", "--weights", "nan,1"], "is no list of numbers"),
        (["--out", "other.safetensors", "--weights", "1"], "2 experts and 1 weights"),
    ):
        assert run(["merge", *experts, *line]) == 2
        assert message in capsys.readouterr().err
    assert Path("both.safetensors").read_bytes() == kept and not Path("other.safetensors").exists()


def test_runs_that_do_not_add_up_are_not_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, model in (("a", "emoji"), ("b", "emoji+a"), ("c", "other")):
        Path(name).mkdir()
        Path(name, "run.json").write_text(json.dumps({"config": {"model": model}}))
    assert run(["merge", "a", "c", "--out", "x.safetensors"]) == 2
    assert "a was trained on emoji and c on other" in capsys.readouterr().err
    assert run(["merge", "b", "--out", "x.safetensors"]) == 2
    assert "b was trained on top of a, which is not among the runs" in capsys.readouterr().err


def test_whose_best_weights_are_merged_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    guard = {"stopped": 6, "why": "harm", "best": 4, "use": "best"}
    Path("a/run.json").write_text(json.dumps({"config": {"model": "emoji"}, "guard": guard}))
    assert run(["merge", "a", "--out", "x.safetensors"]) == 2  # step 4 is not there
    told = capsys.readouterr().err
    assert "a was stopped by its guard after step 6: its best weights, of step 4, are taken" in told
    assert "the best checkpoint of a run that its guard stopped, is gone" in told
