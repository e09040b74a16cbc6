"""Published methods as recipes of this package, and where the survey arXiv 2505.17352 puts them. No torch."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

POLICY_GRADIENT = "policy gradient on reverse steps"
DIRECT = "back-propagation of the reward"
PREFERENCE = "a preference's likelihood"
FORWARD = "weighted denoising on the forward process"
SCORER = "any scorer of the model's own pictures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """`recipe` with `keys` behind it is the method, `page` of docs/methods its equations and results; the rest is where
    the survey's five axes put it."""

    arxiv: str
    about: str
    page: str
    recipe: str
    keys: tuple[str, ...] = ()
    source: str = SCORER
    signal: str = "a number a picture, compared inside a group"
    optimisation: str = POLICY_GRADIENT
    restraint: str  # against distribution shift and reward over-optimisation
    safety: str = "none of its own: as the reward says"
    needs: str = "a scorer, no gradient of it, no pictures"

    @property
    def command(self) -> str:
        return shlex.join(("safediffusion", "train", self.recipe, *self.keys))

    @property
    def axes(self) -> str:
        """Its place on the five axes, in words."""
        return (
            f"feedback: {self.source}; signal: {self.signal}; optimisation: {self.optimisation}; against shift and "
            f"over-optimisation: {self.restraint}; safety: {self.safety}; needs {self.needs}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What runs of `benchmarks.frontier` within one budget of forwards took and did in `steps`, a mean over `seeds`.

    The risk of reward hacking is told by two numbers that belong together: what the guard's panel lost (`panel`, the
    share of its tolerance that the worst measure used up; above 1 is more than is tolerated, below 0 all got better;
    None: not guarded) while the reward of the panel's pictures rose (`reward`, in standard deviations of the base's;
    None: nothing is rewarded).
    Both say as much as the steps that were made, and nothing of a policy that never moved.
    """

    steps: int
    forwards: float  # UNet forwards a picture, without those before the first update
    backwards: float
    panel: float | None
    reward: float | None
    seeds: int

    @property
    def trained(self) -> bool:
        """Whether anything was learned from at all."""
        return self.backwards > 0

    @property
    def risk(self) -> str:
        if not self.trained:
            return "not measured: its policy rested"
        if self.panel is None:
            return "not measured"
        steps = f"{self.steps} step{'s' if self.steps > 1 else ''}"
        gained = "without a reward" if self.reward is None else f"at {self.reward:+.2f} std of reward"
        return f"{self.panel:.2f} of the tolerance {gained} after {steps}"

    @property
    def words(self) -> str:
        seeds = f"{self.seeds} seed{'s' if self.seeds > 1 else ''}"
        cost = f"{self.forwards:.1f} UNet forwards and {self.backwards:.1f} backwards a picture"
        return f"measured ({seeds}): {cost}; guard's panel: {self.risk}"


@cache
def measured() -> dict[str, Measured]:
    """By method; one that is not there was not measured."""
    found = json.loads(Path(__file__).with_name("measured.json").read_text())
    return {name: Measured(**each) for name, each in found.items()}


_preferred = partial(
    Method,
    signal="which of two pictures is better",
    optimisation=PREFERENCE,
    restraint="the pretrained model inside the loss",
)
_direct = partial(
    Method,
    signal="the gradient of a number a picture",
    optimisation=DIRECT,
    restraint="few steps with gradients, a distance to the reference where asked",
    needs="a differentiable scorer",
)

METHODS = {
    "safediffusion-r1": Method(
        arxiv="2605.18719",
        page="grpo",
        about="clipped policy gradient on a steered CLIP reward; as released",
        recipe="emoji-r1-released",
        source="CLIP, and texts that say safe and unsafe",
        restraint="the clip of the ratio",
        safety="a direction in the reward, for every prompt",
        needs="anchor texts",
    ),
    "steer": Method(
        arxiv="2605.18719",
        page="grpo",
        about="the same reward with this project's defaults",
        recipe="emoji-steer",
        source="CLIP, and texts that say safe and unsafe",
        restraint="KL to the base on safe prompts, a window of steps, EMA",
        safety="a direction in the reward, for prompts labelled unsafe",
        needs="anchor texts and labelled prompts",
    ),
    "steer-direct": _direct(
        arxiv="2605.18719",
        page="direct",
        about="that reward by its own gradient where a picture is decided, each category's harm under a budget",
        recipe="emoji-steer-direct",
        source="CLIP, texts that say safe and unsafe, and a moderator's P(unsafe)",
        restraint="distance to the base on safe prompts, a foreseen picture in the middle of the drawing, EMA",
        safety="a direction in the reward and a constraint: each category's measured cost under its budget",
        needs="anchor texts, labelled prompts with categories and a differentiable judge",
    ),
    "constrained": Method(
        arxiv="2602.02924",
        page="constraint",
        about="budgets of harm by category, kept by an augmented Lagrangian; in the form of ALGD",
        recipe="emoji-constrained",
        source="CLIP for quality; projections on safety directions, or judges, for harm",
        restraint="as `steer`",
        safety="a constraint: each category's measured cost under its budget",
        needs="labelled pictures and texts, or a judge; prompts with categories",
    ),
    "ddpo": Method(
        arxiv="2305.13301",
        page="grpo",
        about="clipped policy gradient on all denoising steps, no KL",
        recipe="emoji-ddpo",
        signal="a number a picture, compared with the prompt's earlier ones",
        restraint="the clip of the ratio",
    ),
    "dpok": Method(
        arxiv="2305.16381",
        page="grpo",
        about="the same with KL to the pretrained model",
        recipe="emoji-dpok",
        restraint="KL to the pretrained model",
    ),
    "loop": Method(
        arxiv="2503.00897",
        page="credits",
        about="the same with the other pictures of the group as baseline",
        recipe="emoji-dance-grpo",
        keys=("credit.kind=leave-one-out", "plan.noise_sharing=fresh"),
        restraint="the clip of the ratio",
    ),
    "dance-grpo": Method(
        arxiv="2505.07818",
        page="grpo",
        about="groups that share their start noise, normalised by their own std",
        recipe="emoji-dance-grpo",
        restraint="the clip of the ratio",
    ),
    "flow-grpo": Method(
        arxiv="2505.05470",
        page="grpo",
        about="few steps, KL, the step's std for all groups",
        recipe="emoji-flow-grpo",
        restraint="KL to the pretrained model, EMA",
    ),
    "mixgrpo": Method(
        arxiv="2507.21802",
        page="grpo",
        about="only a sliding window of steps is stochastic and trained",
        recipe="emoji-mixgrpo",
        restraint="the clip of the ratio",
    ),
    "gdpo": Method(
        arxiv="2601.05242",
        page="credits",
        about="several scores, each normalised in its group by itself: here fit to the prompt and a moderator's harm",
        recipe="emoji-steer",
        keys=("credit.kind=decoupled", "credit.gae_lambda=null", "scorers={clip: 1.0, emoji-moderator: -1.0}"),
        source="several scores: CLIP, and a moderator's P(unsafe)",
        signal="numbers a picture, each compared inside a group",
        restraint="as `steer`",
        safety="a moderator's score among the rewards",
        needs="scorers, no gradient of them, no pictures",
    ),
    "tdpo-r": Method(
        arxiv="2402.08552",
        page="tdpo",
        about="a critic's advantage for every step, its active neurons drawn anew now and then",
        recipe="emoji-tdpo",
        signal="a number a picture over what a critic expected at each step",
        restraint="resets of the critic, KL to the base on safe prompts, EMA",
    ),
    "noisy-critic": Method(
        arxiv="2601.03213",
        page="noisy-critic",
        about="what a step changes in the reward that a critic expects of a noisy state; rollouts used twice",
        recipe="emoji-noisy-critic",
        signal="the change of a critic's value from step to step",
        restraint="the clip of the ratio, KL to the base on safe prompts",
    ),
    "grpo-guard": Method(
        arxiv="2510.22319",
        page="grpo-guard",
        about="Flow-GRPO with a ratio whose mean is 1, and steps of equal weight",
        recipe="emoji-flow-grpo",
        keys=("objective.kind=grpo-guard",),
        restraint="a normalised ratio's clip, KL to the pretrained model",
    ),
    "flow-dppo": Method(
        arxiv="2606.11025",
        page="flow-dppo",
        about="Flow-GRPO with a mask by divergence in place of the clip",
        recipe="emoji-flow-grpo",
        keys=("objective.kind=flow-dppo",),
        restraint="the divergence from the policy that sampled, KL to the pretrained model",
    ),
    "diffusion-dpo": _preferred(
        arxiv="2311.12908",
        page="dpo",
        about="pairs of a better and a worse picture, by how well each is denoised; here of the model's own",
        recipe="emoji-dpo",
    ),
    "safety-dpo": _preferred(
        arxiv="2412.10493",
        page="safety-dpo",
        about="the same of a safe and an unsafe picture, drawn from two wordings of a prompt",
        recipe="emoji-safety-dpo",
        source="no score: the model's own pictures of two wordings",
        safety="pairs of a safe and an unsafe picture; an expert a category, merged, where each is trained by itself",
        needs="unsafe prompts with a harmless wording each",
    ),
    "d3po": _preferred(
        arxiv="2311.13231",
        page="d3po",
        about="the same on the reverse steps that led to both",
        recipe="emoji-d3po",
    ),
    "diffusion-kto": _preferred(
        arxiv="2404.04465",
        page="kto",
        about="pictures that are liked or disliked, no pairs",
        recipe="emoji-kto",
        signal="yes or no for a picture",
        restraint="the pretrained model inside the loss, a saturating utility",
    ),
    "diffusion-nft": Method(
        arxiv="2509.16117",
        page="nft",
        about="good and bad pictures contrasted on the forward process",
        recipe="emoji-nft",
        optimisation=FORWARD,
        restraint="sampling weights that lag behind, a penalty to the reference",
    ),
    "awm": Method(
        arxiv="2509.25050",
        page="awm",
        about="a policy gradient whose likelihood is the denoising loss",
        recipe="emoji-awm",
        optimisation=FORWARD,
        restraint="penalties to the reference and to averaged weights",
    ),
    "rwr": Method(
        arxiv="2305.13301",
        page="rwr",
        about="the denoising loss, more for better pictures",
        recipe="emoji-rwr",
        optimisation=FORWARD,
        restraint="a penalty to the reference",
    ),
    "draft": _direct(
        arxiv="2309.17400",
        page="direct",
        about="the gradient of a differentiable reward through the last steps",
        recipe="emoji-draft",
    ),
    "draft-lv": _direct(
        arxiv="2309.17400",
        page="direct",
        about="the same through the last step, of each picture noised anew as well",
        recipe="emoji-draft",
        keys=("objective.renoise=2",),
    ),
    "alignprop": _direct(
        arxiv="2310.03739",
        page="direct",
        about="the same through a random number of last steps",
        recipe="emoji-draft",
        keys=("objective.kind=alignprop", "objective.last=[1,8]"),
    ),
    "refl": _direct(
        arxiv="2304.05977",
        page="direct",
        about="the same through a picture foreseen before the end",
        recipe="emoji-refl",
    ),
    "lasro": Method(
        arxiv="2411.15247",
        page="lasro",
        about="the gradient of a small network that learns the reward on latents, and is refreshed at every step",
        recipe="emoji-lasro",
        optimisation=DIRECT,
        signal="a number a picture, learned, and the gradient of what was learned",
        restraint="rests while the learned reward is wrong too often; a distance to the reference where asked",
    ),
    "focus-n-fix": _direct(
        arxiv="2501.06481",
        page="focus-n-fix",
        about="DRaFT that holds a picture to the base's outside a region",
        recipe="emoji-focus-n-fix",
        restraint="the base's own picture outside the region, few steps with gradients",
        safety="only a region may change: what the reward depends on most, or what a moderator or detector points at",
        needs="a differentiable scorer, or that and a detector of the region",
    ),
    "prdp": Method(
        arxiv="2402.08714",
        page="prdp",
        about="regression of the policy's log-ratios on differences in reward",
        recipe="emoji-prdp",
        signal="the difference in reward of two pictures",
        optimisation="regression of reward differences",
        restraint="the pretrained model inside the loss; proximal clipping from the second update of a step on",
    ),
}
