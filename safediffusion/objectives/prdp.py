"""PRDP (arXiv 2402.08714): two pictures of a prompt, whose difference in reward their trajectories shall predict.

Notation:
    x^a, x^b   two recorded trajectories of one prompt            r     reward: the credit's scalar of their scores
    rho_k   = log pi(x_{k+1} | x_k) - log pi_old                  log pi is a mean over the latent's dimensions
    g(x)    = beta * sum_k [ rho_k + log pi_old - log pi_ref ]    the reward that the policy implies
    e       = g(x^a) - g(x^b) - (r(x^a) - r(x^b))
    L       = mean of max( e^2, e_clip^2 )                        e_clip: with rho_k clipped to +-clip

e = 0 for all pairs only at the maximiser of E[r] - beta KL(pi || pi_ref). As log pi is a mean over D dimensions and not
their sum, beta is D times the paper's; no code of the authors was found.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from safediffusion.collect.base import Scored, Volume
from safediffusion.core.errors import UserError
from safediffusion.core.types import SHARED, Conditioning, Loss, Sliceable
from safediffusion.diffusion.denoise import Plan, Transitions, reverse_step
from safediffusion.diffusion.unroll import again
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.base import Cost, Stateless


@dataclass(frozen=True, slots=True, kw_only=True)
class PairItems(Sliceable):
    """One item is two pictures of one prompt with all their recorded steps."""

    delta: Tensor  # [N] r(x^a) - r(x^b)
    step: Transitions  # leading axes [N, 2, K]; log_prob is log pi_old
    reference: Tensor  # [N, 2, K] log pi_ref; 0 until `freeze`
    row: Tensor  # [N] which row of `cond` belongs to this pair
    cond: Conditioning = field(metadata=SHARED)  # [B]
    plan: Plan = field(metadata=SHARED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prdp(Stateless):
    """Pictures of a group are paired in the order they were drawn in, each once, so groups have to be even.

    `checkpoint` computes each step's activations again in the backward pass: memory of one step for any trajectory.
    """

    beta: float = 1.0
    clip: float = 1e-4
    checkpoint: bool = True

    def __post_init__(self) -> None:
        if self.beta <= 0 or self.clip <= 0:
            raise UserError(f"beta is {self.beta} and clip {self.clip}; both must be above 0")

    @property
    def needs(self) -> frozenset[Weights]:
        return frozenset({Weights.REFERENCE})

    @property
    def terms(self) -> tuple[str, ...]:
        return ("regression", "agreement", "clipped")

    @property
    def freezes(self) -> bool:
        return True

    def prepare(self, policy: Policy, experience: Scored, generator: torch.Generator) -> PairItems:
        rollout = experience.rollout
        if rollout.transitions is None:
            raise UserError(f"{type(self).__name__} learns from recorded steps: make the collector with record=True")
        if policy.sharded:
            raise UserError(
                "weights that are divided among processes cannot be differentiated through a trajectory; set "
                "weights.shard=false, or use objective.kind=grpo"
            )
        pair = _pairs(rollout.group)  # [N, 2]
        reward = experience.reward.float()[pair]
        known, where = rollout.transitions, pair.to(rollout.latents.device)
        step = Transitions(
            x=known.x[where],
            x_next=known.x_next[where],
            t=known.t[where],
            t_next=known.t_next[where],
            log_prob=known.log_prob[where],
        )
        return PairItems(
            delta=(reward[:, 0] - reward[:, 1]).to(rollout.latents.device),
            step=step,
            reference=torch.zeros_like(step.log_prob),
            row=pair[:, 0],
            cond=rollout.cond,
            plan=rollout.plan,
        )

    def freeze(self, policy: Policy, items: PairItems) -> PairItems:
        """log pi_old in the same batches as in the update, with gradients on for the same kernels; and log pi_ref."""
        steps = [items.step.x[:, :, k] for k in range(_length(items))]
        with torch.enable_grad():
            old = torch.stack([_step(policy, items, k, x).detach() for k, x in enumerate(steps)], -1)
        with torch.no_grad(), policy.using(Weights.REFERENCE):
            reference = torch.stack([_step(policy, items, k, x) for k, x in enumerate(steps)], -1)
        return replace(items, step=replace(items.step, log_prob=old), reference=reference)

    def idle(self, items: PairItems) -> Tensor:
        """None: also pictures of equal reward tell what the policy has to predict."""
        return torch.zeros(len(items), dtype=torch.bool)

    def loss(self, policy: Policy, items: PairItems) -> Loss:
        now = torch.stack([self._log_prob(policy, items, k) for k in range(_length(items))], -1)
        rho = now - items.step.log_prob  # [N, 2, K]
        clipped = rho.clamp(-self.clip, self.clip)
        error, bounded = (self._implied(items, each) - items.delta for each in (rho, clipped))
        regression = torch.maximum(error**2, bounded**2).mean()
        agrees = (error + items.delta) * items.delta > 0
        terms = {
            "regression": regression.detach(),
            "agreement": agrees.float().mean(),
            "clipped": (rho != clipped).float().mean(),
        }
        return Loss(total=regression, terms=terms)

    def _implied(self, items: PairItems, rho: Tensor) -> Tensor:
        """[N], g(x^a) - g(x^b)."""
        g = self.beta * (rho + items.step.log_prob - items.reference).sum(-1)
        return g[:, 0] - g[:, 1]

    def _log_prob(self, policy: Policy, items: PairItems, k: int) -> Tensor:
        """[N, 2] of step k, with a graph."""

        def scored(x: Tensor) -> tuple[Tensor, Tensor]:
            return _step(policy, items, k, x), x

        return again(scored, items.step.x[:, :, k], forget=self.checkpoint)[0]

    def cost(self, items: PairItems) -> Cost:
        return self._cost(items.plan, 2 * len(items) * _length(items))

    def forecast(self, volume: Volume) -> Cost:
        return self._cost(volume.plan, volume.recorded)

    def _cost(self, plan: Plan, steps: int) -> Cost:
        """Old, reference and new log-probabilities of as many steps, and the new ones again with `checkpoint`."""
        branches = plan.branches if plan.keep_unconditional_grad else 1
        return Cost(steps * plan.branches * (3 + self.checkpoint), steps * branches)


def _pairs(group: Tensor) -> Tensor:
    """[N, 2] rows of pictures that share a group, each once. UserError for a group that is odd."""
    found = []
    for number in sorted(set(group.tolist())):
        members = (group == number).nonzero().flatten()
        if len(members) % 2:
            raise UserError(f"PRDP compares pictures two by two, but a group has {len(members)}; set group_size even")
        found.append(members.view(-1, 2))
    return torch.cat(found)


def _length(items: PairItems) -> int:
    return items.step.log_prob.shape[-1]


def _step(policy: Policy, items: PairItems, k: int, x: Tensor) -> Tensor:
    """[N, 2], log pi of step k from x [N, 2, ...] under the weights in use."""
    known, row = items.step, items.row.repeat_interleave(2)
    flat = Transitions(
        x=x.flatten(0, 1),
        x_next=known.x_next[:, :, k].flatten(0, 1),
        t=known.t[:, :, k].flatten(),
        t_next=known.t_next[:, :, k].flatten(),
        log_prob=known.log_prob[:, :, k].flatten(),
    )
    return reverse_step(policy, items.plan, items.cond.take(row), flat).log_prob(flat.x_next).view(-1, 2)
