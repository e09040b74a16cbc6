"""Clipped policy gradient on reverse steps: DDPO, DPOK, DanceGRPO, Flow-GRPO, MixGRPO, SafeDiffusion-R1.

They differ in the dynamics and the window of the Plan, in the credit and in `kl`.

`Grpo` is the clipped ratio. Other ways to keep an update near the policy that sampled are a file each (grpo_guard,
flow_dppo): they share `PolicyGradient`, which is everything but the surrogate.

Notation:
    rho  = exp(log pi(x_next | x) - log pi_old)           log pi is a mean over the latent's dimensions
    L    = mean [ max(-A rho, -A clip(rho, 1 +- clip)) + hold * KL(pi || pi_ref) ]
    KL   = |mu - mu_ref|^2 / (2 sigma^2), mean over dimensions: closed form, as both steps share sigma
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from safediffusion.collect.base import Scored, Volume
from safediffusion.core.errors import UserError
from safediffusion.core.types import SHARED, Conditioning, Loss, Sliceable
from safediffusion.diffusion.denoise import Plan, Transitions, reverse_step
from safediffusion.diffusion.dynamics import Gaussian
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.base import Cost, Stateless, check_holds, holds


@dataclass(frozen=True, slots=True, kw_only=True)
class StepItems(Sliceable):
    """One item is one reverse step of one image."""

    advantage: Tensor  # [N]
    hold: Tensor  # [N] weight of the KL to the reference
    step: Transitions  # leading axis [N]
    row: Tensor  # [N] which row of `cond` belongs to this item
    mean: Tensor | None = None  # [N, C, H, W] that of the step before the first update; kept where a surrogate asks
    cond: Conditioning = field(metadata=SHARED)  # [B], not repeated for every step
    plan: Plan = field(metadata=SHARED)


class Surrogate(NamedTuple):
    """What a step contributes; its gradient moves the policy."""

    value: Tensor  # [N]
    ratio: Tensor  # [N] of the new to the old policy, as the surrogate takes it
    outside: Tensor  # [N] bool: the ratio is beyond the clip, or the step was stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGradient(Stateless):
    """A policy gradient on recorded reverse steps, without the surrogate.

    `anchor` is the old log-probability of the ratio:

    - "rollout": the sampler's own. Off by rounding where training runs in another batch shape or precision.
    - "first_pass": this very pass, detached. The ratio is exactly 1; allows one update an experience.
    - "recompute": scored again before the first update, in the same micro-batches. The ratio is exactly 1 there; one
      more forward an item.

    `hold` is `kl`, and `kl_safe` (where given) for prompts labelled safe: what the reward does not steer then keeps its
    pictures, while the unsafe prompts are free to move.
    `images_per_group` trains the images of extreme advantage only, half from either end (after arXiv 2504.13818,
    whose split is the one of largest variance);
    `steps_per_image` a random subset of the recorded steps of each image. `skip_idle` passes over items without a
    gradient (advantage 0, not held): the update is the same.
    """

    kl: float = 0.0
    kl_safe: float | None = None
    anchor: Literal["rollout", "first_pass", "recompute"] = "first_pass"
    steps_per_image: int | None = None
    images_per_group: int | None = None
    skip_idle: bool = True

    def __post_init__(self) -> None:
        for name, given in (("steps_per_image", self.steps_per_image), ("images_per_group", self.images_per_group)):
            if given is not None and given < 1:
                raise UserError(f"{name} is {given}; it must be 1 or more, or absent to train on all")
        check_holds(self.kl, self.kl_safe)

    def surrogate(self, policy: Policy, items: StepItems, now: Gaussian, log_ratio: Tensor) -> Surrogate:
        """Of the steps `now` [N], whose log-probabilities differ from the old ones by `log_ratio` [N]."""
        raise NotImplementedError

    @property
    def keeps_mean(self) -> bool:
        """Whether the surrogate asks for the mean of the old step: a latent more an item."""
        return False

    @property
    def needs(self) -> frozenset[Weights]:
        return frozenset({Weights.REFERENCE}) if self.kl or self.kl_safe else frozenset()

    @property
    def terms(self) -> tuple[str, ...]:
        return ("policy", "kl", "ratio", "clipped")

    @property
    def single_update(self) -> bool:
        return self.anchor == "first_pass"

    @property
    def freezes(self) -> bool:
        return self.anchor == "recompute"

    def prepare(self, policy: Policy, experience: Scored, generator: torch.Generator) -> StepItems:
        rollout = experience.rollout
        if rollout.transitions is None:
            raise UserError(f"{type(self).__name__} learns from recorded steps: make the collector with record=True")
        images = self._images(experience)
        steps = self._steps(experience, generator)[images]  # [b, k]
        row, column = images.repeat_interleave(steps.shape[1]), steps.flatten()
        where = (row.to(rollout.latents.device), column.to(rollout.latents.device))
        recorded = rollout.transitions
        return StepItems(
            advantage=self._by_step(experience)[row, column].to(rollout.latents.device),
            hold=holds(rollout.prompts, self.kl, self.kl_safe).to(rollout.latents.device)[where[0]],
            step=Transitions(
                x=recorded.x[where],
                x_next=recorded.x_next[where],
                t=recorded.t[where],
                t_next=recorded.t_next[where],
                log_prob=recorded.log_prob[where],
                bare=None if recorded.bare is None or not self.single_update else recorded.bare[where],
            ),
            row=row,
            cond=rollout.cond,
            plan=rollout.plan,
        )

    @staticmethod
    def _by_step(experience: Scored) -> Tensor:
        """[B, K] the advantage of every recorded step."""
        assert experience.rollout.transitions is not None
        given = experience.advantage
        return given if given.dim() == 2 else given[:, None].expand(experience.rollout.transitions.log_prob.shape)

    def _images(self, experience: Scored) -> Tensor:
        """The images to train on, in order."""
        if self.images_per_group is None:
            return torch.arange(len(experience))
        chosen: list[int] = []
        best = self._by_step(experience).mean(1)
        for group in sorted(set(experience.rollout.group.tolist())):
            members = (experience.rollout.group == group).nonzero().flatten()
            ranked = members[best[members].argsort(stable=True)].tolist()
            low = min(self.images_per_group, len(ranked)) // 2
            high = min(self.images_per_group, len(ranked)) - low
            chosen += ranked[:low] + ranked[len(ranked) - high :]
        return torch.tensor(sorted(chosen))

    def _steps(self, experience: Scored, generator: torch.Generator) -> Tensor:
        """[B, k] the recorded steps to train on, drawn by the image's number among those of all processes."""
        assert experience.rollout.transitions is not None
        recorded = experience.rollout.transitions.log_prob.shape[1]
        count = recorded if self.steps_per_image is None else min(self.steps_per_image, recorded)
        if count == recorded:
            return torch.arange(recorded).expand(len(experience), recorded)
        drawn = torch.rand(experience.total, recorded, generator=generator)
        return drawn[experience.index].argsort(1)[:, :count].sort(1).values

    def freeze(self, policy: Policy, items: StepItems) -> StepItems:
        """With gradients on, though none is kept: so that the very same kernels run as in the update."""
        with torch.enable_grad():
            old = _score(policy, items)
            log_prob = old.log_prob(items.step.x_next).detach()
        step = replace(items.step, log_prob=log_prob)
        return replace(items, step=step, mean=old.mean.detach() if self.keeps_mean else None)

    def idle(self, items: StepItems) -> Tensor:
        if not self.skip_idle:
            return torch.zeros(len(items), dtype=torch.bool)
        return ((items.advantage == 0) & (items.hold == 0)).cpu()

    def loss(self, policy: Policy, items: StepItems) -> Loss:
        now = _score(policy, items)
        log_prob = now.log_prob(items.step.x_next)
        old = log_prob.detach() if self.anchor == "first_pass" else items.step.log_prob
        found = self.surrogate(policy, items, now, log_prob - old)
        kl = self._kl(policy, items, now)
        terms = {
            "policy": found.value.detach().mean(),
            "kl": kl.detach().mean(),
            "ratio": found.ratio.detach().mean(),
            "clipped": found.outside.float().mean(),
        }
        return Loss(total=found.value.mean() + (items.hold * kl).mean(), terms=terms)

    def _kl(self, policy: Policy, items: StepItems, now: Gaussian) -> Tensor:
        """[N] KL to the reference, 0 for items that are not held to it."""
        kl = torch.zeros_like(items.advantage)
        held = items.hold.nonzero().flatten()
        if not len(held) and not (policy.sharded and self.needs):
            return kl
        asked = held if len(held) else held.new_zeros(1)  # other processes wait for this one's share of the weights
        with torch.no_grad(), policy.using(Weights.REFERENCE):
            reference = _score(policy, replace(items, step=replace(items.step, bare=None)).take(asked))
        return kl.index_put((held,), Gaussian(now.mean[held], now.std[held]).kl(reference))

    def cost(self, items: StepItems) -> Cost:
        return self._cost(items.plan, len(items), int((items.hold > 0).sum()), known=items.step.bare is not None)

    def forecast(self, volume: Volume) -> Cost:
        recorded = volume.recorded // volume.images
        steps = recorded if self.steps_per_image is None else min(self.steps_per_image, recorded)
        images = volume.images
        if self.images_per_group is not None:
            images = volume.groups * min(self.images_per_group, volume.images // volume.groups)
        items = images * steps
        return self._cost(volume.plan, items, items if self.needs else 0, known=volume.bare and self.single_update)

    def _cost(self, plan: Plan, items: int, held: int, *, known: bool) -> Cost:
        """`known`: the unconditional branch of the weights in training is not computed again."""
        passes = items * (1 + (self.anchor == "recompute"))
        forwards = passes * (1 if known else plan.branches) + held * plan.branches
        return Cost(forwards, items * (plan.branches if plan.keep_unconditional_grad else 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grpo(PolicyGradient):
    """The clipped ratio of PPO (arXiv 1707.06347, eq. 7) on every reverse step."""

    clip: float = 1e-4

    def __post_init__(self) -> None:
        PolicyGradient.__post_init__(self)
        if self.clip <= 0:
            raise UserError(f"clip is {self.clip}; it must be above 0, the ratio stays within 1 +- clip")

    def surrogate(self, policy: Policy, items: StepItems, now: Gaussian, log_ratio: Tensor) -> Surrogate:
        return clipped(items.advantage, log_ratio.exp(), self.clip)


def clipped(advantage: Tensor, ratio: Tensor, clip: float) -> Surrogate:
    """max(-A rho, -A clip(rho, 1 +- clip)), each [N]."""
    inside = ratio.clamp(1 - clip, 1 + clip)
    return Surrogate(torch.maximum(-advantage * ratio, -advantage * inside), ratio, ratio != inside)


def old_step(items: StepItems, now: Gaussian) -> Gaussian:
    """The step under the old policy, without a graph: the frozen one, or in a first pass this very one."""
    return Gaussian(now.mean.detach() if items.mean is None else items.mean, now.std)


def _score(policy: Policy, items: StepItems) -> Gaussian:
    """p(x_next | x) under the weights in use, by the plan that sampled x_next."""
    step, cond = items.step, items.cond.take(items.row)
    return reverse_step(policy, items.plan, cond, step)
