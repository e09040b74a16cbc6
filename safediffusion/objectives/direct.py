"""Back-propagation of a differentiable reward through the sampler: DRaFT, AlignProp, ReFL.

Notation:
    x0      the clean latents that the sampler reaches from an image's own noise; x_T ... x_1 before them
    K       reverse steps with gradients; those before them are constants
    r       credit of the scores of decode(x0), or of their means over random views of it (`collect.views`), and the
            prompt       phi(r) = min(r, hinge), or r
    L       = mean [ -phi(r) + hold * KL ],  hold = kl, and kl_safe (if given) for prompts labelled safe
    KL      = mean over the K steps of |noise_theta(x_t) - noise_ref(x_t)|^2 / 2, mean over dimensions: that of two unit
              Gaussians around the noise both predict, at the states this sampler visits

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

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from safediffusion.collect.base import Volume
from safediffusion.collect.prompts_only import Prompted
from safediffusion.collect.reward import Followed, Reward
from safediffusion.collect.views import Views
from safediffusion.core.errors import UserError
from safediffusion.core.noise import Noise
from safediffusion.core.prompt import Prompt
from safediffusion.core.types import SHARED, Conditioning, Loss, Sliceable
from safediffusion.diffusion.denoise import Plan, guided
from safediffusion.diffusion.schedule import Prediction, add_noise
from safediffusion.diffusion.unroll import Compare, GradWindow, Unrolled, again, rest, unroll
from safediffusion.models.policy import Policy, Weights
from safediffusion.objectives.base import Cost, Stateless, check_holds, holds

Range = tuple[int, int]  # both ends included


class Passes(NamedTuple):
    """Steps of all images together."""

    images: int
    constant: int  # without gradients
    learned: int  # with them
    held: int  # images that are held to the reference
    compared: int  # steps that the reference computes, too
    finished: int  # after those with gradients


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureItems(Sliceable):
    """One item is one picture that is yet to be drawn."""

    prompts: tuple[Prompt, ...]
    cond: Conditioning  # [N, ...]
    noise: Noise
    window: GradWindow  # [N]
    hold: Tensor  # [N] weight of the distance to the reference
    plan: Plan = field(metadata=SHARED)
    reward: Followed = field(metadata=SHARED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct(Stateless):
    """K is drawn from `last` for each picture, and from `early` how many steps it leaves out at the end.

    Pictures are drawn in the loss, by the weights of that moment: any number of updates, none of them off-policy.
    `views` above 0 scores so many random views of each picture in its place. `checkpoint` computes the activations of
    each step again in the backward pass: memory of one step for any K.
    """

    last: Range = (1, 1)
    early: Range | None = None
    renoise: int = 0
    hinge: float | None = None
    kl: float = 0.0
    kl_safe: float | None = None
    views: int = 0
    finish: bool = False
    checkpoint: bool = False

    def __post_init__(self) -> None:
        for name, given, least in (("last", self.last, 1), ("early", self.early, 0)):
            if given is not None and not least <= given[0] <= given[1]:
                raise UserError(f"{name} is {list(given)}; it is [low, high] with {least} <= low <= high")
        check_holds(self.kl, self.kl_safe)
        if self.finish and self.early is None:
            raise UserError("finish draws pictures to their end that are left early, and none are; leave it out")
        if min(self.renoise, self.views) < 0:
            raise UserError(f"renoise is {self.renoise} and views {self.views}; both must be 0 or more")
        if self.renoise and (self.last != (1, 1) or self.early is not None):
            raise UserError(
                f"renoise is {self.renoise}, which repeats the last step alone (DRaFT-LV); set last to 1 and no early "
                "exit, or renoise to 0"
            )

    @property
    def needs(self) -> frozenset[Weights]:
        return frozenset({Weights.REFERENCE}) if self._holds else frozenset()

    @property
    def _holds(self) -> bool:
        return self.kl > 0 or bool(self.kl_safe)

    @property
    def terms(self) -> tuple[str, ...]:
        return ("reward", "kl")

    def prepare(self, policy: Policy, experience: Prompted, generator: torch.Generator) -> PictureItems:
        """Windows are drawn by the image's number among those of all processes."""
        if policy.sharded:
            raise UserError(
                "weights that are divided among processes cannot be differentiated through the sampler; set "
                "weights.shard=false, or use a policy-gradient objective"
            )
        steps = experience.plan.steps
        self.fits(steps)
        stop = steps - self._draw(self.early or (0, 0), experience, generator)
        first = stop - self._draw(self.last, experience, generator)
        hold = holds(experience.prompts, self.kl, self.kl_safe)
        window = GradWindow(
            first=first, stop=stop, foresee=self.early is not None, checkpoint=self.checkpoint, compared=hold > 0
        )
        return PictureItems(
            prompts=experience.prompts,
            cond=experience.cond,
            noise=experience.noise,
            window=window,
            hold=hold,
            plan=experience.plan,
            reward=experience.reward,
        )

    def fits(self, steps: int) -> None:
        """UserError when a plan of so many steps is shorter than the longest way of a gradient."""
        early = 0 if self.early is None else self.early[1]
        if self.last[1] + early > steps:
            raise UserError(
                f"gradients through {self.last[1]} steps, up to {early} before the end, do not fit into a plan of "
                f"{steps}; raise plan.steps, or lower last or early"
            )

    @staticmethod
    def _draw(bounds: Range, experience: Prompted, generator: torch.Generator) -> Tensor:
        """[B] int64 between the bounds."""
        drawn = torch.randint(bounds[0], bounds[1] + 1, (experience.total,), generator=generator)
        return drawn[experience.index]

    def freeze(self, policy: Policy, items: PictureItems) -> PictureItems:
        return items

    def idle(self, items: PictureItems) -> Tensor:
        return torch.zeros(len(items), dtype=torch.bool)

    def drawn(self, policy: Policy, items: PictureItems) -> Unrolled:
        """The clean latents of these pictures, and their KL where it has a weight, with gradients."""
        compare = _kl(policy, items.plan) if self._holds else None
        return unroll(policy, items.cond, items.noise, items.plan, items.window, compare=compare)

    def loss(self, policy: Policy, items: PictureItems) -> Loss:
        latents, kl, after = self.drawn(policy, items)
        if self.finish:
            self._observe_finished(policy, items, after)
        rewards = [items.reward.of(policy, latents, items.prompts, items.cond, self._views(items, 0))]
        for number in range(self.renoise):
            fresh = _renoised(policy, latents.detach(), items, number)
            rewards.append(items.reward.of(policy, fresh, items.prompts, items.cond, self._views(items, number + 1)))
        r = torch.stack(rewards)  # [1 + renoise, N]
        phi = r if self.hinge is None else r.clamp_max(self.hinge)
        terms = {"reward": rewards[0].detach().mean(), "kl": kl.detach().mean()}
        return Loss(total=-phi.mean() + (items.hold.to(kl.device) * kl).mean(), terms=terms)

    def _observe_finished(self, policy: Policy, items: PictureItems, after: Tensor) -> None:
        """Show the reward the ends of the pictures whose windows ended in the states `after` [N, ...]."""
        assert isinstance(items.reward, Reward), "what is learned from latents has no pictures to finish"
        rows = _harmful(items).nonzero().flatten()
        if len(rows):
            few, x = items.take(rows), after[rows.to(after.device)]
            latents = rest(policy, few.cond, few.noise, few.plan, x, stop=few.window.stop)
            items.reward.observe(policy, latents, few.prompts, self._views(few, 0))

    def _views(self, items: PictureItems, number: int) -> Views:
        return Views(keys=items.noise.keys, count=self.views, number=number)

    def cost(self, items: PictureItems) -> Cost:
        constant, learned = items.window.first, items.window.stop - items.window.first
        held = items.hold > 0
        left = int((items.plan.steps - items.window.stop)[_harmful(items)].sum()) if self.finish else 0
        spent = Passes(
            len(items), int(constant.sum()), int(learned.sum()), int(held.sum()), int(learned[held].sum()), left
        )
        return self._cost(items.plan, spent)

    def forecast(self, volume: Volume) -> Cost:
        """Where windows are drawn, that of the longest, and as if all images were held: a run takes no more.

        With `finish`, as if all were finished, which takes the plan's steps however early a picture is left.
        """
        early = 0 if self.early is None else self.early[0]
        images, learned = volume.images, volume.images * self.last[1]
        constant, held = images * (volume.plan.steps - early) - learned, self._holds
        spent = Passes(images, constant, learned, images * held, learned * held, images * early * self.finish)
        return self._cost(volume.plan, spent)

    def _cost(self, plan: Plan, spent: Passes) -> Cost:
        passes, fresh = 2 if self.checkpoint else 1, self.renoise * spent.images
        forwards = spent.constant + spent.finished + passes * (spent.learned + spent.compared + fresh)
        branches = plan.branches if plan.keep_unconditional_grad else 1
        behind = spent.compared - spent.held  # the reference's first step of an image starts from a constant
        return Cost(forwards * plan.branches, (spent.learned + behind + fresh) * branches)


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
    finish: bool = False,
    checkpoint: bool = False,
) -> Direct:
    """ReFL; as released: 40 steps of which 0 to 9 are left out, and ImageReward up to 2."""
    return Direct(early=early, hinge=hinge, kl=kl, kl_safe=kl_safe, views=views, finish=finish, checkpoint=checkpoint)


