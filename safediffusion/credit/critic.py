"""An advantage for every reverse step from a learned value of noisy states.

Temporal rewards of TDPO-R (arXiv 2402.08552) and the critic on noisy states of Critic-Guided Reinforcement Unlearning
(arXiv 2601.03213) are settings of it. `credit.foresight` is the same without a network.

Notation:
    A      the picture's advantage, as the credit gives it
    V_k    the critic's value of (x_k, its share of noise, prompt), the state before recorded step k;  V_K = A
    A_k  = sum_{j >= k} lambda^(j-k) (V_{j+1} - V_j)
           lambda = 1: A - V_k, TDPO's temporal reward; lambda = 0: V_{k+1} - V_k
    L    = mean 1/2 max( (V - A)^2, (clip(V, V_old +- clip) - A)^2 )        without clip 1/2 (V - A)^2

V_k is told before the critic has learned from these pictures, and does not know the noise of step k or later: with
lambda = 1 the policy gradient keeps its expectation, whatever the critic says (but for `whiten`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from safediffusion.core.errors import Diverged, UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.noise import stream
from safediffusion.credit.foresight import generalized
from safediffusion.credit.neurons import active, reset
from safediffusion.credit.value import ValueNet

MAX_NORM, WEIGHT_DECAY = 1.0, 1e-4  # of the critic's AdamW, as in TDPO's code


class States(NamedTuple):
    """The recorded states of this process's pictures."""

    seen: Tensor  # [b, K, F], see `value.look`
    number: Tensor  # [b] the picture's number among those of all processes
    total: int  # pictures of all processes


def errors(value: Tensor, old: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """[N] L of each state, with V = `value`, V_old = `old` and A = `target`, each [N]."""
    free = (value - target) ** 2
    if clip is None:
        return 0.5 * free
    return 0.5 * torch.maximum(free, (torch.clamp(value, old - clip, old + clip) - target) ** 2)


@dataclass(slots=True, kw_only=True)
class Critic:
    """A `ValueNet` with an AdamW of its own; every process has the same one, on the CPU.

    It learns in `epochs` passes over a step's states, `batch` of all processes' at once, their gradients averaged:
    neither the number of processes nor how pictures are distributed changes what it learns, but for rounding.
    `whiten` gives the step's A_k mean 0 and variance 1. After every `reset_every` steps the active neurons are drawn
    anew (`neurons`).
    """

    inputs: int
    hidden: int = 128
    gae_lambda: float = 1.0
    lr: float = 1e-4
    epochs: int = 1
    batch: int = 256
    clip: float | None = None
    whiten: bool = False
    reset_every: int | None = None
    reset_threshold: float = 0.0
    seed: int = 0
    fleet: Fleet = Fleet()
    net: ValueNet = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.gae_lambda <= 1:
            raise UserError(f"the critic's gae_lambda is {self.gae_lambda}; it lies between 0 and 1")
        for name, value in (("hidden", self.hidden), ("epochs", self.epochs), ("batch", self.batch)):
            if value < 1:
                raise UserError(f"the critic's {name} is {value}; it must be 1 or more")
        if self.reset_every is not None and self.reset_every < 1:
            raise UserError(
                f"the critic's reset_every is {self.reset_every}; it must be 1 or more, or absent for never"
            )
        if self.lr <= 0 or (self.clip is not None and self.clip <= 0) or self.reset_threshold < 0:
            raise UserError(
                f"the critic's lr is {self.lr}, clip {self.clip} and reset_threshold {self.reset_threshold}; lr and "
                "clip must be above 0 (clip may be absent), reset_threshold 0 or more"
            )
        self.net = ValueNet(self.inputs, self.hidden, self.seed)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.lr, weight_decay=WEIGHT_DECAY)

    @torch.no_grad()
    def value(self, seen: Tensor) -> Tensor:
        """V [b, K] of states [b, K, F]."""
        found: Tensor = self.net(seen.flatten(0, 1))
        return found.view(seen.shape[:2])

    def advantage(self, whole: Tensor, value: Tensor) -> Tensor:
        """[B, K] float32, of the pictures' advantages [B] and V [B, K], those of all processes."""
        found = generalized([*value.double().unbind(1), whole.double()], self.gae_lambda)
        if self.whiten:
            found = (found - found.mean()) / (found.std(correction=0) + 1e-8)
        return found.float()

    def learn(self, states: States, old: Tensor, target: Tensor, step: int) -> dict[str, float]:
        """Regress the values of `states` [b, K] to `target` [b]; V was `old` [b, K]. The metrics, equal everywhere."""
        steps = old.shape[1]
        seen, before = states.seen.flatten(0, 1), old.flatten()
        goal = target.float().repeat_interleave(steps)
        row = torch.full((states.total * steps,), -1)  # where this process has a state, by its number among all
        row[(states.number[:, None] * steps + torch.arange(steps)).flatten()] = torch.arange(len(seen))
        lost = torch.zeros(1, dtype=torch.float64)
        for epoch in range(self.epochs):
            order = torch.from_numpy(stream(self.seed, "critic/order", step, epoch).permutation(len(row)))
            for start in range(0, len(row), self.batch):
                chosen = row[order[start : start + self.batch]]
                mine = chosen[chosen >= 0]
                with torch.enable_grad():
                    loss = errors(self.net(seen[mine]), before[mine], goal[mine], self.clip).sum()
                    (loss * (self.fleet.world / len(chosen))).backward()  # type: ignore[no-untyped-call]
                self._update(step)
                lost += loss.detach()
        metrics = {"critic/loss": float(self.fleet.sum(lost)) / (len(row) * self.epochs)}
        return metrics if self.reset_every is None else metrics | {"critic/reset": float(self._reset(seen, step))}

    def _update(self, step: int) -> None:
        parameters = list(self.net.parameters())
        self.fleet.mean_gradients(parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM))
        if not math.isfinite(norm):
            raise Diverged(
                f"step {step}: the norm of the critic's gradient is {norm}; the policy was not updated. Resume from "
                "the last checkpoint with a lower critic.lr"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def _reset(self, seen: Tensor, step: int) -> int:
        """How many neurons were drawn anew after this step."""
        if self.reset_every is None or (step + 1) % self.reset_every:
            return 0
        totals = self.fleet.sum(torch.stack([layer.double().abs().sum(0) for layer in self.net.hidden(seen)]))
        masks = [active(total, self.reset_threshold) for total in totals]
        return reset(self.net, self.optimizer, masks, self.seed, "critic/reset", step)

    def tensors(self) -> dict[str, Tensor]:
        """Everything it has learned: `weight.NAME`, and the optimizer's `moment.PARAMETER.NAME`."""
        moments = self.optimizer.state_dict()["state"]
        return {f"weight.{name}": value.detach().clone() for name, value in self.net.state_dict().items()} | {
            f"moment.{number}.{name}": value.clone() for number, own in moments.items() for name, value in own.items()
        }

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        start, moments = "weight.", dict[int, dict[str, Tensor]]()
        self.net.load_state_dict({n.removeprefix(start): v for n, v in tensors.items() if n.startswith(start)})
        for name, value in tensors.items():
            if not name.startswith(start):
                _, number, what = name.split(".")
                moments.setdefault(int(number), {})[what] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
