"""A training run: its folder, its checkpoints, and how it goes on after being stopped at any moment.

run.json         resolved recipe, provenance, seed, the direction's AUC
metrics.jsonl    one line a step
tb/              TensorBoard
checkpoints/     step-000050/, ...
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from safediffusion.core.digest import differing
from safediffusion.core.errors import UserError
from safediffusion.core.provenance import provenance
from safediffusion.core.types import Sliceable
from safediffusion.models.policy import Policy
from safediffusion.train.checkpoint import checkpoints, clean, load_checkpoint, save_checkpoint
from safediffusion.train.loop import COUNTERS, Trainer
from safediffusion.train.metrics import MetricsFile, read_metrics
from safediffusion.train.trackers import TRACKERS, Tracker

E = TypeVar("E")
M = TypeVar("M", bound=Sliceable)
Hook = Callable[[Policy, int, Path], Mapping[str, float]]  # (policy, steps done, run folder) -> metrics


class Progress(Protocol):
    """Whom `train` tells how it goes, on the main process only."""

    def note(self, text: str) -> None: ...
    def step(self, done: int, total: int, metrics: Mapping[str, float]) -> None: ...


class Quiet:
    def note(self, text: str) -> None:
        return None

    def step(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        return None


class Check(Protocol):
    """What is measured before a fresh run and refuses one that cannot work."""

    def __call__(self) -> Report: ...


class Report(Protocol):
    def text(self) -> str: ...
    def json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment(Generic[E, M]):
    """Everything `train` needs, built in one place (config.build).

    `hook` runs after every `hook_every` steps, e.g. an evaluation or a grid of samples; its metrics join the step's.
    `config` is the resolved recipe. A resumed run must have the same, but for the keys in `may_change`.
    """

    trainer: Trainer[E, M]
    steps: int
    checkpoint_every: int = 10
    checkpoints_kept: int | None = 2
    hook: Hook | None = None
    hook_every: int = 0
    check: Check | None = None
    trackers: tuple[str, ...] = ("tensorboard",)
    config: Mapping[str, Any] = field(default_factory=dict)
    may_change: frozenset[str] = frozenset({"steps", "checkpoint_every", "log"})
    provenance: Mapping[str, Any] = field(default_factory=dict)  # joins run.json, e.g. the base model's hashes

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("checkpoint_every", self.checkpoint_every)):
            if value < 1:
                raise UserError(f"{name} is {value}; it must be 1 or more")
        if self.checkpoints_kept is not None and self.checkpoints_kept < 1:
            raise UserError(f"checkpoints_kept is {self.checkpoints_kept}; it must be 1 or more, or absent to keep all")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    folder: Path
    checkpoint: Path
    steps: int
    wall_s: float  # of training: steps and checkpoints, over all sessions of the run; without hooks and start-up
    images: int
    unet_forwards: int
    unet_backwards: int
    metrics: Mapping[str, float]  # of the last step


def train(
    experiment: Experiment[E, M], folder: Path, *, resume: bool = False, progress: Progress | None = None
) -> RunResult:
    """Train to `experiment.steps` in `folder`. With `resume` an existing run goes on from its newest checkpoint.

    Interrupted and resumed, it ends in the weights and metrics (but for time/*) of a run that never stopped.
    """
    trainer, progress = experiment.trainer, progress or Quiet()
    main = trainer.fleet.is_main
    done = _open(experiment, folder, resume=resume, progress=progress)

    def save(step: int) -> None:
        save_checkpoint(folder / "checkpoints", trainer, done=step, keep=experiment.checkpoints_kept)

    with ExitStack() as stack:
        log = _Session(experiment, folder, done, stack) if main else None
        for number in range(done, experiment.steps):
            start = time.perf_counter()
            metrics = trainer.step(number)
            spent = time.perf_counter() - start
            if experiment.hook is not None and experiment.hook_every and (number + 1) % experiment.hook_every == 0:
                metrics |= experiment.hook(trainer.policy, number + 1, folder)
            if log is not None:
                log.write(number + 1, metrics, spent)
                progress.step(number + 1, experiment.steps, log.metrics.last)
            if (number + 1) % experiment.checkpoint_every == 0 or number + 1 == experiment.steps:
                if log is None:
                    save(number + 1)
                else:
                    log.save(number + 1, save)
                trainer.fleet.barrier()
    return _result(experiment, folder)


class _Session:
    """What the main process writes while it trains."""

    def __init__(self, experiment: Experiment[E, M], folder: Path, done: int, stack: ExitStack) -> None:
        self.metrics = MetricsFile(folder, done=done)
        stack.callback(self.metrics.close)
        self._trackers: list[Tracker] = []
        for name in experiment.trackers:
            tracker: Tracker = TRACKERS.get(name)(folder, experiment.config, done)
            self._trackers.append(tracker)
            stack.callback(tracker.close)
        self._wall = self.metrics.last.get("time/total", 0.0)

    def write(self, step: int, metrics: Mapping[str, float], spent: float) -> None:
        self._wall += spent
        self.metrics.append(step, {**metrics, "time/total": self._wall})
        for tracker in self._trackers:
            tracker.log(step, self.metrics.last)

    def save(self, step: int, save: Callable[[int], None]) -> None:
        """`save` once the metrics are on the disk; it counts as training time."""
        start = time.perf_counter()
        self.metrics.sync()
        save(step)
        self._wall += time.perf_counter() - start


def _open(experiment: Experiment[E, M], folder: Path, *, resume: bool, progress: Progress) -> int:
    """Make or check the run folder, load the newest checkpoint; returns the steps done."""
    trainer, saved = experiment.trainer, folder / "checkpoints"
    if not resume and (folder / "run.json").exists():
        raise UserError(f"{folder} holds a run already; add --resume to go on with it, or name another folder")
    trainer.fleet.barrier()
    found = checkpoints(saved)
    if (folder / "run.json").exists():
        _check_same(experiment, folder, progress)
    if found:
        done = load_checkpoint(found[-1], trainer)
        if done > experiment.steps:
            raise UserError(f"{found[-1]} is beyond the {experiment.steps} steps asked for; raise steps to go on")
        progress.note(f"resuming after step {done} of {experiment.steps}")
    else:
        done = 0
        report = _checked(experiment, progress)
        if trainer.fleet.is_main:
            saved.mkdir(parents=True, exist_ok=True)
            _write_run(experiment, folder, report)
    if trainer.fleet.is_main:
        clean(saved)
    trainer.fleet.barrier()
    return done


def _checked(experiment: Experiment[E, M], progress: Progress) -> dict[str, Any]:
    if experiment.check is None:
        return {}
    report = experiment.check()
    if experiment.trainer.fleet.is_main:
        progress.note(report.text())
    return report.json()


def _write_run(experiment: Experiment[E, M], folder: Path, report: dict[str, Any]) -> None:
    trainer = experiment.trainer
    about = {
        "config": dict(experiment.config),
        "seed": trainer.seed,
        "processes": trainer.fleet.world,
        "direction": report,
        **provenance(trainer.policy.device),
        **experiment.provenance,
    }
    partial = folder / ".run.json.partial"
    partial.write_text(json.dumps(about, indent=1) + "\n")
    partial.replace(folder / "run.json")


def _check_same(experiment: Experiment[E, M], folder: Path, progress: Progress) -> None:
    """UserError when the recipe or the base's weights are not those the run was started with."""
    started = json.loads((folder / "run.json").read_text())
    before = _flat(started["config"])
    now = _flat(json.loads(json.dumps(dict(experiment.config))))
    changed = [key for key in differing(before, now) if not {key, key.split(".")[0]} & experiment.may_change]
    if changed:
        key = changed[0]
        raise UserError(
            f"{folder} was trained with {key}={json.dumps(before.get(key))}, now it is {json.dumps(now.get(key))}; "
            "resume with the same recipe, or start a new run in another folder"
        )
    replaced = differing(*(_flat(each.get("weights", {})) for each in (started, experiment.provenance)))
    if replaced:
        raise UserError(
            f"the base model's {replaced[0].removeprefix('files.')} is not the file that {folder} was started from; "
            "put the old file back, or start a new run in another folder"
        )
    if before.get("steps") != now.get("steps") and experiment.trainer.rate.decay != "constant":
        progress.note(f"the learning rate now falls over {now.get('steps')} steps, before it was {before.get('steps')}")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix.removesuffix("."): value}
    return {key: item for name, part in value.items() for key, item in _flat(part, f"{prefix}{name}.").items()}


def _result(experiment: Experiment[E, M], folder: Path) -> RunResult:
    last = read_metrics(folder)[-1] if experiment.trainer.fleet.is_main else {}
    images, forwards, backwards = (int(experiment.trainer.totals[name]) for name in COUNTERS)
    return RunResult(
        folder=folder,
        checkpoint=checkpoints(folder / "checkpoints")[-1],
        steps=experiment.steps,
        wall_s=last.get("time/total", 0.0),
        images=images,
        unet_forwards=forwards,
        unet_backwards=backwards,
        metrics=last,
    )
