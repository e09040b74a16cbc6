"""A reward that can be cheated is caught before the end, a harmless run is left alone, and a stop is remembered."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from safediffusion.collect.base import Scored
from safediffusion.core.errors import UserError
from safediffusion.guard.features import latent_features
from safediffusion.guard.guard import PanelGuard
from safediffusion.guard.panel import Panel, choose
from safediffusion.guard.rule import Course
from safediffusion.models.load import weights_file
from safediffusion.objectives.grpo import Grpo, StepItems
from safediffusion.train.checkpoint import checkpoints
from safediffusion.train.metrics import read_metrics
from safediffusion.train.run import Experiment, train
from tests import tiny, training

STEPS, EVERY = 24, 3


def guard() -> PanelGuard:
    """Of the tiny model's four prompts, twice each."""
    panel = Panel(
        prompts=tiny.PROMPTS,
        repeats=2,
        plan=training.PLAN,
        scorers=(training.Brightness(),),
        witnesses=(),
        features=latent_features,
        batch=5,
    )
    course = Course(measures=panel.measures, prompts=tuple(p.id for p in panel.pictures), benign=panel.benign)
    return PanelGuard(panel=panel, course=course, weights={"brightness": 1.0}, every=EVERY)


def experiment(lr: float, watch: PanelGuard | None, *, steps: int = STEPS) -> Experiment[Scored, StepItems]:
    """Brightness as the reward, which a white picture has most of."""
    collect = training.collector((training.Brightness(),), groups=2, size=8)
    trainer = training.trainer(tiny.policy(full=True), collect, Grpo(anchor="first_pass", clip=0.2), lr=lr)
    return Experiment(
        trainer=trainer, steps=steps, checkpoint_every=5, checkpoints_kept=1, guard=watch, trackers=(), config={}
    )


HIGH, LOW = 1e-2, 1e-6


def untimed(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in read_metrics(folder)]


@pytest.fixture(scope="module")
def hacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hacked") / "run"
    result = train(experiment(HIGH, guard()), folder)
    assert result.stopped and result.steps < STEPS and result.checkpoint.name == f"step-{result.steps:06d}"
    return folder


def test_a_reward_that_can_be_cheated_is_stopped(hacked: Path) -> None:
    lines = read_metrics(hacked)
    said = json.loads((hacked / "run.json").read_text())["guard"]
    assert said["stopped"] == len(lines) == lines[-1]["step"] < STEPS and said["why"] and said["use"] == "best"
    looks = [line for line in lines if "guard/reward" in line]
    assert [line["step"] for line in looks] == list(range(EVERY, len(lines) + 1, EVERY))
    assert looks[-1]["guard/worst"] > 1 and looks[-1]["guard/gain"] > 0
    assert looks[-1]["guard/unet_forwards"] == (1 + len(looks)) * 8 * training.PLAN.steps


def test_a_harmless_run_goes_to_its_end_with_the_numbers_it_has_without_a_guard(tmp_path: Path) -> None:
    watched, alone = experiment(LOW, guard(), steps=6), experiment(LOW, None, steps=6)
    result = train(watched, tmp_path / "watched")
    train(alone, tmp_path / "alone")
    assert result.steps == 6 and not result.stopped
    assert "guard" not in json.loads((tmp_path / "watched" / "run.json").read_text())
    assert torch.equal(tiny.flat(watched.trainer.policy), tiny.flat(alone.trainer.policy))
    own = [{k: v for k, v in line.items() if not k.startswith("guard/")} for line in untimed(tmp_path / "watched")]
    assert own == untimed(tmp_path / "alone")


def test_a_stopped_run_stays_stopped_and_one_cut_short_ends_the_same(hacked: Path, tmp_path: Path) -> None:
    before = (hacked / "metrics.jsonl").read_text()
    again = train(experiment(HIGH, guard()), hacked, resume=True)
    assert again.stopped and (hacked / "metrics.jsonl").read_text() == before

    short = len(read_metrics(hacked)) - 1
    train(experiment(HIGH, guard(), steps=short), tmp_path)  # ends one step before the look that stopped the other
    resumed = train(experiment(HIGH, guard()), tmp_path, resume=True)
    assert resumed.stopped == again.stopped and untimed(tmp_path) == untimed(hacked)
    for name in ("run.json", "guard/readings.jsonl"):
        one, two = ((folder / name).read_text() for folder in (tmp_path, hacked))
        assert one == two if name.endswith("l") else json.loads(one)["guard"] == json.loads(two)["guard"]


def test_the_best_weights_are_kept_and_taken(tmp_path: Path) -> None:
    class Once(PanelGuard):
        """Says what it is told: step 3 was the best, and after step 6 it is over."""

        @property
        def best(self) -> int:
            return 3 if len(self._readings) > 1 else 0

        @property
        def stopped(self) -> str:
            return "collapse: of the test" if len(self._readings) > 2 and self.stops else ""

    made = guard()
    told = Once(panel=made.panel, course=made.course, weights=made.weights, every=3)
    result = train(experiment(LOW, told, steps=12), tmp_path)
    assert result.steps == 6 and [p.name for p in checkpoints(tmp_path / "checkpoints")] == [
        "step-000003",
        "step-000006",
    ]
    assert weights_file(str(tmp_path)).parent.name == "step-000003"
    last = Once(panel=made.panel, course=guard().course, weights=made.weights, every=3, use="last")
    train(experiment(LOW, last, steps=12), tmp_path, resume=True)
    assert weights_file(str(tmp_path)).parent.name == "step-000006"
    off = replace(experiment(LOW, None, steps=7))
    train(off, tmp_path, resume=True)
    assert "guard" not in json.loads((tmp_path / "run.json").read_text())


def test_a_stopped_run_without_good_weights_says_so(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"guard": {"stopped": 6, "why": "", "best": 0, "use": "best"}}))
    with pytest.raises(UserError, match="no weights that it saw passed its rule"):
        weights_file(str(tmp_path))
    (tmp_path / "run.json").write_text(json.dumps({"guard": {"stopped": 6, "why": "", "best": 3, "use": "best"}}))
    with pytest.raises(UserError, match=r"step-000003, the best checkpoint .* is gone"):
        weights_file(str(tmp_path))


def test_a_guard_cannot_join_a_run_that_has_begun(tmp_path: Path) -> None:
    train(experiment(LOW, None, steps=1), tmp_path)
    with pytest.raises(UserError, match="was started without a guard"):
        train(experiment(LOW, guard(), steps=2), tmp_path, resume=True)


def test_the_panel_is_half_unsafe_and_chosen_by_key() -> None:
    chosen = choose(tiny.PROMPTS, 2, seed=0)
    assert sorted(prompt.tags["label"] for prompt in chosen) == ["safe", "unsafe"]
    assert chosen == choose(tuple(reversed(tiny.PROMPTS)), 2, seed=0)
    assert sorted(p.id for p in choose(tiny.PROMPTS, 9, seed=0)) == ["p0", "p1", "p2", "p3"]
    safe = tuple(prompt for prompt in tiny.PROMPTS if prompt.tags["label"] == "safe")
    assert sorted(p.id for p in choose((*safe, tiny.PROMPTS[2]), 3, seed=0)) == ["p0", "p1", "p2"]
