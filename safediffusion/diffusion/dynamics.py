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
class FlowSde:
    """Flow-GRPO's SDE with the marginals of the rectified-flow ODE (arXiv:2505.05470, eq. 9); level 0 is Euler.

    An Euler-Maruyama step: exact only as the step size goes to 0. Times above `t_max` use its diffusion coefficient,
    which is infinite at t = 1.
    """

    level: float = 0.7
    t_max: float = 0.96

    def __post_init__(self) -> None:
        if self.level < 0 or not 0 < self.t_max < 1:
            raise UserError(f"flow SDE: level {self.level} must be >= 0 and t_max {self.t_max} between 0 and 1")

    def step(self, schedule: Schedule, prediction: Prediction, x: Tensor, t: Tensor, t_next: Tensor) -> Gaussian:
        if not isinstance(schedule, RectifiedFlow):
            raise UserError("the flow SDE needs a rectified-flow model (SD3, FLUX); use DDIM with eta for this one")
        time, dt = t.clamp_max(self.t_max), t - t_next
        g = self.level * (time / (1 - time)).sqrt()
        v = prediction.velocity
        pull = expand(g**2 / (2 * time), x)
        drift = v + pull * (x + expand(1 - time, x) * v)
        return Gaussian(x - drift * expand(dt, x), expand(g * dt.sqrt(), x))

    def deterministic(self) -> Self:
        return replace(self, level=0.0)
