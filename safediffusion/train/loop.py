"""The training loop. There is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.amp import GradScaler

from safediffusion.collect.base import Collector, Settling, State, portions
from safediffusion.collect.clock import Clock
from safediffusion.core.errors import Diverged, UserError
from safediffusion.core.fleet import Fleet, whole
from safediffusion.core.noise import stream
from safediffusion.core.types import Sliceable
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.base import Objective, Resting
from safediffusion.train.optim import LearningRate

E = TypeVar("E")
M = TypeVar("M", bound=Sliceable)
Initialize = Callable[[Policy], Mapping[str, float]]  # its metrics join those of the first step
COUNTERS = ("images", "unet_forwards", "unet_backwards")  # metrics that are summed over the run
SMALLEST = 2.0**-14  # a loss scale below which float16 will not do


class Portion(NamedTuple):
    """Items of one forward and backward, and what their mean loss weighs in the update."""

    rows: Tensor
    weight: float


class Log:
    """Means of the losses' terms over items, the same on every process after `metrics`."""

    def __init__(self, terms: tuple[str, ...]) -> None:
        self._sums = dict.fromkeys(terms, 0.0)
        self._items = 0

    def add(self, terms: Mapping[str, Tensor], items: int) -> None:
        for name in self._sums:
            self._sums[name] += float(terms[name]) * items
        self._items += items

    def metrics(self, fleet: Fleet) -> dict[str, float]:
        """`loss/<term>`, each a mean over the items of all processes that were not idle; nothing if all were.

        A term with a place of its own, e.g. region/share, keeps it.
        """
        own = torch.tensor([[*self._sums.values(), self._items]], dtype=torch.float64)
        *sums, items = fleet.gather_tensor(own).sum(0).tolist()
        named = ((name if "/" in name else f"loss/{name}", value) for name, value in zip(self._sums, sums, strict=True))
        return {name: value / items for name, value in named} if items else {}


