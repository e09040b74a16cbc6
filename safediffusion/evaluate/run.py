"""The entry point: evaluate a policy on a suite into a folder; run again, it only fills what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch

from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.noise import Noise
from safediffusion.core.prompt import Prompt
from safediffusion.core.provenance import provenance
from safediffusion.core.stats import Estimate
from safediffusion.diffusion.denoise import Plan
from safediffusion.models.files import network_sha256
from safediffusion.models.policy import Policy

from .benchmark import Benchmark, Suite
from .generate import Options, Progress, at_least_one, fill, tile_of, tiles
from .owners import drop_stale
from .pictures import check_format
from .rows import Row
from .store import Store, read_json, write_json

SCHEMA = 1
SAME_WEIGHTS = 1e-4  # largest difference of two probes of one set of weights (threads and kernels differ)


def evaluate(
    policy: Policy,
    suite: Suite,
    folder: Path,
    *,
    fleet: Fleet,
    options: Options,
    progress: Progress = lambda done, total: None,
) -> dict[str, Estimate]:
    """Metric key -> estimate, after drawing and judging what `folder` lacks; every process returns the same.

    Whichever weights are active in `policy` are evaluated (wrap the call in `policy.using(...)`). Metrics defined
    against a base (what changed) come from `compare`. UserError when the folder holds other weights, prompts or another
    plan.
    """
    at_least_one("batch", options.batch)
    if options.limit is not None and options.limit < 1:
        raise UserError(f"limit is {options.limit}; it must be at least 1 prompt a benchmark")
    items = suite.items(options.limit)
    size = tile_of(policy.latent_shape, policy.device, options.batch)
    store, manifest = Store(folder), _describe(policy, suite, items, options)
    manifest["format"] = check_format(options.format or store.format)
    foreign = _foreign(store, manifest, allowed=options.replace)
    fleet.barrier()  # nobody writes before everybody has looked
    if fleet.is_main:
        if foreign:
            rmtree(folder)
        old = store.read_manifest()
        facts = {"network": digest(policy), "tile": size, "processes": fleet.world}
        facts |= {name: old.get(name, {}) for name in ("scorers", "judges")}
        store.begin(items, {**manifest, **facts})
    fleet.barrier()
    spent = fill(policy, store, tiles(suite.benchmarks, items, size), fleet=fleet, options=options, progress=progress)
    fleet.barrier()
    if fleet.is_main:
        store.consolidate()
        drop_stale(store)
        reduce(suite, store, spent=spent)
    fleet.barrier()
    return read_summary(folder)


def reduce(suite: Suite, store: Store, *, spent: Mapping[str, float] | None = None) -> None:
    """Rows -> report.json; without `spent` the seconds that it already says stay."""
    rows = store.rows()
    metrics: dict[str, dict[str, Any]] = {}
    for benchmark in suite.benchmarks:
        mine = [row for row in rows if row.benchmark == benchmark.name]
        for metric in benchmark.metrics:
            if not metric.info.against_base:
                metrics[metric.info.key] = asdict(metric.estimate(mine))
    judged = sum(row.image is not None for row in rows)
    if spent is None:
        spent = read_json(store.summary)["seconds"] if store.summary.is_file() else {}
    seconds = {name: round(value, 3) for name, value in spent.items()}
    write_json(
        store.summary,
        {"suite": suite.name, "images": judged, "missing": len(rows) - judged, "metrics": metrics, "seconds": seconds},
    )


def read_summary(folder: Path) -> dict[str, Estimate]:
    """The estimates an evaluation wrote."""
    path = Store(folder).summary
    return {key: Estimate(**value) for key, value in read_json(path)["metrics"].items()}


def _describe(policy: Policy, suite: Suite, items: Sequence[Row], options: Options) -> dict[str, Any]:
    benchmarks = [
        benchmark.record([item for item in items if item.benchmark == benchmark.name]) for benchmark in suite.benchmarks
    ]
    return {
        "schema": SCHEMA,
        "suite": suite.name,
        "model": dict(options.model),
        "plan": _plan(options.plan),
        "benchmarks": benchmarks,
        "asked": {benchmark.name: _asked(benchmark) for benchmark in suite.benchmarks},
        "probe": probe(policy, items[0], options.plan) if items else [],
        **provenance(policy.device),
    }


def _asked(benchmark: Benchmark) -> dict[str, Any]:
    """Of how many prompts a limit takes some, what became of the rows of the user's file, how its authors draw."""
    official = {name: value for name, value in asdict(benchmark.official).items() if value is not None}
    whole = {"prompts": len(benchmark.prompts), **({"official": official} if official else {})}
    account = benchmark.account
    if account is None:
        return whole
    rows = {"read": account.read, "used": account.used, "skipped": dict(account.skipped), "text": account.text}
    return {**whole, "source": {"set": benchmark.set, **rows}}


def _plan(plan: Plan) -> dict[str, Any]:
    window = None if plan.window is None else list(plan.window)
    return {"steps": plan.steps, "guidance": plan.guidance, "dynamics": repr(plan.dynamics), "window": window}


@torch.no_grad()
def probe(policy: Policy, item: Row, plan: Plan) -> list[float]:
    """32 numbers that the active weights predict for a fixed input: enough to tell two sets of weights apart."""
    cond = policy.encode((Prompt(id=item.prompt, text=item.text, tags=item.tags),))
    x = Noise(((0, "probe", 0),), policy.latent_shape).at(0, policy.device)
    t = policy.schedule.grid(plan.steps)[plan.steps // 2].expand(1).to(policy.device)
    raw = policy.predict(x, t, cond, guidance=plan.scale(policy.device)).noise
    return [round(float(value), 6) for value in raw.flatten()[:32]]


def digest(policy: Policy) -> str:
    """SHA-256 of every parameter of the denoising network, adapters included, whatever file they came from."""
    return network_sha256(policy.backbone.network)


def _foreign(store: Store, manifest: Mapping[str, Any], *, allowed: bool) -> bool:
    """Whether the folder holds another evaluation; UserError if it does and that is not `allowed`."""
    try:
        _admit(store, manifest)
    except UserError:
        if not allowed:
            raise
        return True
    return False


def _admit(store: Store, manifest: Mapping[str, Any]) -> None:
    """Refuse to mix two models, plans or prompt lists in one folder."""
    old = store.read_manifest()
    if not old:
        return
    hint = f"evaluate into another folder (--out), or delete {store.folder}"
    if "imported" in old:
        raise UserError(f"{store.folder} holds pictures that were imported ({old.get('model')}); {hint}")
    sizes = [(said.get("model") or {}).get("size", "the model's own size") for said in (old, manifest)]
    if sizes[0] != sizes[1]:
        raise UserError(f"{store.folder} holds pictures drawn at {sizes[0]}, now {sizes[1]} was asked for; {hint}")
    for key in ("suite", "plan", "benchmarks"):
        if old.get(key) != manifest[key]:
            raise UserError(
                f"{store.folder} holds an evaluation with {key} {old.get(key)}, now {manifest[key]}; {hint}"
            )
    if store.format != manifest["format"]:
        raise UserError(
            f"{store.folder} holds its pictures as {store.format}, now {manifest['format']} was asked for; leave out "
            f"--format, or {hint}"
        )
    before, now = old.get("probe", []), manifest["probe"]
    if len(before) != len(now) or any(abs(a - b) > SAME_WEIGHTS for a, b in zip(before, now, strict=True)):
        raise UserError(f"{store.folder} holds pictures of other weights ({old.get('model')}); {hint}")
