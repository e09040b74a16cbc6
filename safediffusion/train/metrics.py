"""`metrics.jsonl`: one line a step, {"step": n, metric: value, ...}."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from safediffusion.core.errors import UserError

NAME = "metrics.jsonl"


class MetricsFile:
    """Appends lines. Opening it keeps those up to step `done` and drops the rest, which a resumed run writes again."""

    def __init__(self, folder: Path, *, done: int) -> None:
        self.path = folder / NAME
        kept = [line for line in read_metrics(folder) if line["step"] <= done]
        if [line["step"] for line in kept] != list(range(1, done + 1)):
            raise UserError(
                f"{self.path} does not hold steps 1 to {done} of the checkpoint to resume from; "
                "put the file back, or start a new run"
            )
        fresh = self.path.with_name(f".{NAME}.partial")
        fresh.write_text("".join(map(_line, kept)))
        fresh.replace(self.path)
        self.last: dict[str, float] = kept[-1] if kept else {}
        self._file: TextIO = self.path.open("a")

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the line of `step`; it survives the process being killed."""
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise UserError(
                    f"step {step}: metric {name} is {value}; resume from the last checkpoint with a lower learning rate"
                )
        self.last = {"step": step, **metrics}
        self._file.write(_line(self.last))
        self._file.flush()

    def sync(self) -> None:
        """Return once every line is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics, oldest first; a last line that was cut when the process was killed is left out."""
    path = folder / NAME
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")
    found = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number} is not JSON ({error.msg}); put the file back") from error
    return found


def _line(metrics: Mapping[str, float]) -> str:
    return json.dumps(dict(metrics)) + "\n"
