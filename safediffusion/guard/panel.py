"""The panel: fixed prompts and noise that are drawn under the base once and under the policy again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.noise import Noise
from safediffusion.core.prompt import Prompt
from safediffusion.diffusion.denoise import Plan, denoise
from safediffusion.models.policy import Policy
from safediffusion.scorers.base import ImageBatch, Scorer, raw_scores

from .features import Features, distance, diversity
from .measures import DIVERSITY, FRECHET, PICTURES, Measure
from .reading import Reading, column
from .statistics import statistics


class Witness(Protocol):
    """Looks at the panel's pictures and is never a reward."""

    @property
    def measures(self) -> tuple[Measure, ...]: ...

    def __call__(self, batch: ImageBatch) -> dict[str, Tensor]:
        """[B] by the name of each measure; NaN where a picture cannot be measured."""
        ...


class Seen(NamedTuple):
    """All pictures of one look, prompt by prompt."""

    scores: dict[str, Tensor]  # raw scores of the reward, each [P]
    columns: dict[str, Tensor]  # each [P]
    features: Tensor  # [P, D]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """`repeats` pictures of every prompt, drawn by the deterministic form of the training's plan.

    The noise has keys of its own, so that nothing is taken from training's. Every process draws as many pictures as
    the others (the last ones draw some of the first again), `batch` at a time; their numbers are gathered everywhere.
    """

    prompts: tuple[Prompt, ...]
    repeats: int
    plan: Plan
    scorers: Sequence[Scorer]
    witnesses: Sequence[Witness]
    features: Features
    batch: int = 64
    seed: int = 0
    fleet: Fleet = Fleet()

    @property
    def measures(self) -> tuple[Measure, ...]:
        return (*PICTURES, DIVERSITY, FRECHET, *(each for witness in self.witnesses for each in witness.measures))

    @property
    def pictures(self) -> tuple[Prompt, ...]:
        """The prompt of each picture."""
        return tuple(prompt for prompt in self.prompts for _ in range(self.repeats))

    @property
    def benign(self) -> tuple[bool, ...]:
        return tuple(prompt.tags.get("label") != "unsafe" for prompt in self.pictures)

    @property
    def forwards(self) -> int:
        """Network evaluations of one look, over all processes; guidance counts as two."""
        return self.plan.shared_forwards(len(self.prompts) * self.repeats, processes=self.fleet.world)

    @torch.no_grad()
    def look(self, policy: Policy) -> Seen:
        """What is seen of the pictures that the active weights draw."""
        parts = [self._part(policy, rows) for rows in self._rows()]
        return Seen(
            {name: self._whole([part.scores[name] for part in parts]) for name in parts[0].scores},
            {name: self._whole([part.columns[name] for part in parts]) for name in parts[0].columns},
            self._whole([part.features for part in parts]),
        )

    def reading(self, step: int, seen: Seen, base: Tensor) -> Reading:
        """The numbers of one look beside the base's features [P, D]."""
        group = [number // self.repeats for number in range(len(seen.features))]
        sets = {
            DIVERSITY.name: diversity(seen.features, group, centre=base.mean(0)),
            FRECHET.name: torch.full((len(base),), self._far(seen.features, base)),
        }
        return Reading(
            step=step,
            scores={name: column(value.tolist()) for name, value in seen.scores.items()},
            columns={name: column(value.tolist()) for name, value in (seen.columns | sets).items()},
        )

    def _far(self, features: Tensor, base: Tensor) -> float:
        """The Frechet distance to the base over that between two halves of the base's own pictures.

        0: the same pictures; 1: as far as other pictures of the base are. Prompts labelled unsafe are left out where
        there are others.
        """
        rows = torch.tensor(self.benign if any(self.benign) else [True] * len(base))
        half = torch.tensor([sum(divmod(number, self.repeats)) % 2 == 0 for number in range(len(base))])
        own = distance(base[rows & half], base[rows & ~half])
        return distance(features[rows], base[rows]) / own if own > 0 else float("nan")

    def _part(self, policy: Policy, rows: Sequence[int]) -> Seen:
        prompts = tuple(self.pictures[row] for row in rows)
        keys = tuple((self.seed, f"guard/{p.id}", row % self.repeats) for p, row in zip(prompts, rows, strict=True))
        plan = replace(self.plan, dynamics=self.plan.dynamics.deterministic(), window=None)
        latents, _ = denoise(policy, policy.encode(prompts), Noise(keys, policy.latent_shape), plan)
        images = policy.decode(latents)
        batch = ImageBatch(images, prompts)
        columns = statistics(images)
        for witness in self.witnesses:
            columns |= witness(batch)
        own = [
            {name: value.float().cpu() for name, value in each.items()}
            for each in (raw_scores(self.scorers, batch), columns)
        ]
        return Seen(own[0], own[1], self.features(images, latents))

    def _rows(self) -> Iterator[list[int]]:
        """This process's pictures in batches."""
        mine = self.fleet.part_of(len(self.prompts) * self.repeats)
        for start in range(0, len(mine), self.batch):
            yield mine[start : start + self.batch]

    def _whole(self, parts: Sequence[Tensor]) -> Tensor:
        """The rows of all processes, in order."""
        return self.fleet.gather_tensor(torch.cat(list(parts)))[: len(self.prompts) * self.repeats]


def choose(prompts: Sequence[Prompt], count: int, *, seed: int) -> tuple[Prompt, ...]:
    """`count` of the prompts by a key of their own: half of them labelled unsafe where there are both kinds.

    Every text comes once; values of the tags `category` and `task` come in turns. UserError when there are too few.
    """
    distinct = list({prompt.text: prompt for prompt in prompts}.values())
    if not distinct:
        raise UserError("the guard has no prompts to draw; give the recipe some, or set guard.every=0")
    kinds = {unsafe: [p for p in distinct if (p.tags.get("label") == "unsafe") is unsafe] for unsafe in (True, False)}
    half = {unsafe: max(count // 2, count - len(kinds[not unsafe])) for unsafe in kinds}
    half[False] = max(half[False], count - min(half[True], len(kinds[True])))
    return tuple(prompt for unsafe in kinds for prompt in _turns(kinds[unsafe], seed)[: half[unsafe]])[:count]


def _turns(prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    """In an order by key in which the values of category and task take turns."""
    ordered = sorted(prompts, key=lambda p: hashlib.sha256(repr((seed, "guard", p.text)).encode()).digest())
    seen: dict[tuple[str | None, str | None], int] = {}
    turn = []
    for place, prompt in enumerate(ordered):
        kind = (prompt.tags.get("category"), prompt.tags.get("task"))
        turn.append((seen.get(kind, 0), place, prompt))
        seen[kind] = seen.get(kind, 0) + 1
    return [prompt for *_, prompt in sorted(turn, key=lambda each: each[:2])]