def _harmful(items: PictureItems) -> Tensor:
    """[N] bool, on the CPU: pictures of prompts that have a harm category."""
    return torch.tensor([prompt.harm is not None for prompt in items.prompts])


def _kl(policy: Policy, plan: Plan) -> Compare:
    """KL [B] of the module's notation, at one step; gradients go through x in both networks."""

    def compare(x: Tensor, t: Tensor, cond: Conditioning, prediction: Prediction) -> Tensor:
        with policy.using(Weights.REFERENCE):
            reference = guided(policy, plan, cond, x, t)
        return ((prediction.noise - reference.noise) ** 2 / 2).flatten(1).mean(1)

    return compare


def _renoised(policy: Policy, x0: Tensor, items: PictureItems, number: int) -> Tensor:
    """x0 [N, ...] with fresh noise for the last step, and what is foreseen from there."""
    plan, schedule = items.plan, policy.schedule
    t = schedule.grid(plan.steps)[-2].to(x0.device).expand(len(x0))
    x = add_noise(schedule, x0, items.noise.at(plan.steps + 1 + number, x0.device), t)

    def foreseen(x: Tensor) -> tuple[Tensor, Tensor]:
        return guided(policy, plan, items.cond, x, t).x0, t

    return again(foreseen, x, forget=items.window.checkpoint)[0]
