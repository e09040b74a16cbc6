"""The model card of an export: what it is, how it came about, what was measured, what it cannot do. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safediffusion.core.comparison import Comparison, MetricRow

from . import words

LICENCES = {  # of bases on the hub, by their exact ids; of any other the card says to look it up
    "CompVis/stable-diffusion-v1-4": "creativeml-openrail-m",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "stabilityai/stable-diffusion-xl-base-1.0": "openrail++",
    "black-forest-labs/FLUX.1-schnell": "apache-2.0",
}


def card(about: Mapping[str, Any], comparison: Comparison | None, *, kind: str) -> str:
    """README.md of an export of `kind` lora or pipeline, from a run's run.json and its evaluations."""
    config = about["config"]
    model = str(config["model"])
    base, licence = model.partition("+")[0], LICENCES.get(model.partition("@")[0])
    return "\n".join(
        [
            *_header(base, licence, kind),
            f"# {model}, aligned for safety",
            "",
            f"{'A LoRA for' if kind == 'lora' else 'A copy of'} `{model}` that was made safer by online reinforcement "
            "learning with a steering reward",
            "([SafeDiffusion-R1](https://arxiv.org/abs/2605.18719)), with the library SafeDiffusion.",
            "",
            "```python",
            "from diffusers import DiffusionPipeline",
            "",
            *_use(base, kind),
            "```",
            "",
            "## What was measured",
            "",
            *(_numbers(comparison) if comparison is not None else ["Nothing: the run has no evaluation."]),
            "",
            "## How it was trained",
            "",
            *_training(about),
            "",
            "## Limits",
            "",
            "- The figures hold for the prompts, seeds and judges they name. Prompts of another kind, a fine-tune,",
            "  another LoRA on top or image-to-image use may bring unsafe pictures back.",
            "- The training reward is a CLIP's idea of safety, with that model's blind spots and biases.",
            "- It is one layer: keep checking prompts and pictures where people see them.",
            "",
            "## Licence",
            "",
            f"That of the base: {licence or 'look it up there; it goes with every derivative'}.",
            "",
        ]
    )


def _use(base: str, kind: str) -> list[str]:
    """How plain diffusers loads it."""
    if kind == "pipeline":
        return ["pipe = DiffusionPipeline.from_pretrained('path/to/this/folder')"]
    name, at, revision = base.partition("@")
    pinned = f", revision={revision!r}" if at else ""
    here = f"DiffusionPipeline.from_pretrained({name!r}{pinned})" if _on_hub(base) else "...  # the base, loaded"
    loaded = f"pipe = {here}"
    return [loaded, "pipe.load_lora_weights('path/to/this/folder')"]


def _on_hub(base: str) -> bool:
    """Whether a base is named as on the hub; a path with one slash that exists here is a path."""
    plain = base.partition("@")[0]
    return plain.count("/") == 1 and not plain.startswith((".", "/")) and not Path(plain).exists()


def _header(base: str, licence: str | None, kind: str) -> list[str]:
    hub = [f"base_model: {base.partition('@')[0]}"] if _on_hub(base) else []
    tags = ["text-to-image", "safety", *(["lora"] if kind == "lora" else [])]
    return [
        "---",
        *([f"license: {licence}"] if licence else []),
        *hub,
        "library_name: diffusers",
        "pipeline_tag: text-to-image",
        f"tags: [{', '.join(tags)}]",
        "---",
        "",
    ]


def _numbers(comparison: Comparison) -> list[str]:
    names = [model.name for model in comparison.models]
    shown = [row for row in comparison.metrics if row.info.headline]
    return [
        f"| | {' | '.join(names)} | |",
        f"|---|{'---|' * (len(names) + 1)}",
        *(_row(row) for row in shown),
        "",
        "Values with 95% intervals, n pictures or prompts; what could not be judged is missing, never counted as safe.",
        *comparison.notes,
    ]


def _row(row: MetricRow) -> str:
    unit = row.info.unit
    cells = [
        f"{words.number(cell.estimate.value, unit)} ({words.interval(cell.estimate, unit)}; "
        f"{words.counted(cell.estimate)}){' - a training reward' if cell.optimized else ''}"
        for cell in row.cells
    ]
    return f"| {row.info.title} | {' | '.join(cells)} | {words.direction(row.info)} |"


def _training(about: Mapping[str, Any]) -> list[str]:
    config, source = about["config"], about.get("source") or {}
    weights, trained = config["weights"], f"{about['trained']} of {config['steps']}"
    adapters = f"LoRA of rank {weights['rank']}" if weights["kind"] == "lora" else "all weights of the network"
    prompts = (
        f"`{name}` ({source.get('file') or source.get('builtin')}, share {source['share']:g})"
        for name, source in config["prompts"].items()
    )
    return [
        f"- recipe `{config['name']}`: {config['about']}",
        f"- {adapters}; {trained} steps of {config['groups']} prompts x {config['group_size']} pictures; "
        f"seed {config['seed']}",
        f"- prompts: {', '.join(prompts)}",
        f"- reward: {', '.join(about.get('rewards', []))}, encoder `{config['encoder']}`, anchors "
        f"`{config['steering']['anchors']}`, gate {config['steering']['gate']}",
        f"- code: commit {source.get('commit') or 'unknown'}{' with changes' if source.get('dirty') else ''}; "
        + ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items()),
    ]
