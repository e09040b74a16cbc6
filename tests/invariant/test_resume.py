"""kill -9 at any moment, then resume: the weights and metrics of a run that never stopped, bit by bit."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from safediffusion.train.checkpoint import checkpoints, verify
from safediffusion.train.metrics import read_metrics
from safediffusion.train.run import train
from tests import training

STEPS = 12


def work(folder: str, full: bool) -> None:
    """What the killed process does: train, resuming whatever is there."""
    torch.set_num_threads(1)
    train(training.experiment(STEPS, checkpoint_every=2, full=full), Path(folder), resume=True)


def killed_until_done(folder: Path, *, full: bool, seed: int) -> int:
    """Start, SIGKILL after a random time, start again, ...; returns how many processes died."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training"])
    chance, deaths = random.Random(seed), 0
    whole: float | None = None
    while True:
        process = context.Process(target=work, args=(str(folder), full))
        start = time.monotonic()
        process.start()
        if whole is None:  # the first one is killed once its first checkpoint is about to be written
            while not list((folder / "checkpoints").glob(".step-*")) and not checkpoints(folder / "checkpoints"):
                assert process.is_alive(), f"exit code {process.exitcode}"
                time.sleep(0.001)
            whole = 2 * (time.monotonic() - start)
        else:
            process.join(chance.uniform(0.2, 1.0) * whole if deaths < 6 else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            deaths += 1
            continue
        assert process.exitcode == 0
        return deaths


@pytest.mark.parametrize(("full", "seed"), [(False, 1), (True, 2)], ids=["lora", "full"])
def test_a_killed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path, full: bool, seed: int) -> None:
    torch.set_num_threads(1)
    straight = train(training.experiment(STEPS, checkpoint_every=2, full=full), tmp_path / "straight")
    deaths = killed_until_done(tmp_path / "killed", full=full, seed=seed)
    assert deaths >= 1
    resumed = checkpoints(tmp_path / "killed" / "checkpoints")[-1]
    assert resumed.name == straight.checkpoint.name == f"step-{STEPS:06d}"
    for name in sorted(verify(straight.checkpoint)):
        if name.endswith(".safetensors"):
            ours, theirs = load_file(resumed / name), load_file(straight.checkpoint / name)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(value, theirs[key]) for key, value in ours.items()), name
    one, two = (
        [{k: v for k, v in line.items() if not k.startswith("time/")} for line in read_metrics(tmp_path / name)]
        for name in ("straight", "killed")
    )
    assert len(one) == STEPS and one == two
