"""The training run behind a model: its curves and its rewards, read from its files. No torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from safediffusion.core.learned import learned_from

from .store import read_json

POINTS = 400  # a curve keeps at most this many
PREFIXES = ("score/", "spread/", "loss/", "grad/", "group/", "eval/", "constraint/", "guard/")
Curve = tuple[tuple[float, float], ...]


def read_training(run: Path | None) -> dict[str, Curve]:
    """Metric key -> [step, value] pairs of metrics.jsonl, thinned evenly; values that are no numbers are left out."""
    if run is None or not (run / "metrics.jsonl").is_file():
        return {}
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        for key, step, value in _numbers(line):
            curves.setdefault(key, []).append((step, value))
    return {key: _thin(points) for key, points in sorted(curves.items())}


def rewards(run: Path | None) -> frozenset[str]:
    """Names of the scores and judges this run learned from, so that a report can say which numbers were optimized."""
    if run is None:
        return frozenset()
    config = read_json(run / "run.json").get("config")
    if not isinstance(config, dict):
        return frozenset()
    constraint, objective = (_section(config, name) for name in ("constraint", "objective"))
    return learned_from(_section(config, "scorers"), constraint.get("costs", ()), objective.get("region"))


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _numbers(line: str) -> list[tuple[str, float, float]]:
    try:
        raw: Any = json.loads(line)
    except ValueError:
        return []  # the last line of a run that was killed
    if not isinstance(raw, dict) or "step" not in raw:
        return []
    return [
        (key, float(raw["step"]), float(value))
        for key, value in raw.items()
        if key.startswith(PREFIXES) and isinstance(value, int | float) and math.isfinite(value)
    ]


def _thin(points: list[tuple[float, float]]) -> Curve:
    stride = math.ceil(len(points) / POINTS)
    kept = points[::stride]
    return tuple(kept if kept[-1] == points[-1] else [*kept, points[-1]])
