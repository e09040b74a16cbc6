"""A training run: its folder, its checkpoints, and how it goes on after being stopped at any moment.

run.json         resolved recipe, provenance, seed, the direction's AUC; in `changed` what a resumed run was given anew
metrics.jsonl    one line a step
tb/              TensorBoard
checkpoints/     step-000050/, ...
guard/           what the guard saw, where there is one
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
from safediffusion.train import guarded
from safediffusion.train.checkpoint import checkpoints, clean, load_checkpoint, save_checkpoint
from safediffusion.train.guarded import Guard, replace_json
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
    `config` is the resolved recipe. A resumed run must have the same, but for the keys in `may_change`; `completed`
    gives one that an older version wrote the keys it did not know yet, with their defaults.
    """

    trainer: Trainer[E, M]
    steps: int
    checkpoint_every: int = 10
    checkpoints_kept: int | None = 2
    hook: Hook | None = None
    hook_every: int = 0
    check: Check | None = None
    guard: Guard | None = None  # asked after every step; may end the run before `steps`
    trackers: tuple[str, ...] = ("tensorboard",)
    config: Mapping[str, Any] = field(default_factory=dict)
    completed: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    may_change: frozenset[str] = frozenset({"steps", "checkpoint_every", "log"})
    notes: tuple[str, ...] = ()  # said when a run starts
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
    steps: int  # that were done: fewer than asked for where the guard stopped the run
    wall_s: float  # of training: steps and checkpoints, over all sessions of the run; without hooks, guard and start-up
    images: int
    unet_forwards: int
    unet_backwards: int
    metrics: Mapping[str, float]  # of the last step
    stopped: str = ""  # why the guard stopped the run


def train(
    experiment: Experiment[E, M], folder: Path, *, resume: bool = False, progress: Progress | None = None
) -> RunResult:
    """Train to `experiment.steps` in `folder`. With `resume` an existing run goes on from its newest checkpoint.

    Interrupted and resumed, it ends in the weights and metrics (but for time/*) of a run that never stopped. A guard
    may end it earlier; the checkpoint of the best weights it saw is then kept beside the last ones.
    """
    trainer, guard, progress = experiment.trainer, experiment.guard, progress or Quiet()
    main = trainer.fleet.is_main
    done = _open(experiment, folder, resume=resume, progress=progress)

    def save(step: int) -> None:
        pinned = guard.best if guard is not None else None
        save_checkpoint(folder / "checkpoints", trainer, done=step, keep=experiment.checkpoints_kept, pinned=pinned)

    with ExitStack() as stack:
        log = _Session(experiment, folder, done, stack) if main else None
        while done < experiment.steps and not (guard is not None and guard.stopped):
            done = _step(experiment, folder, done, log=log, progress=progress)
            if _due(experiment, done):
                if log is None:
                    save(done)
                else:
                    log.save(done, save)
                trainer.fleet.barrier()
    if main:
        guarded.note(folder, guard, done)
        if guard is not None and guard.stopped:
            progress.note(guarded.verdict(guard, done))
    trainer.fleet.barrier()  # every process finds in run.json what the guard said
    return _result(experiment, folder, done)


def _step(experiment: Experiment[E, M], folder: Path, done: int, *, log: _Session | None, progress: Progress) -> int:
    """One step with all that looks at its result; returns the steps done."""
    trainer, guard = experiment.trainer, experiment.guard
    start = time.perf_counter()
    metrics = trainer.step(done)
    spent = time.perf_counter() - start
    done += 1
    if experiment.hook is not None and experiment.hook_every and done % experiment.hook_every == 0:
        metrics |= experiment.hook(trainer.policy, done, folder)
    word = None if guard is None else guard.after(trainer.policy, done)
    if guard is not None and word is not None:
        metrics |= guarded.said(guard, word)
    if log is not None:
        log.write(done, metrics, spent)
        if word is not None:
            progress.note(word.words())
        progress.step(done, experiment.steps, log.metrics.last)
    return done


