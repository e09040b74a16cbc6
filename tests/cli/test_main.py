"""The group itself: what it loads, how fast, and how it says no."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from safediffusion import __version__
from safediffusion.cli.main import COMMANDS, commands, run
from safediffusion.core.errors import UserError

HEAVY = ("torch", "diffusers", "transformers", "peft", "numpy", "rich", "yaml")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_nothing_heavy(command: str) -> None:
    program = (
        "import sys; from safediffusion.cli.main import run; "
        f"status = run({[command, '--help'] if command else ['--help']!r}); "
        f"print('loaded:', *[name for name in {HEAVY!r} if name in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Usage: safediffusion" in done.stdout
    loaded = done.stdout.strip().splitlines()[-1].removeprefix("loaded:").split()
    assert not {"torch", "diffusers", "transformers", "peft"} & set(loaded)
    assert command or not loaded


def test_help_is_quick() -> None:
    """The aim is 0.3 s on an idle machine; process time counts, so that a busy one can be tested on."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "safediffusion", "--help"], capture_output=True, check=True)
    after = os.times()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    assert spent < 0.6


def test_every_command_is_listed_in_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in shown
    assert run([]) == 0
    assert capsys.readouterr().out == shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"safediffusion, version {__version__}\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "unknown command 'trian'; did you mean 'train'?"),
        ("list recips", "there is nothing called 'recips' to list; did you mean 'recipes'?"),
        ("train emoji-ster", "unknown recipe 'emoji-ster'; did you mean 'emoji-steer'?"),
        ("train emoji-steer optimzer.lr=1", "unknown key 'optimzer'; did you mean 'optimizer'?"),
        ("train emoji-steer scorers.steerng=1 --dry-run", "unknown scorer 'steerng'; did you mean 'steering'?"),
        ("evaluate emoji --suite emoji-gneval", "'emoji-gneval'; did you mean 'emoji-geneval'?"),
        ("evaluate emoji --sweet full", "--sweet"),
        ("score . --scorer steerin", "unknown scorer 'steerin'; did you mean 'steering'?"),
        ("train", "Missing argument 'RECIPE'"),
    ],
)
def test_a_wrong_word_is_one_line_and_status_2(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith("safediffusion: ") and said.err.count("\n") == 1
    assert message in said.err


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    @click.command("fails")
    def command() -> None:
        raise error

    monkeypatch.setattr(type(commands), "get_command", lambda self, ctx, name: command)
    return run(["doctor"])


def test_a_user_error_is_one_line_even_if_it_was_written_in_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(monkeypatch, UserError("first\n  second")) == 2
    assert capsys.readouterr().err == "safediffusion: first second\n"


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "runs/a.png")) == 2
    said = capsys.readouterr().err
    assert said == "safediffusion: the disk is full (runs/a.png); make room and run the same command again\n"


def test_our_own_mistakes_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        failing(monkeypatch, AssertionError("ours"))
    with pytest.raises(PermissionError):
        failing(monkeypatch, PermissionError(errno.EACCES, "no"))


def test_ctrl_c_outside_a_run_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.endswith("safediffusion: stopped\n")


def test_a_bar_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from safediffusion.cli.progress import bar, training

    with bar("work") as move:
        for done in range(3):
            move(done, 3)
    with training("run") as told:
        told.step(1, 2, {"loss/kl": 0.1})
        told.note("AUC 0.97")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("AUC 0.97\n", "")


def test_a_bar_shows_rate_and_time_left_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from safediffusion.cli import progress

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    with progress.training("my run") as told:
        told.step(1, 4, {"score/steering/safety": 0.25})
        time.sleep(0.05)
        told.step(2, 4, {"score/steering/safety": 0.5})
    shown = capsys.readouterr().err
    assert "my run" in shown and "2/4" in shown and "safety 0.5" in shown
    assert "/s" in shown and "0:00:0" in shown
