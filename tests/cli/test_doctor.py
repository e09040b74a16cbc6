"""`safediffusion doctor`."""

from __future__ import annotations

import pytest

from safediffusion.cli import doctor
from safediffusion.cli.main import run
from safediffusion.core.errors import UserError
from safediffusion.worlds.emoji import assets


def test_everything_that_is_needed_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assets, "verify", lambda: {"a": "b", "c": "d"})
    assert run(["doctor"]) == 0
    shown = capsys.readouterr().out
    for name in ("Python 3.", "torch ", "diffusers ", "transformers ", "peft ", "accelerator: "):
        assert name in shown
    assert "embedded world: 2 files as shipped" in shown
    assert "MISSING" not in shown


@pytest.mark.parametrize(
    ("capability", "machine", "slow"),
    [("AVX2", "x86_64", True), ("AVX512", "x86_64", False), ("DEFAULT", "arm64", False)],
)
def test_a_cpu_without_bf16_is_said_to_be_one(
    capability: str, machine: str, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    monkeypatch.setattr("platform.machine", lambda: machine)
    cores = next(found.what for found in doctor.findings() if "CPU cores" in found.what)
    assert ("precision=bf16 is many times slower than fp32" in cores) is slow


def test_what_is_missing_comes_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "_needed", lambda: ["torch", "no-such-package"])

    def damaged() -> dict[str, str]:
        raise UserError("weights/judge.safetensors does not match manifest.json")

    monkeypatch.setattr(assets, "verify", damaged)
    assert run(["doctor"]) == 1
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for what, remedy in (
        ("MISSING  no-such-package", "-> pip install no-such-package"),
        ("MISSING  accelerator: unknown without torch", "-> pip install torch"),
        ("-        wandb (metrics to wandb)", "-> pip install 'safediffusion[wandb]'"),
        ("-        open-clip (encoders open_clip:MODEL/PRETRAINED)", "-> pip install 'safediffusion[open-clip]'"),
        ("MISSING  embedded world: weights/judge.safetensors does not match manifest.json", "-> reinstall the package"),
    ):
        assert lines[lines.index(what) + 1] == remedy
