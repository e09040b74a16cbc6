"""What the objectives on preferences share: how much better than the reference the policy denoises a picture.

Notation:
    x0, t, noise            a clean latent, a time (uniform; of flows then shifted), the noise it gets
    x_t = alpha_t x0 + sigma_t noise
    e(theta) = |f_theta(x_t, t) - f|^2       mean over dimensions; f is what this family's networks should output
    r = e(ref) - e(theta)                    the implicit reward, up to beta: above 0 where the policy denoises better
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from safediffusion.core.types import Conditioning, join
from safediffusion.diffusion.schedule import Prediction, add_noise
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.base import Stateless


class Finished(Stateless):
    """An objective on finished pictures, against the reference."""

    @property
    def needs(self) -> frozenset[Weights]:
        return frozenset({Weights.REFERENCE})

    @property
    def records(self) -> bool:
        return False


class Draws(NamedTuple):
    """Times and noises for some of the examples of all processes."""

    row: Tensor  # [N] which of this process's examples each belongs to
    t: Tensor  # [N]
    noise: Tensor  # [N, C, H, W]


def draw(policy: Policy, index: Tensor, total: int, draws: int, generator: torch.Generator) -> Draws:
    """`draws` times and noises for each example, by its number `index` [B] among the `total` ones of all processes."""
    uniform = torch.rand(total, draws, generator=generator)
    noise = torch.randn(total, draws, *policy.latent_shape, generator=generator)
    return Draws(
        row=torch.arange(len(index)).repeat_interleave(draws),
        t=policy.schedule.times(uniform[index].flatten()).to(policy.device),
        noise=noise[index].flatten(0, 1).to(policy.device),
    )


def errors(policy: Policy, x0: Sequence[Tensor], t: Tensor, noise: Tensor, cond: Conditioning) -> tuple[Tensor, ...]:
    """e [N] of each of the clean latents [N, C, H, W], all with this time [N] and noise, in one pass."""
    count, native = len(x0), policy.schedule.native
    x0_all, t_all, noise_all = torch.cat(list(x0)), t.repeat(count), torch.cat([noise] * count)
    x = add_noise(policy.schedule, x0_all, noise_all, t_all)
    said = native(policy.predict(x, t_all, join([cond] * count)), t_all)
    true = native(Prediction(x0=x0_all, noise=noise_all), t_all)
    return ((said - true) ** 2).flatten(1).mean(1).chunk(count)


def reference_errors(
    policy: Policy, x0: Sequence[Tensor], t: Tensor, noise: Tensor, cond: Conditioning
) -> tuple[Tensor, ...]:
    """The same under REFERENCE, without a graph."""
    with torch.no_grad(), policy.using(Weights.REFERENCE):
        return errors(policy, x0, t, noise, cond)
