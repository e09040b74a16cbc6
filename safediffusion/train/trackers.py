"""Where metrics go besides `metrics.jsonl`: TensorBoard, wandb, trackio, or a plug-in."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from safediffusion.core.errors import UserError
from safediffusion.core.registry import Registry

TRACKERS = Registry(
    kind="tracker",
    table={
        "tensorboard": "safediffusion.train.trackers:TensorBoard",
        "trackio": "safediffusion.train.trackers:Trackio",
        "wandb": "safediffusion.train.trackers:Wandb",
    },
    group="safediffusion.trackers",
)


class Tracker(Protocol):
    """Made by `Tracker(folder, config, done)`: the run folder, the resolved recipe, the steps done before."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class TensorBoard:
    """Event files under `tb/`; what a killed process logged beyond the checkpoint is purged."""

    def __init__(self, folder: Path, config: Mapping[str, Any], done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tb"), purge_step=done + 1)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Service:
    """wandb and trackio share one interface; a resumed run goes on in its own, which trackio knows by its name."""

    module = ""

    def known_by(self, folder: Path, *, anew: bool) -> dict[str, str]:
        """What else tells a run from others; `anew`: it starts from its first step."""
        return {}

    def __init__(self, folder: Path, config: Mapping[str, Any], done: int) -> None:
        try:
            self._service = importlib.import_module(self.module)
        except ImportError as error:
            raise UserError(
                f"metrics cannot go to {self.module}: it is not installed; pip install {self.module}, or drop it from "
                "`log`"
            ) from error
        resume = "allow" if done else "never"
        own = self.known_by(folder, anew=not done)
        self._service.init(project="safediffusion", name=folder.name, config=dict(config), resume=resume, **own)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._service.log(dict(metrics), step=step)

    def close(self) -> None:
        self._service.finish()


class Wandb(_Service):
    module = "wandb"

    def known_by(self, folder: Path, *, anew: bool) -> dict[str, str]:
        """An id of its own, kept in the run folder: names need not differ there."""
        file = folder / "wandb-id"
        if anew or not file.is_file():
            file.write_text(uuid4().hex)
        return {"id": file.read_text().strip()}


class Trackio(_Service):
    module = "trackio"
