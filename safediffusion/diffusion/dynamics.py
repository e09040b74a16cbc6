"""Reverse steps: from (x_t, prediction) to the Gaussian of x_{t_next}. Sampling and re-scoring use the same function.

Notation: see schedule.py. eta scales the noise of a DDIM step; g is the diffusion coefficient of an SDE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.core.types import expand

from .schedule import Prediction, RectifiedFlow, Schedule


class Gaussian(NamedTuple):
    """p(x_next | x_t). A std of 0 is a deterministic step: it has no log_prob."""

    mean: Tensor  # [B, ...] float32
    std: Tensor  # [B, 1, ...] float32

    def sample(self, noise: Tensor) -> Tensor:
        return self.mean + self.std * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """[B], averaged over dimensions as in DDPO (arXiv:2305.13301), so its scale does not grow with resolution."""
        z = (x - self.mean) / self.std
        return (-0.5 * z**2 - torch.log(self.std) - 0.5 * math.log(2 * math.pi)).flatten(1).mean(1)

    def kl(self, other: Gaussian) -> Tensor:
        """[B], KL(self || other) of two steps that share their std, averaged over dimensions."""
        return (((self.mean - other.mean) / self.std) ** 2 / 2).flatten(1).mean(1)


class Dynamics(Protocol):
    def step(self, schedule: Schedule, prediction: Prediction, x: Tensor, t: Tensor, t_next: Tensor) -> Gaussian:
        """The step from t [B] to t_next [B]. Its std depends on the times alone."""
        ...

    def deterministic(self) -> Dynamics:
        """The same path without noise, with the same marginals."""
        ...


@dataclass(frozen=True, slots=True)
class Ddim:
    """DDIM (arXiv:2010.02502, eq. 12 and 16): eta 0 is the probability-flow ODE, eta 1 the ancestral DDPM step.

    On a rectified flow it is the step that keeps the marginals exactly, whatever the step size.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta is {self.eta}; DDIM allows 0 (deterministic) to 1 (ancestral)")

    def step(self, schedule: Schedule, prediction: Prediction, x: Tensor, t: Tensor, t_next: Tensor) -> Gaussian:
        (alpha, sigma), (alpha_next, sigma_next) = schedule.alpha_sigma(t), schedule.alpha_sigma(t_next)
        variance = sigma_next**2 * (1 - (alpha * sigma_next / (alpha_next * sigma)) ** 2)
        std = self.eta * variance.clamp_min(0).sqrt()
        direction = (sigma_next**2 - std**2).clamp_min(0).sqrt()
        mean = expand(alpha_next, x) * prediction.x0 + expand(direction, x) * prediction.noise
        return Gaussian(mean, expand(std, x))

    def deterministic(self) -> Self:
        return replace(self, eta=0.0)


@dataclass(frozen=True, slots=True)
class Cps:
    """Coefficients-preserving sampling (arXiv:2509.05952): `level` of the step's own noise is drawn anew, 0 is the ODE.

    x_next = alpha' x0 + sigma' (cos(level pi / 2) noise + sin(level pi / 2) fresh), so that x_next has the noise its
    time says at any step size. What it draws anew does not shrink with the step size: unlike the others it does not
    reach the data's distribution with more steps, but one that is too narrow.
    """

    level: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.level <= 1:
            raise UserError(f"CPS: level {self.level} must lie between 0 (deterministic) and 1")

    def step(self, schedule: Schedule, prediction: Prediction, x: Tensor, t: Tensor, t_next: Tensor) -> Gaussian:
        alpha, sigma = (expand(value, x) for value in schedule.alpha_sigma(t_next))
        angle = self.level * math.pi / 2
        mean = alpha * prediction.x0 + sigma * math.cos(angle) * prediction.noise
        return Gaussian(mean, sigma * math.sin(angle))

    def deterministic(self) -> Self:
        return replace(self, level=0.0)


@dataclass(frozen=True, slots=True)
class FlowSde:
    """Flow-GRPO's SDE with the marginals of the rectified-flow ODE (arXiv:2505.05470, eq. 9); level 0 is Euler.

    g = level sqrt(t / (1 - t)), infinite at t = 1: times above `t_max` use that of `t_max`.
    """

    level: float = 0.7
    t_max: float = 0.96

    def __post_init__(self) -> None:
        if self.level < 0 or not 0 < self.t_max < 1:
            raise UserError(f"flow SDE: level {self.level} must be >= 0 and t_max {self.t_max} between 0 and 1")

    def step(self, schedule: Schedule, prediction: Prediction, x: Tensor, t: Tensor, t_next: Tensor) -> Gaussian:
        time = t.clamp_max(self.t_max)
        return _euler_maruyama(self.level * (time / (1 - time)).sqrt(), schedule, prediction, x, (t, t_next))

    def deterministic(self) -> Self:
        return replace(self, level=0.0)


@dataclass(frozen=True, slots=True)
class DanceSde:
    """DanceGRPO's SDE of a rectified flow (arXiv:2505.07818, eq. 6): the same marginals with a constant g = level."""

    level: float = 0.3

    def __post_init__(self) -> None:
        if self.level < 0:
            raise UserError(f"dance SDE: level {self.level} must be >= 0")

    def step(self, schedule: Schedule, prediction: Prediction, x: Tensor, t: Tensor, t_next: Tensor) -> Gaussian:
        return _euler_maruyama(torch.full_like(t, self.level), schedule, prediction, x, (t, t_next))

    def deterministic(self) -> Self:
        return replace(self, level=0.0)


def _euler_maruyama(
    g: Tensor, schedule: Schedule, prediction: Prediction, x: Tensor, times: tuple[Tensor, Tensor]
) -> Gaussian:
    """A step of dx = (v - g^2 / 2 score) dt + g dw, whose marginals are the flow's for any g [B]; exact as dt -> 0.

    The score is -(x + (1 - t) v) / t.
    """
    if not isinstance(schedule, RectifiedFlow):
        raise UserError(
            "the flow and dance SDEs need a rectified-flow model (SD3, FLUX); use ddim with eta, or cps, for this one"
        )
    (t, t_next), v = times, prediction.velocity
    drift = v + expand(g**2 / (2 * t), x) * (x + expand(1 - t, x) * v)
    return Gaussian(x - drift * expand(t - t_next, x), expand(g * (t - t_next).sqrt(), x))
