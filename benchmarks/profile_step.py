"""Where the time of one training step goes, and what the UNet itself costs: a section of docs/performance.md."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.meter import Meter, Spot
from benchmarks.page import table, write_section
from benchmarks.start import command_line, made_by, start
from safediffusion.cli.common import device_option, pick_device
from safediffusion.collect import on_policy
from safediffusion.collect.base import Scored, portions
from safediffusion.collect.on_policy import OnPolicy
from safediffusion.config.build import build_experiment
from safediffusion.config.load import load_recipe, to_plain
from safediffusion.config.schema import Recipe
from safediffusion.core.fleet import Fleet
from safediffusion.evaluate.store import write_json
from safediffusion.models.policy import Policy
from safediffusion.objectives.grpo import StepItems
from safediffusion.train.loop import Trainer

SAMPLING, SAMPLER, TEXT, DECODING = "UNet, sampling", "sampler: noise and steps", "text encoder", "decoding"
SCORING, CREDIT = "scoring", "credit and bookkeeping"
TRAINING, REFERENCE = "UNet forward, training", "UNet forward, without gradient"
LOSS, BACKWARD, OPTIMIZER, REST = "loss", "backward", "optimizer and EMA", "rest"
PARTS = (SAMPLING, SAMPLER, TEXT, DECODING, SCORING, CREDIT, TRAINING, REFERENCE, LOSS, BACKWARD, OPTIMIZER, REST)
LIMIT = 0.10  # of a step, for scoring and bookkeeping together
Made = Trainer[Scored, StepItems]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One recipe: seconds of each part in each step, and the UNet alone in ms an image."""

    recipe: str
    config: dict[str, Any]
    steps: tuple[dict[str, float], ...]
    images: int
    items: int  # backward passes a step
    unet: tuple[Speed, ...]

    @property
    def means(self) -> dict[str, float]:
        return {part: statistics.fmean(step.get(part, 0.0) for step in self.steps) for part in PARTS}

    def share(self, *parts: str) -> float:
        means = self.means
        return sum(means[part] for part in parts) / sum(means.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    what: str
    batch: int
    ms: float  # an image, median over rounds


def spots(trainer: Made, collector: OnPolicy) -> list[Spot]:
    """What is timed of a step, from the outside in."""
    backbone = type(trainer.policy.backbone)
    return [
        Spot(type(trainer), "step", REST),
        Spot(type(collector), "collect", CREDIT),
        Spot(on_policy, "denoise", SAMPLER),
        Spot(backbone, "encode", TEXT),
        Spot(backbone, "decode", DECODING),
        Spot(on_policy, "raw_scores", SCORING),
        Spot(on_policy, "finish_scores", SCORING),
        Spot(type(trainer.objective), "prepare", CREDIT),
        Spot(type(trainer.objective), "freeze", LOSS),
        Spot(type(trainer.objective), "loss", LOSS),
        Spot(backbone, "forward", _whose),
        Spot(torch.Tensor, "backward", BACKWARD),
        Spot(type(trainer), "_update", OPTIMIZER),
    ]


def _whose(meter: Meter) -> str:
    """To which part a forward of the UNet belongs."""
    if meter.inside(SAMPLER):
        return SAMPLING
    return TRAINING if torch.is_grad_enabled() else REFERENCE


def profile(recipe: Recipe, *, steps: int, warmup: int, rounds: int, device: str) -> Profile:
    """Train `warmup` steps, then measure `steps` more; the weights are thrown away."""
    experiment = build_experiment(recipe, device=pick_device(device, Fleet()))
    trainer = experiment.trainer
    collector = trainer.collector
    assert isinstance(collector, OnPolicy), f"a {type(collector).__name__} has other parts than those timed here"
    measured, before, metrics = [], 0.0, dict[str, float]()
    for number in range(warmup + steps):
        meter = Meter(trainer.policy.device)
        before = trainer.totals["unet_backwards"]
        with meter.watching(spots(trainer, collector)):
            metrics = trainer.step(number)
        if number >= warmup:
            measured.append(dict(meter.seconds))
        click.echo(f"{recipe.name}: step {number + 1} of {warmup + steps}, {sum(meter.seconds.values()):.2f} s")
    return Profile(
        recipe=recipe.name,
        config=to_plain(recipe),
        steps=tuple(measured),
        images=collector.volume(trainer.policy, 0).images,
        items=round(metrics["unet_backwards"] - before),
        unet=tuple(speeds(trainer, rounds=rounds)),
    )


def speeds(trainer: Made, *, rounds: int) -> list[Speed]:
    """The UNet alone: a forward at the rollout's batch; forward and backward of the loss at the micro-batch."""
    policy, collector = trainer.policy, trainer.collector
    assert isinstance(collector, OnPolicy)
    drawn = collector.draw(policy, 0)
    batch = min(collector.rollout_batch, len(drawn.noise.keys))
    cond = policy.encode(drawn.every[:batch])
    x = drawn.noise.take(torch.arange(batch)).at(0, policy.device)
    t = policy.schedule.grid(collector.plan.steps)[1].expand(batch).to(policy.device)
    found = [_speed("forward", batch, rounds, policy, lambda: _forward(policy, x, t, cond))]
    scored, _ = collector.collect(policy, 0)
    items = trainer.objective.prepare(policy, scored, torch.Generator().manual_seed(0))
    part = items.take(portions(torch.arange(len(items)), trainer.micro)[0])

    def both() -> None:
        trainer.objective.loss(policy, part).total.backward()  # type: ignore[no-untyped-call]

    return [*found, _speed("forward and backward of the loss", len(part), rounds, policy, both)]


@torch.no_grad()
def _forward(policy: Policy, x: torch.Tensor, t: torch.Tensor, cond: Any) -> None:
    policy.predict(x, t, cond)


def _speed(what: str, batch: int, rounds: int, policy: Policy, work: Callable[[], None]) -> Speed:
    """The median over rounds, after one that does not count."""
    seconds = []
    for _ in range(rounds + 1):
        if policy.device.type == "cuda":
            torch.cuda.synchronize(policy.device)
        began = time.perf_counter()
        work()
        if policy.device.type == "cuda":
            torch.cuda.synchronize(policy.device)
        seconds.append(time.perf_counter() - began)
    return Speed(what=what, batch=batch, ms=1000 * statistics.median(seconds[1:]) / batch)


def section(profiles: Sequence[Profile], *, command: str) -> list[str]:
    """What goes between the markers."""
    lines = [
        "## Where the time of a training step goes",
        "",
        *made_by(command),
        "",
        "Exclusive wall time: what happens inside a part that has a row of its own is not counted twice. Texts are",
        "encoded once each, so that the text encoder's share falls as training goes on.",
    ]
    for each in profiles:
        lines += ["", f"### {each.recipe}", "", *_shares(each), "", *_unet(each)]
    return lines


def _shares(each: Profile) -> list[str]:
    means, totals = each.means, [sum(step.values()) for step in each.steps]
    rows = [[part, f"{means[part]:.3f}", f"{100 * each.share(part):.1f}%"] for part in PARTS if means[part] > 0]
    rows.append(["the whole step", f"{sum(means.values()):.3f}", "100%"])
    both, count = each.share(SCORING, CREDIT), f"{len(totals)} step{'s' * (len(totals) > 1)}"
    return [
        f"Mean of {count} ({min(totals):.2f} to {max(totals):.2f} s), each of {each.images:,} pictures and "
        f"{each.items:,} backward passes.",
        "",
        *table(["part", "seconds", "share"], rows),
        "",
        f"Scoring and bookkeeping together: {100 * both:.1f}% of a step; required is below {100 * LIMIT:.0f}%: "
        f"{'met' if both < LIMIT else 'not met'}.",
    ]


def _unet(each: Profile) -> list[str]:
    rows = [[speed.what, f"{speed.batch}", f"{speed.ms:.2f}"] for speed in each.unet]
    return table(["the UNet alone", "batch", "ms an image"], rows)


@click.command("profile_step")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--recipe", "names", default=("emoji-steer",), show_default=True, multiple=True, help="May be repeated.")
@click.option("--steps", type=click.IntRange(min=1), default=5, show_default=True, help="Steps that are measured.")
@click.option("--warmup", type=click.IntRange(min=0), default=2, show_default=True, help="Steps before those.")
@click.option("--rounds", type=click.IntRange(min=1), default=10, show_default=True, help="Of the UNet alone.")
@click.option("--out", default="runs/profile", show_default=True, metavar="DIR", help="Where the JSON goes.")
@click.option(
    "--page", default="docs/performance.md", show_default=True, metavar="FILE", help="The page to write into."
)
@device_option
@click.pass_context
def command(
    context: click.Context,
    overrides: tuple[str, ...],
    names: tuple[str, ...],
    steps: int,
    warmup: int,
    rounds: int,
    out: str,
    page: str,
    device: str,
) -> None:
    """Measure the parts of a training step and write them between the page's markers.

    A matter of a minute or two, and a time is only worth something when nothing else runs: it always measures anew.
    A recipe that was measured stays in DIR when a later one is stopped.
    """
    profiles = []
    for name in names:
        recipe = load_recipe(name, overrides)
        profiles.append(profile(recipe, steps=steps, warmup=warmup, rounds=rounds, device=device))
        Path(out).mkdir(parents=True, exist_ok=True)
        write_json(Path(out) / f"{recipe.name}.json", asdict(profiles[-1]))
    write_section(Path(page), "profile_step", section(profiles, command=command_line(context)), title="Performance")
    click.echo(f"wrote {page}")


if __name__ == "__main__":
    start(command)
