"""Progress bars with rate and time left; silent where the output is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SHOWN = {"score/steering/safety": "safety", "score/steering/alignment": "alignment", "loss/kl": "kl"}


class Rate(ProgressColumn):
    """How many a second, or seconds for one where it takes longer."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each", style="cyan")


@contextmanager
def _bar(title: str, *, shown: bool) -> Iterator[tuple[Progress, TaskID] | None]:
    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield None
        return
    left = TimeRemainingColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeElapsedColumn(), left)
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as progress:
        yield progress, progress.add_task(title, total=None, note="")


@contextmanager
def bar(title: str, *, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, total) that moves a bar; it draws nothing unless `shown` and on a terminal."""
    with _bar(title, shown=shown) as drawn:

        def move(done: int, total: int) -> None:
            if drawn is not None:
                drawn[0].update(drawn[1], completed=done, total=total)

        yield move


class Training:
    """Listens to `train.run.train`."""

    def __init__(self, drawn: tuple[Progress, TaskID] | None, *, shown: bool) -> None:
        self._drawn, self._shown = drawn, shown

    def note(self, text: str) -> None:
        """Said on a terminal and elsewhere: what was measured must be seen."""
        if self._shown:
            Console(soft_wrap=True, highlight=False).print(text, markup=False)

    def step(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        if self._drawn is not None:
            note = "  ".join(f"{name} {metrics[key]:.3g}" for key, name in SHOWN.items() if key in metrics)
            self._drawn[0].update(self._drawn[1], completed=done, total=total, note=note)


@contextmanager
def training(title: str, *, shown: bool = True) -> Iterator[Training]:
    """A listener that draws a bar with the main metrics."""
    with _bar(title, shown=shown) as drawn:
        yield Training(drawn, shown=shown)