@dataclass(slots=True, kw_only=True)
class Trainer(Generic[E, M]):
    """One step: collect, flatten to items, `updates` optimizer updates over shuffled items, `micro` items a backward.

    Neither `micro` (gradient accumulation) nor the number of processes changes an update: the items of an update are
    drawn from all processes' items, and each loss counts by its share of them.

    With an enabled `scaler` (float16) the loss is multiplied by its scale and the gradients divided again; an update
    whose gradients overflow is left out and the scale halved.
    """

    policy: Policy
    collector: Collector[E]
    objective: Objective[E, M]
    optimizer: torch.optim.Optimizer
    rate: LearningRate
    updates: int = 1
    micro: int = 64
    max_norm: float | None = 1.0
    scaler: GradScaler = field(default_factory=lambda: GradScaler(enabled=False))
    ema: float | None = None  # decay an update of the averaged weights, which are evaluated and exported
    initialize: Initialize | None = None  # once, as part of the first step: where training starts from
    seed: int = 0
    fleet: Fleet = Fleet()
    totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0.0))

    def __post_init__(self) -> None:
        if self.objective.single_update and self.updates != 1:
            raise UserError(
                f"updates is {self.updates}, but {type(self.objective).__name__} as configured allows one update an "
                "experience; set updates: 1, or anchor: recompute or rollout"
            )
        if self.updates < 1 or self.micro < 1:
            raise UserError(f"updates is {self.updates} and micro is {self.micro}; both must be 1 or more")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError(f"ema is {self.ema}; it is a decay between 0 and 1, or absent for none")
        self._check_weights()
        averaged = frozenset() if self.ema is None else frozenset({Weights.EMA})
        sampled = frozenset({self.collector.behavior}) - {Weights.LIVE}
        self.policy.allocate(self.objective.needs | averaged | sampled)

    def _check_weights(self) -> None:
        """Refuse sets of weights that nobody would refresh or sample with."""
        needs, behavior, name = self.objective.needs, self.collector.behavior, type(self.objective).__name__
        if (Weights.BEHAVIOR in needs) is not (behavior is Weights.BEHAVIOR):
            asked = "behavior" if Weights.BEHAVIOR in needs else "live"
            raise UserError(
                f"the collector samples with the {behavior} weights, but {name} learns from what the {asked} weights "
                f"drew; set the collector's behavior to Weights.{asked.upper()}"
            )
        if Weights.EMA in needs and self.ema is None:
            raise UserError(f"{name} compares with averaged weights, but there are none; set ema, e.g. ema: 0.9")

    def step(self, number: int) -> dict[str, float]:
        """The metrics of step 0, 1, 2, ...; weights and metrics are a function of the state before and `number`."""
        clock = Clock(self.policy.device)
        with clock.part("step"):
            initial = {} if self.initialize is None or number else self.initialize(self.policy)
            experience, measured = self.collector.collect(self.policy, number)
            with clock.part("backward"):
                learned = self._learn(experience, number)
            self.objective.after_step(self.policy)
            settled = self.collector.settle() if isinstance(self.collector, Settling) else {}
        for name in COUNTERS:
            self.totals[name] += sum(each.get(name, 0.0) for each in (initial, measured, learned))
        return {**initial, **measured, **learned, **settled, **clock.metrics(), **self.totals}

    def _learn(self, experience: E, number: int) -> dict[str, float]:
        items = self.objective.prepare(self.policy, experience, self._generator(number, "prepare"))
        rests = {"policy/rests": float(self.objective.rests(items))} if isinstance(self.objective, Resting) else {}
        if rests.get("policy/rests"):
            return {**rests, "lr": 0.0, "unet_forwards": 0.0, "unet_backwards": 0.0}
        plan = self._divide(items, number)
        frozen = [[self._freeze(items, portion.rows) for portion in update] for update in plan]
        log, norms, spent = Log(self.objective.terms), [], [0, 0]
        for position, (update, ready) in enumerate(zip(plan, frozen, strict=True)):
            for (rows, weight), known in zip(update, ready, strict=True):
                batch = items.take(rows) if known is None else known
                loss = self.objective.loss(self.policy, batch)
                self.scaler.scale(loss.total * weight).backward()  # type: ignore[no-untyped-call]
                log.add(loss.terms, len(rows) if weight else 0)
                spent = [a + b for a, b in zip(spent, self.objective.cost(batch), strict=True)]
            norms.append(self._update(number * self.updates + position, number))
        everywhere = self.fleet.gather_tensor(torch.tensor([spent], dtype=torch.float64)).sum(0).tolist()
        return (
            log.metrics(self.fleet)
            | self._gradients(norms)
            | rests
            | {
                "lr": self.rate.at(number * self.updates),
                "unet_forwards": everywhere[0],
                "unet_backwards": everywhere[1],
            }
        )

    def _gradients(self, norms: list[float | None]) -> dict[str, float]:
        """The mean norm of the updates that were made; in float16 the scale and how many were left out, too."""
        made = [norm for norm in norms if norm is not None]
        found = {"grad/norm": sum(made) / len(made)} if made else {}
        if self.scaler.is_enabled():
            found |= {"grad/scale": self.scaler.get_scale(), "grad/skipped": float(len(norms) - len(made))}
        return found

    def _divide(self, items: M, number: int) -> list[list[Portion]]:
        """For each update this process's portions of the items of all processes that it averages over."""
        counts = self.fleet.gather_tensor(torch.tensor([len(items)]))
        total, start = int(counts.sum()), int(counts[: self.fleet.rank].sum())
        if total < self.updates:
            raise UserError(
                f"a step of {total} items cannot feed {self.updates} updates; lower updates or raise groups"
            )
        active = ~self.objective.idle(items).cpu()
        divided = []
        for update in torch.randperm(total, generator=self._generator(number, "order")).tensor_split(self.updates):
            mine = update[(update >= start) & (update < start + len(items))] - start
            kept = mine[active[mine]]
            parts = portions(kept, self.micro)
            divided.append([Portion(part, len(part) * self.fleet.world / len(update)) for part in parts])
        return self._level(divided) if self.policy.sharded else divided

    def _level(self, divided: list[list[Portion]]) -> list[list[Portion]]:
        """As many portions an update as the process with most has: one item that weighs nothing in each further one."""
        counts = self.fleet.gather_tensor(torch.tensor([[len(update) for update in divided]]))
        idle = Portion(torch.zeros(1, dtype=torch.int64), 0.0)
        longest = counts.max(0).values.tolist()
        return [update + [idle] * (most - len(update)) for update, most in zip(divided, longest, strict=True)]

    def _freeze(self, items: M, index: Tensor) -> M | None:
        return self.objective.freeze(self.policy, items.take(index)) if self.objective.freezes else None

    def _update(self, update: int, number: int) -> float | None:
        """Average gradients, check, clip, move; returns the norm before clipping, None if float16 overflowed."""
        parameters = self.policy.parameters()
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if not self.policy.sharded:  # whose backward has done it
            self.fleet.mean_gradients(parameters)
        self.scaler.unscale_(self.optimizer)
        limit = math.inf if self.max_norm is None else self.max_norm
        norm = float(whole(torch.nn.utils.clip_grad_norm_(parameters, limit)))
        overflowed = self.scaler.is_enabled() and not math.isfinite(norm)
        if not math.isfinite(norm) and not (overflowed and self.scaler.get_scale() > SMALLEST):
            self.optimizer.zero_grad(set_to_none=True)
            raise Diverged(
                f"step {number}: the gradient norm is {norm}; the optimizer was not stepped. "
                "Resume from the last checkpoint with a lower learning rate, or in precision fp32"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate.at(update)
        self.scaler.step(self.optimizer)  # passes over gradients that overflowed
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if overflowed:
            return None
        if self.ema is not None:
            self.policy.refresh(Weights.EMA, min(self.ema, (1 + update) / (10 + update)))
        return norm

    def _generator(self, number: int, what: str) -> torch.Generator:
        return torch.Generator().manual_seed(int(stream(self.seed, f"trainer/{what}", number).integers(2**62)))

    def state(self) -> State:
        """Everything a checkpoint needs besides weights and optimizer."""
        own = {"totals": dict(self.totals), "objective": self.objective.state(), "scaler": self.scaler.state_dict()}
        return {**{f"collector/{who}": state for who, state in self.collector.state().items()}, **own}

    def load_state(self, state: State) -> None:
        self.totals = dict(state["totals"])
        self.objective.load_state(state["objective"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        start = "collector/"
        self.collector.load_state({who.removeprefix(start): s for who, s in state.items() if who.startswith(start)})
