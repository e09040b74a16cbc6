"""The demo's training over several seeds against one evaluation of the base: JSON, figures and docs/results-demo.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.accept import Outcome, Verdict, judge
from benchmarks.figure import Line, Panel, figure
from benchmarks.guard import same_weights
from benchmarks.page import averaged, duration, measured, table, write_page
from benchmarks.start import command_line, commit, made_by, start
from safediffusion.cli.common import device_option, plan_for
from safediffusion.cli.companions import companions, fitting, processes_option
from safediffusion.cli.demo import Stopwatch
from safediffusion.cli.evaluate import Asked, evaluate_model
from safediffusion.cli.stopped import resumable
from safediffusion.cli.sweep import seeds_of
from safediffusion.cli.train import train_run
from safediffusion.config.check import check
from safediffusion.config.load import load_recipe, to_plain
from safediffusion.config.schema import Recipe
from safediffusion.core.comparison import Comparison, MetricInfo
from safediffusion.core.stats import Estimate
from safediffusion.evaluate.compare import compare
from safediffusion.evaluate.store import read_json, write_json, write_text
from safediffusion.train.run import RunResult

CURVES = (
    ("score/steering/safety/unsafe", "Safety term, unsafe prompts"),
    ("score/steering/alignment", "Alignment term, all prompts"),
    ("score/steering", "Steering reward"),
    ("loss/kl", "KL to the base"),
    ("eval/emoji-i2p/unsafe", "Unsafe pictures while training"),
    ("eval/emoji-geneval/overall", "Prompt following while training"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is measured, and where it is kept: base/, seed-0/, seed-1/, ... and seconds.json."""

    recipe: Recipe
    seeds: tuple[int, ...]
    suite: str
    folder: Path
    device: str
    processes: int

    def place(self, name: str) -> Path:
        return self.folder / name

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"seed {seed}" for seed in self.seeds)

    @property
    def runs(self) -> tuple[Path, ...]:
        return tuple(self.folder / f"seed-{seed}" for seed in self.seeds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What one seed's training took. `wall_s` also holds both evaluations: what the demo would have taken."""

    seed: int
    train_s: float
    images: int
    unet_forwards: int
    unet_backwards: int
    steps: int
    wall_s: float
    commit: str


def measure(study: Study) -> tuple[Comparison, list[Training]]:
    """Evaluate the base, train and evaluate every seed; what is there already is not done again."""
    watch, found = Stopwatch(study.place("seconds.json")), []
    same_weights([study.recipe], study.folder)
    _evaluate(study, study.recipe.model, study.place("base"), watch)
    for seed, run in zip(study.seeds, study.runs, strict=True):
        recipe, name = replace(study.recipe, seed=seed), run.name
        click.echo(f"{name}: training by {recipe.name}, {recipe.steps} steps")
        result = _train(study, recipe, run)
        _evaluate(study, f"{recipe.model}+{run}", run, watch)
        same_weights([study.recipe], study.folder)
        found.append(
            Training(
                seed=seed,
                train_s=result.wall_s,
                images=result.images,
                unet_forwards=result.unet_forwards,
                unet_backwards=result.unet_backwards,
                steps=result.steps,
                wall_s=result.wall_s + watch.seconds["base"] + watch.seconds[name],
                commit=commit_of(run),
            )
        )
    return compare([study.place("base"), *study.runs], names=["base", *study.names]), found


def _train(study: Study, recipe: Recipe, run: Path) -> RunResult:
    """Among the study's processes; the others are told by the command line what this one does."""
    own = study.place(f"{run.name}.yaml")
    write_text(own, yaml.safe_dump(to_plain(recipe), sort_keys=False))
    line = ["train", *([str(run), "--resume"] if (run / "run.json").is_file() else [str(own), "--out", str(run)])]
    with companions(study.processes, [*line, "--device", study.device]):
        return train_run(recipe, run, device=study.device, resume=True)


def _evaluate(study: Study, model: str, folder: Path, watch: Stopwatch) -> None:
    """Measure into `folder`/eval; only the time of what was missing is counted."""
    place = folder / "eval" / study.suite
    asked = Asked(
        model=model,
        suite=study.suite,
        folder=place,
        plan=plan_for(model, steps=None, guidance=None, eta=None),
        device=study.device,
    )
    summary = place / "report.json"
    complete = folder.name in watch.seconds and summary.is_file() and not read_json(summary)["missing"]
    click.echo(f"{folder.name}: {'checking' if complete else 'evaluating'} the suite {study.suite}")
    if complete:
        evaluate_model(asked, title=folder.name)
        return
    line = ["evaluate", model, "--suite", study.suite, "--out", str(place), "--device", study.device]
    with watch.part(folder.name), companions(study.processes, line):
        evaluate_model(asked, title=folder.name)


def commit_of(run: Path) -> str:
    """The commit a run was trained at."""
    return commit(read_json(run / "run.json").get("source") or {})


def document(study: Study, comparison: Comparison, trainings: Sequence[Training]) -> dict[str, Any]:
    """Everything the page says, as JSON."""
    base, *others = (comparison.estimates(i) for i in range(len(comparison.models)))
    verdicts = [judge(base, outcome(t, e)) for t, e in zip(trainings, others, strict=True)]
    return {
        "recipe": to_plain(study.recipe),
        "suite": study.suite,
        "base": {key: asdict(e) for key, e in base.items()},
        "seeds": [
            {
                "train": asdict(training),
                "metrics": {key: asdict(e) for key, e in estimates.items()},
                "acceptance": [asdict(verdict) for verdict in mine],
            }
            for training, estimates, mine in zip(trainings, others, verdicts, strict=True)
        ],
    }


def outcome(training: Training, estimates: Mapping[str, Estimate]) -> Outcome:
    return Outcome(aligned=estimates, train_s=training.train_s, wall_s=training.wall_s)


def page(
    study: Study, comparison: Comparison, trainings: Sequence[Training], *, command: str, drawing: str
) -> list[str]:
    """docs/results-demo.md."""
    base, *others = (comparison.estimates(i) for i in range(len(comparison.models)))
    verdicts = [judge(base, outcome(t, e)) for t, e in zip(trainings, others, strict=True)]
    commits = ", ".join(dict.fromkeys(training.commit for training in trainings))
    infos = [row.info for row in comparison.metrics]
    return [
        "# Results",
        "",
        *made_by(command),
        "",
        f"Recipe `{study.recipe.name}`, suite `{study.suite}`, one evaluation of the base.",
        f"Trained at commit {commits}. The whole demo is the base's evaluation, the training and the evaluation after",
        "it, as `safediffusion demo` does them. A picture that could not be judged is missing; it counts neither as",
        "safe nor as correct.",
        "",
        "## What was asked for",
        "",
        *_acceptance(study.names, verdicts),
        "",
        "## Training",
        "",
        *_cost(study.names, trainings),
        "",
        f"![Training curves of {len(trainings)} seeds]({drawing})",
        "",
        "## Every metric",
        "",
        "Value (95% interval; n); intervals are Wilson's for rates, at the effective number of pictures where a",
        "prompt has several, bootstrap over prompts elsewhere. The mean is over the seeds, with the lowest and the",
        "highest.",
        "",
        *_metrics([info for info in infos if info.headline], study.names, base, others),
        "",
        "### Parts",
        "",
        *_metrics([info for info in infos if not info.headline], study.names, base, others),
        *[line for note in comparison.notes for line in ("", f"Note: {note}")],
    ]


def _acceptance(names: Sequence[str], verdicts: Sequence[Sequence[Verdict]]) -> list[str]:
    rows = [
        [each[0].figure, each[0].required, each[0].aim, *(verdict.word for verdict in each)]
        for each in zip(*verdicts, strict=True)
    ]
    met = [sum(verdict.met is True for verdict in mine) for mine in verdicts]
    said = ", ".join(f"{name} {count} of {len(rows)}" for name, count in zip(names, met, strict=True))
    return [*table(["figure", "required", "aim", *names], rows), "", f"Met: {said}."]


def _cost(names: Sequence[str], trainings: Sequence[Training]) -> list[str]:
    rows = [
        [
            name,
            duration(t.train_s),
            f"{t.train_s:.0f}",
            f"{t.steps}",
            f"{t.images:,}",
            f"{t.unet_forwards:,}",
            f"{t.unet_backwards:,}",
            duration(t.wall_s),
        ]
        for name, t in zip(names, trainings, strict=True)
    ]
    head = ["", "training", "seconds", "steps", "images", "UNet forwards", "UNet backwards", "with both evaluations"]
    return table(head, rows)


def _metrics(
    infos: Sequence[MetricInfo],
    names: Sequence[str],
    base: Mapping[str, Estimate],
    others: Sequence[Mapping[str, Estimate]],
) -> list[str]:
    rows = [
        [
            f"{info.title} `{info.key}`",
            measured(base[info.key], info.unit),
            *(measured(estimates[info.key], info.unit) for estimates in others),
            averaged([estimates[info.key] for estimates in others], info.unit),
        ]
        for info in infos
    ]
    return table(["metric", "base", *names, "mean of the seeds"], rows)


def curves(comparison: Comparison) -> str:
    """The training curves of all seeds, one panel a quantity."""
    panels = [
        Panel(
            title=title,
            x="training step",
            lines=tuple(Line(label=model.name, points=model.training.get(key, ())) for model in comparison.models),
            share=key.startswith("eval/"),
            smooth=not key.startswith("eval/"),
        )
        for key, title in CURVES
    ]
    return figure("Training curves by seed", panels)


@click.command("results")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--recipe", default="emoji-steer", show_default=True, help="What to train by.")
@click.option("--seeds", default="0,1,2", show_default=True, help="Training seeds.")
@click.option("--suite", default="emoji-full", show_default=True, help="What to measure.")
@click.option(
    "--out", default="runs/results", show_default=True, metavar="DIR", help="Runs, pictures and results.json."
)
@click.option(
    "--page", "target", default="docs/results-demo.md", show_default=True, metavar="FILE", help="The page to write."
)
@processes_option
@device_option
@click.pass_context
def command(
    context: click.Context,
    overrides: tuple[str, ...],
    recipe: str,
    seeds: str,
    suite: str,
    out: str,
    target: str,
    processes: int | None,
    device: str,
) -> None:
    """Train by RECIPE with every seed, measure base and results, write the page and its figure.

    Stopped at any moment, the same command goes on where it was; run again, it only writes the page anew.
    """
    found = load_recipe(recipe, overrides)
    check(found)
    study = Study(
        recipe=found,
        seeds=seeds_of(seeds),
        suite=suite,
        folder=Path(out),
        device=device,
        processes=processes or fitting(device, found.groups),
    )
    drawing = Path(target).with_name(f"{Path(target).stem}-curves.svg")
    with resumable(command_line(context)):
        comparison, trainings = measure(study)
    write_json(study.folder / "results.json", document(study, comparison, trainings))
    drawing.parent.mkdir(parents=True, exist_ok=True)
    write_text(drawing, curves(comparison))
    lines = page(study, comparison, trainings, command=command_line(context), drawing=drawing.name)
    write_page(Path(target), lines)
    click.echo(json.dumps({"page": target, "figure": str(drawing), "json": str(study.folder / "results.json")}))


if __name__ == "__main__":
    start(command)
