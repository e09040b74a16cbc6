"""The loop that fits the world's networks: interrupted and resumed it ends where it would have ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from safediffusion.worlds.emoji.build.loop import Fit, Step, device, lr_at, run

FIT = Fit(name="line", steps=11, lr=0.05, warmup=3, ema=0.6, seed=7, save_every=4, log_every=3)


class Interrupted(Exception):
    pass


def line() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2).to(device())


def regression(model: nn.Linear, *, stop: int | None = None, seen: list[dict[str, Tensor]] | None = None) -> Step:
    """Batches from the step's generator; `seen` collects the parameters every step starts from."""

    def step(number: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if number == stop:
            raise Interrupted
        if seen is not None:
            seen.append({name: p.detach().clone() for name, p in model.named_parameters()})
        x = torch.randn(5, 3, generator=generator).to(device())
        loss = (model(x) - x[:, :2]).square().mean()
        return loss, {"first": x[0, 0].item()}

    return step


def logged(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(text) for text in (folder / "line.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "s"} for row in rows]


@pytest.mark.parametrize("stop", [2, 4, 6, 10])
def test_an_interrupted_fit_ends_as_an_uninterrupted_one(stop: int, tmp_path: Path) -> None:
    whole, parted = line(), line()
    run(whole, regression(whole), FIT, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(parted, regression(parted, stop=stop), FIT, tmp_path / "parted")
    parted = nn.Linear(3, 2).to(device())  # what it starts with must not matter after a save
    parted = line() if stop < FIT.save_every else parted
    run(parted, regression(parted), FIT, tmp_path / "parted")
    for a, b in zip(whole.parameters(), parted.parameters(), strict=True):
        assert torch.equal(a, b)
    stored, again = (load_file(tmp_path / name / "line.safetensors") for name in ("whole", "parted"))
    assert stored.keys() == again.keys() and all(torch.equal(stored[key], again[key]) for key in stored)
    by_step = {row["step"]: row for row in logged(tmp_path / "parted")}
    assert list(by_step.values()) == logged(tmp_path / "whole")


def test_the_moving_average_is_what_comes_back(tmp_path: Path) -> None:
    model, seen = line(), list[dict[str, Tensor]]()
    assert run(model, regression(model, seen=seen), FIT, tmp_path) is model and not model.training
    stored = load_file(tmp_path / "line.safetensors")
    for name, value in model.named_parameters():
        average = seen[0][name].clone()
        after = [each[name] for each in seen[1:]] + [stored[f"model/{name}"].to(device())]
        for step, live in enumerate(after):
            average = average.lerp(live, 1 - min(FIT.ema, (1 + step) / (10 + step)))
        assert torch.allclose(value, average, atol=1e-6)
        assert not torch.allclose(value, after[-1], atol=1e-4)


def test_a_finished_fit_is_only_read(tmp_path: Path) -> None:
    model = line()
    run(model, regression(model), FIT, tmp_path)
    again = nn.Linear(3, 2).to(device())
    run(again, regression(again, stop=0), FIT, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_rate_warms_up_and_falls() -> None:
    rates = [lr_at(FIT, step) for step in range(FIT.steps)]
    assert rates[0] == pytest.approx(FIT.lr / 3) and max(rates) <= FIT.lr
    assert rates[3:] == sorted(rates[3:], reverse=True) and rates[-1] < 0.1 * FIT.lr


def test_a_fit_that_diverges_stops_and_saves_nothing(tmp_path: Path) -> None:
    model = line()

    def step(number: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return model(torch.full((1, 3), float("inf"), device=device())).sum(), {}

    with pytest.raises(FloatingPointError, match="line: gradient norm .* at step 0"):
        run(model, step, FIT, tmp_path)
    assert not (tmp_path / "line.safetensors").exists()
