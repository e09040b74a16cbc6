"""Which recipes fit a device's memory, and what to change where one does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from safediffusion.config.cost import forecast
from safediffusion.config.load import load_recipe

REAL = ("sd15-steer", "sdxl-steer", "sd35-steer", "flux-steer")  # one of each family, for one GPU
SPARE = 0.1  # of the memory, for an accelerator's libraries and the fragments of its allocator, which are not counted
LEVERS = (  # tried one after the other, each on top of those before; the first cost least
    ("memory.checkpointing=true",),
    ("memory.text_encoders=free",),
    ("objective.micro=1", "rollout_batch=4"),
    ("rollout_batch=1", "memory.vae_slicing=true"),
    ("memory.text_encoders=cpu",),  # freed ones are on the device at first; on the CPU a long one takes its time
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One recipe on one device. `changes` None: nothing that is tried makes it fit."""

    recipe: str
    peak: int  # bytes, as it ships
    changes: tuple[str, ...] | None
    changed: int  # bytes, with the changes; with all of them where they do not suffice
    uncounted: tuple[str, ...] = ()  # encoders whose size is not known here

    def line(self) -> str:
        besides = f" and {', '.join(self.uncounted)}" if self.uncounted else ""
        shipped = f"{self.recipe}: about {self.peak / 2**30:.0f} GiB{besides}"
        if self.changes is None:
            return f"{shipped}; {self.changed / 2**30:.0f} GiB with everything that saves memory, more than there is"
        if not self.changes:
            return f"{shipped}, fits"
        return f"{shipped}; {self.changed / 2**30:.0f} GiB with {' '.join(self.changes)}"


def fits(memory: int, recipes: tuple[str, ...] = REAL) -> Iterator[Fit]:
    """How each recipe fits into `memory` bytes, of which a tenth is left free. From configurations alone."""
    room = int(memory * (1 - SPARE))
    for name in recipes:
        memory_shipped = forecast(load_recipe(name)).memory
        shipped = peak = memory_shipped.peak
        changes: tuple[str, ...] | None = ()
        if peak > room:
            changes = None
            for tried in map(_last_words, accumulate(LEVERS)):
                peak = forecast(load_recipe(name, tried)).memory.peak
                if peak <= room:
                    changes = tried
                    break
        yield Fit(recipe=name, peak=shipped, changes=changes, changed=peak, uncounted=memory_shipped.uncounted)


def _last_words(changes: tuple[str, ...]) -> tuple[str, ...]:
    """Without what is taken back further on."""
    return tuple({change.partition("=")[0]: change for change in changes}.values())
