"""LaSRO: the gradient of a surrogate reward on latents, through the last reverse steps (arXiv 2411.15247).

L = mean [ -R(x0, c) / scale + hold * KL ], x0, hold and KL as in `through_steps`, R and its scale as in
`collect.surrogate`.

The reward itself needs no gradient, and nothing is decoded in the backward pass. While R orders fresh pictures of a
prompt worse than `min_accuracy` the policy rests and only R learns: at first that stands for the paper's pre-training,
later R catches up with a policy that moved on. The paper trains models of two steps on what both of them give, and
holds them by their distillation loss; here any number of last steps is followed, and `kl` holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from safediffusion.collect.surrogate import Surrogate
from safediffusion.core.errors import UserError
from safediffusion.core.types import Loss
from safediffusion.models.policy import Policy
from safediffusion.objectives.through_steps import PictureItems, ThroughSteps


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasro(ThroughSteps):
    min_accuracy: float = 0.6

    def __post_init__(self) -> None:
        ThroughSteps.__post_init__(self)
        if not 0 <= self.min_accuracy < 1:
            raise UserError(
                f"min_accuracy is {self.min_accuracy}; it is a share of pairs from 0, which never rests, to below 1 "
                "(0.5 is chance)"
            )

    @property
    def records(self) -> bool:
        return False

    def rests(self, items: PictureItems) -> bool:
        return _surrogate(items).accuracy < self.min_accuracy

    def loss(self, policy: Policy, items: PictureItems) -> Loss:
        latents, kl, _ = self.drawn(policy, items)
        reward = _surrogate(items).of(latents, items.cond)
        total = -reward.mean() + self.held(items, kl)
        return Loss(total=total, terms={"reward": reward.detach().mean(), "kl": kl.detach().mean()})


def lasro(
    *,
    last: int = 1,
    kl: float = 0.0,
    kl_safe: float | None = None,
    checkpoint: bool = False,
    min_accuracy: float = 0.6,
) -> Lasro:
    """Over the last `last` steps."""
    return Lasro(last=(last, last), kl=kl, kl_safe=kl_safe, checkpoint=checkpoint, min_accuracy=min_accuracy)


def _surrogate(items: PictureItems) -> Surrogate:
    assert isinstance(items.reward, Surrogate), "lasro follows the surrogate of its own collector"
    return items.reward
