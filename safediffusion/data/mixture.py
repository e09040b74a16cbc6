"""Endless, deterministic mixtures of prompt sources: what step n draws depends on (seed, n, count) and nothing else."""

from __future__ import annotations

import hashlib
import math
import random
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Protocol

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt

GOLDEN = (math.sqrt(5) - 1) / 2


class PromptSource(Protocol):
    """Where a training step's prompts come from."""

    def draw(self, step: int, count: int) -> tuple[Prompt, ...]:
        """`count` prompts; a pure function of its arguments, so resuming needs no saved iterator."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One set of prompts and its share of the mixture (relative to the other shares).

    With `balance="category"` the prompts of an epoch come in an order that spreads the values of that tag evenly.
    """

    name: str
    prompts: tuple[Prompt, ...]
    share: float = 1.0
    balance: str | None = None

    def __post_init__(self) -> None:
        if not self.prompts:
            raise UserError(f"prompt source '{self.name}' is empty; give it at least one prompt")
        if not (math.isfinite(self.share) and self.share > 0):
            raise UserError(f"prompt source '{self.name}' has share {self.share}; a share is a number above 0")
        if self.balance is not None:
            bare = [prompt.id for prompt in self.prompts if self.balance not in prompt.tags]
            if bare:
                raise UserError(
                    f"prompt source '{self.name}' is balanced by '{self.balance}', but prompt '{bare[0]}' has no such "
                    "tag; tag it or drop `balance`"
                )


@dataclass(slots=True, kw_only=True)
class Mixture:
    """Draws from its sources by share: in every step a source is used its share of times, rounded up or down.

    Every prompt of a source comes once before any comes twice.
    """

    sources: tuple[Source, ...]
    seed: int = 0
    _before: dict[int, list[tuple[int, ...]]] = field(default_factory=dict, init=False, repr=False)
    _orders: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.sources:
            raise UserError("a mixture needs at least one prompt source; give a file or a list of prompts")

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """Of all sources, one after the other."""
        return tuple(prompt for source in self.sources for prompt in source.prompts)

    def draw(self, step: int, count: int) -> tuple[Prompt, ...]:
        taken = list(self._drawn_before(step, count))
        drawn = []
        for chosen in self._choose(step, count):
            drawn.append(self._prompt(chosen, taken[chosen]))
            taken[chosen] += 1
        return tuple(drawn)

    def _choose(self, step: int, count: int) -> list[int]:
        """The source of each draw of a step: systematic sampling, its offset rotated from step to step."""
        total = sum(source.share for source in self.sources)
        bounds, reached = [], 0.0
        for source in self.sources:
            reached += source.share / total
            bounds.append(reached)
        offset = (_uniform(self.seed, "offset") + step * GOLDEN) % 1.0
        points = [(k + offset) / count for k in range(count)]
        last = len(bounds) - 1
        return [next((i for i, bound in enumerate(bounds) if point < bound), last) for point in points]

    def _drawn_before(self, step: int, count: int) -> tuple[int, ...]:
        """How often each source was used by the steps before this one (remembered, never part of the state)."""
        known = self._before.setdefault(count, [(0,) * len(self.sources)])
        while len(known) <= step:
            used = self._choose(len(known) - 1, count)
            known.append(tuple(n + used.count(i) for i, n in enumerate(known[-1])))
        return known[step]

    def _prompt(self, chosen: int, index: int) -> Prompt:
        source = self.sources[chosen]
        epoch, position = divmod(index, len(source.prompts))
        if (chosen, epoch) not in self._orders:
            self._orders.pop((chosen, epoch - 2), None)
            self._orders[chosen, epoch] = _order(source, f"{self.seed}/{source.name}/{epoch}")
        return source.prompts[self._orders[chosen, epoch][position]]


def _order(source: Source, key: str) -> tuple[int, ...]:
    """A shuffle of the source's indices in which the values of its balancing tag are spread evenly."""
    shuffle = random.Random(_uniform(key))
    by_tag: defaultdict[str, list[int]] = defaultdict(list)
    for index, prompt in enumerate(source.prompts):
        by_tag["" if source.balance is None else prompt.tags[source.balance]].append(index)
    placed: list[tuple[float, int]] = []
    for indices in by_tag.values():
        shuffle.shuffle(indices)
        start = shuffle.random()
        placed.extend(((k + start) / len(indices), index) for k, index in enumerate(indices))
    return tuple(index for _, index in sorted(placed))


def few(source: Source, count: int, *, seed: int) -> Source:
    """`source` with the first `count` prompts of a shuffle, its balancing tag spread evenly; a function of the seed."""
    chosen = sorted(_order(source, f"{seed}/{source.name}/few")[:count])
    return replace(source, prompts=tuple(source.prompts[i] for i in chosen))


def _uniform(*key: object) -> float:
    """A number in [0, 1) that depends on the key alone, on any machine."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def places(step: int, count: int, share: float, *, key: str) -> list[int]:
    """Which of a step's `count` draws another source takes: `share` of them on average, whatever the count."""
    taken = min(int(count * share + (_uniform(key, "offset") + step * GOLDEN) % 1.0), count)
    return sorted(random.Random(f"{key}/{step}").sample(range(count), taken))