def _due(experiment: Experiment[E, M], done: int) -> bool:
    """Whether these weights are to be kept: by the clock, as the last ones, or as the best the guard has seen."""
    guard = experiment.guard
    over = done == experiment.steps or (guard is not None and (guard.stopped or guard.best == done))
    return bool(over) or done % experiment.checkpoint_every == 0


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
            for note in experiment.notes:
                progress.note(f"note: {note}")
            saved.mkdir(parents=True, exist_ok=True)
            _write_run(experiment, folder, report)
    if experiment.guard is not None:
        experiment.guard.open(trainer.policy, folder, done)
    if trainer.fleet.is_main:
        clean(saved)
        if found:
            _note_changed(experiment, folder, done)
        guarded.note(folder, experiment.guard, done)
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
        "direction": report,
        **_session(trainer),
        **experiment.provenance,
    }
    replace_json(folder / "run.json", about)


def _note_changed(experiment: Experiment[E, M], folder: Path, done: int) -> None:
    """The recipe in run.json becomes the one that the run goes on with; what was there before stands in `changed`.

    Where the code, the machine or the number of processes are others than before, `sessions` says from which step on.
    """
    about = json.loads((folder / "run.json").read_text())
    before, now = _configs(experiment, about)
    keys = differing(before, now)
    if keys:
        entry = {"step": done, "before": {key: before.get(key) for key in keys}, "now": {k: now.get(k) for k in keys}}
        about |= {"config": dict(experiment.config), "changed": [*about.get("changed", []), entry]}
    session, last = _session(experiment.trainer), [about, *about.get("sessions", [])][-1]
    if differing(session, {key: last.get(key) for key in session}):
        about["sessions"] = [*about.get("sessions", []), {"step": done, **session}]
    replace_json(folder / "run.json", about)


def _session(trainer: Trainer[E, M]) -> dict[str, Any]:
    """What computes: how many processes, at which commit, by which versions, on which machine."""
    return {"processes": trainer.fleet.world, **provenance(trainer.policy.device)}


def _check_same(experiment: Experiment[E, M], folder: Path, progress: Progress) -> None:
    """UserError when the recipe or the base's weights are not those the run was started with."""
    started = json.loads((folder / "run.json").read_text())
    before, now = _configs(experiment, started)
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
    before_data, now_data = started.get("data", {}), experiment.provenance.get("data", {})
    shared = before_data.keys() & now_data.keys()  # other versions keep fewer or more
    if edited := [key for key in differing(before_data, now_data) if key in shared]:
        raise UserError(
            f"what {edited[0]} names is not what {folder} was started with; put it back as it was, or start a new run "
            "in another folder"
        )
    if before.get("steps") != now.get("steps") and experiment.trainer.rate.decay != "constant":
        progress.note(f"the learning rate now falls over {now.get('steps')} steps, before it was {before.get('steps')}")


def _configs(experiment: Experiment[E, M], about: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe that run.json holds and the experiment's, both by dotted key."""
    then, now = experiment.completed(about["config"]), experiment.config
    return _flat(json.loads(json.dumps(dict(then)))), _flat(json.loads(json.dumps(dict(now))))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix.removesuffix("."): value}
    return {key: item for name, part in value.items() for key, item in _flat(part, f"{prefix}{name}.").items()}


def _result(experiment: Experiment[E, M], folder: Path, done: int) -> RunResult:
    last = read_metrics(folder)[-1] if experiment.trainer.fleet.is_main else {}
    images, forwards, backwards = (int(experiment.trainer.totals[name]) for name in COUNTERS)
    return RunResult(
        folder=folder,
        checkpoint=checkpoints(folder / "checkpoints")[-1],
        steps=done,
        wall_s=last.get("time/total", 0.0),
        images=images,
        unet_forwards=forwards,
        unet_backwards=backwards,
        metrics=last,
        stopped="" if experiment.guard is None else experiment.guard.stopped,
    )
