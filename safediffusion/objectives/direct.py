"""Back-propagation of a differentiable reward through the sampler: DRaFT, AlignProp, ReFL.

Notation, with x0, K, hold and KL as in `through_steps`:
    r       credit of the scores of decode(x0), or of their means over random views of it (`collect.views`), and the
            prompt       phi(r) = min(r, hinge), or r
    L       = mean [ -phi(r) + hold * KL ]

`draft`      DRaFT-K and DRaFT-LV (arXiv 2309.17400, algorithm 1): the last K steps. LV: K = 1, and x0 gets the noise
             of the last step `renoise` more times and is denoised again; the loss is the mean of them all.
`alignprop`  AlignProp (arXiv 2310.03739): K drawn for each image. Their code draws again at every step, and so drops
             steps in the middle of a chain whose other parts stay.
`refl`       ReFL (arXiv 2304.05977, section 4): leave up to `early` steps before the end, with the x0 foreseen there.
             Their relu(hinge - r) is ours up to a constant, their 1e-3 before it is left to the learning rate, and the
             loss on pictures that they add is left to `kl`. With `finish` pictures of prompts with a harm category are
             also drawn to their end, without gradients: by those the credit, and so a constraint, measures its costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safediffusion.collect.base import Volume
from safediffusion.collect.reward import Reward
from safediffusion.collect.views import Views
from safediffusion.core.errors import UserError
from safediffusion.core.types import Loss
from safediffusion.diffusion.denoise import guided
from safediffusion.diffusion.schedule import add_noise
from safediffusion.diffusion.unroll import again, rest
from safediffusion.models.policy import Policy
from safediffusion.objectives.through_steps import Passes, PictureItems, Range, ThroughSteps


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct(ThroughSteps):
    """`views` above 0 scores so many random views of each picture in its place.

    `finish` goes with a `Reward` that waits for finished pictures: what is left early is also drawn to its end for it.
    """

    renoise: int = 0
    hinge: float | None = None
    views: int = 0
    finish: bool = False

    def __post_init__(self) -> None:
        ThroughSteps.__post_init__(self)
        if self.finish and self.early is None:
            raise UserError("finish draws pictures to their end that are left early, and none are; leave it out")
        if min(self.renoise, self.views) < 0:
            raise UserError(f"renoise is {self.renoise} and views {self.views}; both must be 0 or more")
        if self.renoise and (self.last != (1, 1) or self.early is not None):
            raise UserError(
                f"renoise is {self.renoise}, which repeats the last step alone (DRaFT-LV); set last to 1 and no early "
                "exit, or renoise to 0"
            )

    def loss(self, policy: Policy, items: PictureItems) -> Loss:
        assert isinstance(items.reward, Reward), "what is learned on latents has no pictures"
        reward, (latents, kl, after) = items.reward, self.drawn(policy, items)
        assert reward.finished == self.finish, "one of the two finishes pictures, or waits for finished ones, alone"
        if self.finish:
            self._observe_finished(policy, items, reward, after)
        rewards = [reward.of(policy, latents, items.prompts, self._views(items, 0))]
        for number in range(self.renoise):
            fresh = _renoised(policy, latents.detach(), items, number)
            rewards.append(reward.of(policy, fresh, items.prompts, self._views(items, number + 1)))
        r = torch.stack(rewards)  # [1 + renoise, N]
        phi = r if self.hinge is None else r.clamp_max(self.hinge)
        terms = {"reward": rewards[0].detach().mean(), "kl": kl.detach().mean()}
        return Loss(total=-phi.mean() + self.held(items, kl), terms=terms)

    def _observe_finished(self, policy: Policy, items: PictureItems, reward: Reward, after: Tensor) -> None:
        """Show the reward the ends of the pictures whose windows ended in the states `after` [N, ...]."""
        rows = _harmful(items).nonzero().flatten()
        if len(rows):
            few, x = items.take(rows), after[rows.to(after.device)]
            latents = rest(policy, few.cond, few.noise, few.plan, x, stop=few.window.stop)
            reward.observe(policy, latents, few.prompts, self._views(few, 0))

    def _views(self, items: PictureItems, number: int) -> Views:
        return Views(keys=items.noise.keys, count=self.views, number=number)

    def passes(self, items: PictureItems) -> Passes:
        left = (items.plan.steps - items.window.stop)[_harmful(items)] if self.finish else torch.zeros(0)
        found = ThroughSteps.passes(self, items)
        return found._replace(further=int(left.sum()), fresh=self.renoise * found.images)

    def most(self, volume: Volume) -> Passes:
        """As if every picture were finished, which takes the plan's steps however early it is left."""
        found = ThroughSteps.most(self, volume)
        further = found.images * self.early[0] if self.finish and self.early else 0
        return found._replace(further=further, fresh=self.renoise * found.images)


def draft(
    *,
    last: int = 1,
    renoise: int = 0,
    kl: float = 0.0,
    kl_safe: float | None = None,
    views: int = 0,
    checkpoint: bool = False,
) -> Direct:
    """DRaFT-K with K = `last`, or DRaFT-LV with `renoise` above 0 (2 in the paper)."""
    return Direct(last=(last, last), renoise=renoise, kl=kl, kl_safe=kl_safe, views=views, checkpoint=checkpoint)


def alignprop(
    *,
    last: Range = (1, 20),
    kl: float = 0.0,
    kl_safe: float | None = None,
    views: int = 0,
    checkpoint: bool = True,
) -> Direct:
    """AlignProp; `last` goes up to all steps of the plan in the paper."""
    return Direct(last=last, kl=kl, kl_safe=kl_safe, views=views, checkpoint=checkpoint)


def refl(
    *,
    early: Range = (0, 9),
    hinge: float | None = 2.0,
    kl: float = 0.0,
    kl_safe: float | None = None,
    views: int = 0,
    checkpoint: bool = False,
) -> Direct:
    """ReFL; as released: 40 steps of which 0 to 9 are left out, and ImageReward up to 2."""
    return Direct(early=early, hinge=hinge, kl=kl, kl_safe=kl_safe, views=views, checkpoint=checkpoint)


def _harmful(items: PictureItems) -> Tensor:
    """[N] bool, on the CPU: pictures of prompts that have a harm category."""
    return torch.tensor([prompt.harm is not None for prompt in items.prompts])


def _renoised(policy: Policy, x0: Tensor, items: PictureItems, number: int) -> Tensor:
    """x0 [N, ...] with fresh noise for the last step, and what is foreseen from there."""
    plan, schedule = items.plan, policy.schedule
    t = schedule.grid(plan.steps)[-2].to(x0.device).expand(len(x0))
    x = add_noise(schedule, x0, items.noise.at(plan.steps + 1 + number, x0.device), t)

    def foreseen(x: Tensor) -> tuple[Tensor, Tensor]:
        return guided(policy, plan, items.cond, x, t).x0, t

    return again(foreseen, x, forget=items.window.checkpoint)[0]
