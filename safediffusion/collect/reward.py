"""What gradients follow: from clean latents, or their pictures, to one number each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from safediffusion.collect.views import Views
from safediffusion.core.errors import UserError
from safediffusion.core.fleet import Fleet
from safediffusion.core.prompt import Prompt
from safediffusion.credit.base import Among, Credit
from safediffusion.models.policy import Policy
from safediffusion.scorers.base import Calibrated, ImageBatch, Scorer, score_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """The credit's scalar of the scores.

    The credit observes the pictures that it is asked about; with `finished` only those that `observe` is given.
    `worst` names scores of harm, and of how many views of each picture they are that of the worst, not the mean.
    UserError for a scorer without a gradient, and for one that is calibrated on a rollout and has not been.
    """

    scorers: Sequence[Scorer]
    credit: Credit
    finished: bool = False
    worst: Mapping[str, int] = field(default_factory=dict)
    _seen: list[tuple[tuple[Prompt, ...], dict[str, Tensor]]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        blunt = [scorer.name for scorer in self.scorers if not scorer.differentiable]
        if blunt:
            raise UserError(
                f"the scores {blunt} have no gradient with respect to the picture, which this objective follows; leave "
                "them out, or use a policy-gradient objective such as objective.kind=grpo or prdp"
            )
        waiting = [scorer.name for scorer in self.scorers if isinstance(scorer, Calibrated) and not scorer.ready]
        if waiting:
            raise UserError(
                f"the scores {waiting} are calibrated on a first rollout, but this objective has none; give "
                "steering.alpha a number, e.g. the `steering/alpha` that a run of objective.kind=grpo logs"
            )

    def of(self, policy: Policy, latents: Tensor, prompts: tuple[Prompt, ...], views: Views) -> Tensor:
        """[B], of the decoded pictures."""
        return self(policy.decode(latents), prompts, views)

    def __call__(self, images: Tensor, prompts: tuple[Prompt, ...], views: Views | None = None) -> Tensor:
        """[B], of images [B, 3, H, W] in [0, 1] that the policy drew. UserError where a score is no number.

        With views each score is the mean of those of a picture's views, or that of its worst one.
        """
        found = self._viewed(images, prompts, views)
        kept = 0 if self.finished else len(prompts)  # of none the names alone, which every process knows by this
        self._note(prompts[:kept], {name: value[:kept] for name, value in found.items()})
        return self.credit.scalar(found, prompts)

    @torch.no_grad()
    def observe(self, policy: Policy, latents: Tensor, prompts: tuple[Prompt, ...], views: Views) -> None:
        """Pictures of clean latents [B, C, H, W] for the credit alone."""
        self._note(prompts, self._viewed(policy.decode(latents), prompts, views))

    def aside(self, images: Tensor, prompts: tuple[Prompt, ...]) -> Tensor:
        """The same of pictures that are not the policy's: the credit, and so a constraint, never hears of them."""
        return self.credit.scalar(self._scores(self.scorers, images, prompts), prompts)

    def _note(self, prompts: tuple[Prompt, ...], scores: Mapping[str, Tensor]) -> None:
        self._seen.append((prompts, {name: value.detach().cpu() for name, value in scores.items()}))

    def _viewed(self, images: Tensor, prompts: tuple[Prompt, ...], views: Views | None) -> dict[str, Tensor]:
        if views is None or not views.count:
            return self._scores(self.scorers, images, prompts)
        usual = [scorer for scorer in self.scorers if scorer.name not in self.worst]
        many = self._scores(usual, views.of(images), prompts * views.count)
        found = {name: score.view(views.count, -1).mean(0) for name, score in many.items()}
        for scorer in self.scorers:
            if scorer.name in self.worst:
                some = replace(views, count=self.worst[scorer.name])
                picked = some.those(images, self._picked(scorer, images, prompts, some))
                found |= self._scores([scorer], picked, prompts)
        return found

    @torch.no_grad()
    def _picked(self, scorer: Scorer, images: Tensor, prompts: tuple[Prompt, ...], views: Views) -> list[int]:
        """The number of each picture's view that the score calls worst."""
        many = self._scores([scorer], views.of(images), prompts * views.count)[scorer.name]
        return many.view(views.count, -1).argmax(0).tolist()

    def _scores(self, scorers: Sequence[Scorer], images: Tensor, prompts: tuple[Prompt, ...]) -> dict[str, Tensor]:
        found = score_all(scorers, ImageBatch(images, prompts))
        for name, value in found.items():
            bad = (~value.isfinite()).nonzero().flatten().tolist()
            if bad:
                raise UserError(
                    f"reward '{name}' is {value[bad[0]].item()} for prompt '{prompts[bad[0]].id}'; no weight was "
                    "changed. Check the scorer on that prompt, or lower the learning rate"
                )
        return found

    def settle(self, chosen: Sequence[Prompt], fleet: Fleet) -> dict[str, float]:
        """The credit observes what was seen since the last time, by all processes; its metrics.

        Every process calls it and was asked about a picture; `chosen` are the prompts of all of them.
        """
        names = list(self._seen[0][1])
        rows = []
        for prompts, scores in self._seen:
            number = torch.tensor([chosen.index(prompt) for prompt in prompts], dtype=torch.float64)
            rows.append(torch.stack([number, *(scores[name].double() for name in names)], 1))
        self._seen.clear()
        number, *values = fleet.gather_tensor(torch.cat(rows)).unbind(1)
        group, prompts = torch.unique(number, return_inverse=True)[1], tuple(chosen[int(n)] for n in number.tolist())
        if prompts:
            self.credit.observe(dict(zip(names, values, strict=True)), Among(group=group, prompts=prompts))
        return self.credit.metrics()
