"""Preferences among the model's own pictures: those of one prompt are compared with each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safediffusion.collect.base import Measured, Scored, State, Volume
from safediffusion.collect.on_policy import OnPolicy
from safediffusion.collect.preferences import Labelled, Pairs, Paths
from safediffusion.core.errors import UserError
from safediffusion.models.policy import Policy, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What both collectors share: on-policy groups, and the number by which pictures are compared.

    `by` names the score that is compared, e.g. "steering/safety"; None compares the credit's scalar. Where `lower`, the
    picture with less of it is the better one, as of P(unsafe). A difference must be above `margin`, in units of that
    number.
    """

    rollouts: OnPolicy
    by: str | None = None
    lower: bool = False
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise UserError(f"margin is {self.margin}; a difference of scores is 0 or more")
        if self.lower and self.by is None:
            raise UserError("the credit's scalar is better when it is higher; name the score of which less is better")

    @property
    def behavior(self) -> Weights:
        return self.rollouts.behavior

    def state(self) -> State:
        return self.rollouts.state()

    def load_state(self, state: State) -> None:
        self.rollouts.load_state(state)

    def volume(self, policy: Policy, step: int) -> Volume:
        return self.rollouts.volume(policy, step)

    def value(self, scored: Scored) -> Tensor:
        """[groups of this process, pictures a group] the number that is compared, higher is better, on the CPU."""
        if self.by is None:
            value = self.rollouts.credit.scalar(scored.scores, scored.rollout.prompts)
        elif self.by in scored.scores:
            value = scored.scores[self.by]
        else:
            raise UserError(
                f"pictures are to be compared by '{self.by}', but the scorers produce {sorted(scored.scores)}; "
                "name one of those, or none for the weighted sum"
            )
        value = value.detach().cpu().double().view(-1, self.rollouts.group_size)
        return -value if self.lower else value


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlinePairs(Compared):
    """The best picture of a group against its worst, the second best against the second worst, and so on.

    `per_group` pairs a group. A pair whose difference is not above `margin` has weight 0, so a group without a
    difference gives none; it still counts in the mean, as a group of equal rewards does in a policy gradient.
    """

    per_group: int = 1

    def __post_init__(self) -> None:
        Compared.__post_init__(self)
        most = self.rollouts.group_size // 2
        if not 1 <= self.per_group <= most:
            raise UserError(
                f"per_group is {self.per_group}, but a group of {self.rollouts.group_size} pictures gives 1 to {most} "
                "pairs without using one twice; lower per_group or raise group_size"
            )

    def volume(self, policy: Policy, step: int) -> Volume:
        volume = self.rollouts.volume(policy, step)
        return volume._replace(pairs=volume.groups * self.per_group)

    @torch.no_grad()
    def collect(self, policy: Policy, step: int) -> tuple[Pairs, Measured]:
        scored, measured = self.rollouts.collect(policy, step)
        value, k = self.value(scored), self.per_group
        ranked = value.argsort(dim=1, descending=True, stable=True)
        best, worst = ranked[:, :k], ranked.flip(1)[:, :k]
        gap = (value.gather(1, best) - value.gather(1, worst)).flatten()
        first = (torch.arange(len(value)) * self.rollouts.group_size)[:, None]
        pairs = self._pairs(scored, (first + best).flatten(), (first + worst).flatten(), weight=(gap > self.margin))
        own = {"pairs/used": float(pairs.weight.mean()), "pairs/gap": float(gap.mean())}
        return pairs, {**measured, **self.rollouts.fleet.mean(own)}

    def _pairs(self, scored: Scored, best: Tensor, worst: Tensor, *, weight: Tensor) -> Pairs:
        """Of the pictures at `best` and `worst` [B]."""
        win, lose, k = scored.rollout.take(best), scored.rollout.take(worst), self.per_group
        paths = None
        if win.transitions is not None and lose.transitions is not None:
            paths = Paths(win=win.transitions, lose=lose.transitions, plan=win.plan)
        return Pairs(
            win=win.latents,
            lose=lose.latents,
            cond=win.cond,
            weight=weight.float().to(win.latents.device),
            prompts=win.prompts,
            index=win.group * k + torch.arange(k).repeat(len(best) // k),
            paths=paths,
            total=self.rollouts.groups * k,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineLabels(Compared):
    """Every picture is liked or disliked: better or worse than its group's mean, or than `threshold` if there is one.

    Without a threshold, what is within `margin` of the mean gets no label, nor does a group of equal values; with one,
    what is within `margin` of it. The threshold is in units of the score itself, also where less of it is better.
    """

    threshold: float | None = None

    @torch.no_grad()
    def collect(self, policy: Policy, step: int) -> tuple[Labelled, Measured]:
        scored, measured = self.rollouts.collect(policy, step)
        label = self.label(self.value(scored)).flatten()
        rollout = scored.rollout
        labelled = Labelled(
            latents=rollout.latents,
            cond=rollout.cond,
            label=label.to(rollout.latents.device),
            prompts=rollout.prompts,
            index=scored.index,
            total=scored.total,
        )
        own = {"labels/liked": float((label > 0).float().mean()), "labels/disliked": float((label < 0).float().mean())}
        return labelled, {**measured, **self.rollouts.fleet.mean(own)}

    def label(self, value: Tensor) -> Tensor:
        """[G, n] +1, -1 or 0 of values [G, n] by group, higher is better."""
        if self.threshold is not None:
            above = value - (-self.threshold if self.lower else self.threshold)
        else:
            same = value.amax(1, keepdim=True) == value.amin(1, keepdim=True)
            above = torch.where(same, 0.0, value - value.mean(1, keepdim=True))
        return torch.where(above.abs() > self.margin, above.sign(), 0.0).float()
