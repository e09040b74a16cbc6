"""A model folder and an encoder folder of random weights, and what makes any recipe small enough to run on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests import families, tiny

ADAPTER = ("weights.rank=2", "weights.within=[]")


@dataclass(frozen=True, slots=True)
class Folders:
    model: Path
    encoder: Path

    @property
    def keys(self) -> list[str]:
        """Overrides that run a recipe on these folders without looking at pictures first."""
        blind = ["calibration.pictures=null", "guard.encoder=null"]
        return [f"model={self.model}", f"encoder={self.encoder}", *blind]

    def of(self, family: str) -> Folders:
        """With the model of another family, 16 x 16 pixels."""
        folder = self.model.with_name(family)
        if not folder.exists():
            {"sdxl": families.sdxl, "sd3": families.sd3, "flux": families.flux}[family]().save_pretrained(folder)
        return Folders(folder, self.encoder)

    @property
    def small(self) -> list[str]:
        """And with few pictures, few steps, a small adapter and no log but metrics.jsonl."""
        return [*self.whole, *ADAPTER]

    @property
    def whole(self) -> list[str]:
        """The same for a recipe that trains all weights."""
        size = ["groups=2", "group_size=2", "rollout_batch=4", "objective.micro=8", "steps=2", "log=[]"]
        return [*self.keys, *size, "plan.steps=3", "plan.window=[0,2]"]


def folders(folder: Path) -> Folders:
    """Written below `folder`."""
    return Folders(tiny.pipeline_folder(folder / "model"), tiny.clip_folder(folder / "encoder"))
