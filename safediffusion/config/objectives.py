"""The keys of `objective`: those of every kind, and one class for each kind with its own. No torch.

A kind of the package: a class here whose own keys are arguments of the objective (and which redefines `kind` with its
name as the default), and its line in `OBJECTIVE_KINDS`. A plug-in (entry-point group `safediffusion.objectives`) is
made without arguments and has the keys of every kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args, get_type_hints

from safediffusion.config.fields import Kinds, key
from safediffusion.core.errors import UserError
from safediffusion.objectives.registry import OBJECTIVES

ANCHOR = "old log-probabilities: the rollout's, this very pass's (one update a step), or a pass before updating"
AGAIN = "compute each step's activations again in the backward pass: the memory of one step for any number of them"
KIND = "the algorithm; see `safediffusion list objectives`"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveConfig:
    """What the trainer reads, whatever the objective."""

    learns_from: ClassVar[Literal["rollouts", "prompts"]] = "rollouts"  # or draws its own pictures, of prompts alone
    samples: ClassVar[bool] = False  # whether it has rollouts beside the prompts it draws its own pictures of
    advantages: ClassVar[bool] = True  # whether it reads them; else the scores alone
    kind: str = key("grpo", KIND)
    updates: int = key(1, "optimizer updates a step", low=1)
    micro: int = key(
        16,
        "items in one forward and backward: a picture or pair at one step (policy gradients, d3po) or draw (dpo, kto)",
        low=1,
    )

    def graphs(self, steps: int) -> int:
        """Forwards an item whose activations are held at the same time, where a picture has `steps` steps."""
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGradientConfig(ObjectiveConfig):
    """What every policy gradient on reverse steps has, but the default of `anchor`, which is its own."""

    kl: float = key(0.0, "weight of the closed-form KL to the reference; 0 computes none", low=0)
    kl_safe: float | None = key(None, "the same for prompts labelled safe; null = as kl", low=0)
    anchor: Literal["rollout", "first_pass", "recompute"] = key("first_pass", ANCHOR)
    steps_per_image: int | None = key(
        None, "train this many recorded steps of each picture, drawn anew; null = all", low=1
    )
    images_per_group: int | None = key(
        None, "train only the pictures of extreme advantage, half from either end; null = all", low=1
    )

    def __post_init__(self) -> None:
        if self.anchor == "first_pass" and self.updates != 1:
            allowed = [choice for choice in get_args(get_type_hints(type(self))["anchor"]) if choice != "first_pass"]
            raise UserError(
                f"anchor=first_pass allows one update a step, updates is {self.updates}; set updates=1, or "
                f"anchor={' or '.join(allowed)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpoConfig(PolicyGradientConfig):
    clip: float = key(1e-4, "the ratio is clipped to 1 +- clip", low=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpoGuardConfig(GrpoConfig):
    kind: str = key("grpo-guard", KIND)
    anchor: Literal["first_pass", "recompute"] = key("recompute", ANCHOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowDppoConfig(PolicyGradientConfig):
    kind: str = key("flow-dppo", KIND)
    divergence: float = key(1e-5, "a step this far from the old one (KL, mean over dimensions) goes no further", low=0)
    anchor: Literal["first_pass", "recompute"] = key("recompute", ANCHOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoConfig(ObjectiveConfig):
    advantages: ClassVar[bool] = False

    kind: str = key("dpo", KIND)
    beta: float = key(5000.0, "how far the policy may leave the reference: less at higher beta; of mean errors", low=0)
    draws: int = key(1, "times and noises drawn for each pair", low=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class D3poConfig(ObjectiveConfig):
    advantages: ClassVar[bool] = False

    kind: str = key("d3po", KIND)
    beta: float = key(0.1, "how far the policy may leave the reference: less at higher beta; of mean log-ratios", low=0)
    clip: float | None = key(None, "the ratio to the reference is kept within 1 +- clip; null = never", low=0, high=1)
    steps_per_pair: int | None = key(None, "train this many recorded steps of each pair; null = all", low=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class KtoConfig(ObjectiveConfig):
    advantages: ClassVar[bool] = False

    kind: str = key("kto", KIND)
    beta: float = key(1000.0, "how fast the utility saturates; of mean errors", low=0)
    utility: Literal["kahneman-tversky", "loss-averse", "risk-seeking"] = key(
        "kahneman-tversky", "of the gain over the reference point: sigmoid, log sigmoid(.), -log sigmoid(-.)"
    )
    liked: float = key(1.0, "weight of pictures that are liked", low=0)
    disliked: float = key(1.0, "weight of pictures that are disliked", low=0)
    draws: int = key(1, "times and noises drawn for each picture", low=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrdpConfig(ObjectiveConfig):
    advantages: ClassVar[bool] = False

    kind: str = key("prdp", KIND)
    beta: float = key(1.0, "weight of the log-ratio to the reference that predicts the reward; above 0", low=0)
    clip: float = key(1e-4, "the log-ratio to the old policy is clipped to +-clip, step by step; above 0", low=0)
    checkpoint: bool = key(True, AGAIN)

    def graphs(self, steps: int) -> int:
        return 2 if self.checkpoint else 2 * steps


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectConfig(ObjectiveConfig):
    """What every back-propagation of a reward through the sampler has."""

    learns_from: ClassVar[Literal["rollouts", "prompts"]] = "prompts"
    advantages: ClassVar[bool] = False

    kl: float = key(0.0, "weight of the distance to the reference's noise at the steps with gradients", low=0)
    checkpoint: bool = key(False, AGAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldConfig(DirectConfig):
    """Of kinds in which prompts labelled safe may be held on their own."""

    kl_safe: float | None = key(None, "the same for prompts labelled safe; null = as kl", low=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PicturedConfig(HeldConfig):
    """Of kinds whose gradient goes through the finished pictures."""

    views: int = key(
        0,
        "score so many random views of a picture (turned, scaled, moved, noisy) in its place, so that the gradient "
        "moves what is shown and not single pixels; 0 = the picture itself",
        low=0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftConfig(PicturedConfig):
    kind: str = key("draft", KIND)
    last: int = key(1, "reverse steps that gradients go through", low=1)
    renoise: int = key(0, "further pictures a picture, noised and denoised by one step (DRaFT-LV; last = 1)", low=0)

    def graphs(self, steps: int) -> int:
        return 1 if self.checkpoint else self.last + self.renoise


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignPropConfig(PicturedConfig):
    kind: str = key("alignprop", KIND)
    last: tuple[int, int] = key((1, 20), "[low, high]: gradients go through so many steps, drawn for each picture")
    checkpoint: bool = key(True, AGAIN)

    def graphs(self, steps: int) -> int:
        return 1 if self.checkpoint else self.last[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflConfig(PicturedConfig):
    kind: str = key("refl", KIND)
    early: tuple[int, int] = key((0, 9), "[low, high]: so many steps are left out at the end, drawn for each picture")
    hinge: float | None = key(2.0, "a reward beyond this has no gradient; null = every reward has one")


@dataclass(frozen=True, slots=True, kw_only=True)
class LasroConfig(HeldConfig):
    samples: ClassVar[bool] = True

    kind: str = key("lasro", KIND)
    last: int = key(1, "reverse steps that gradients go through", low=1)
    min_accuracy: float = key(
        0.6, "the policy rests while the surrogate orders fewer of the fresh pictures' pairs; 0 = never", low=0, high=1
    )

    def graphs(self, steps: int) -> int:
        return 1 if self.checkpoint else self.last


@dataclass(frozen=True, slots=True, kw_only=True)
class FocusNFixConfig(DirectConfig):
    kind: str = key("focus-n-fix", KIND)
    last: int = key(1, "reverse steps that gradients go through", low=1)
    beta: float = key(1.0, "weight of the root mean square change of a picture outside its region", low=0)
    region: Literal["saliency", "emoji-moderator", "nudenet", "nudenet-3.4"] = key(
        "saliency",
        "where a picture may change: what the reward depends on most, or the embedded world's moderator, or the "
        "exposed parts that a detector boxes (its extra has to be installed); neither is a judge of that run any more",
    )
    share: float | None = key(None, "the region's share of the picture, but for boxes; null = 0.25", low=0, high=1)

    def __post_init__(self) -> None:
        if self.share is not None and (self.region.startswith("nudenet") or not self.share):
            raise UserError(
                f"objective.share is {self.share} and objective.region {self.region}; a share above 0 is for "
                "region=saliency or emoji-moderator, a detector's boxes have their own size: set share=null"
            )

    def graphs(self, steps: int) -> int:
        return 1 if self.checkpoint else self.last


PAIRED = ("dpo", "d3po")  # kinds whose item is two pictures
PREFERRING = (*PAIRED, "kto")  # kinds that learn from comparisons
FINISHED = ("dpo", "kto")  # kinds that learn from finished pictures, at times of their own and without guidance


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardConfig(ObjectiveConfig):
    """What every objective on the forward process has; its items are (picture, time), its rollouts record no steps."""

    kl: float = key(0.0, "weight of the squared distance to what the reference predicts; 0 computes none", low=0)
    kl_safe: float | None = key(None, "the same for prompts labelled safe; null = as kl", low=0)
    times: Literal["grid", "uniform", "logit-normal"] = key(
        "grid", "where pictures are noised: the plan's own steps, evenly, or more often in the middle"
    )
    times_per_image: int | None = key(None, "times of each picture, drawn anew; null = all of the grid", low=1)

    def __post_init__(self) -> None:
        if self.times != "grid" and self.times_per_image is None:
            raise UserError(f"times={self.times} has no end; set times_per_image, e.g. times_per_image=4")


@dataclass(frozen=True, slots=True, kw_only=True)
class NftConfig(ForwardConfig):
    kind: str = key("nft", KIND)
    beta: float = key(1.0, "strength of the implicit predictions: smaller goes further for the same contrast", low=0)
    advantage_max: float = key(5.0, "the advantage of a picture that is wholly good; its negative is wholly bad", low=0)
    lag: float = key(0.5, "the highest decay a step of the behavior weights, which draw the pictures", low=0, high=1)
    lag_rise: float = key(0.001, "what that decay rises by a step", low=0)
    lag_flat: int = key(0, "steps before it rises from 0, where the behavior weights are the trained ones", low=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AwmConfig(ForwardConfig):
    kind: str = key("awm", KIND)
    clip: float = key(0.2, "the ratio is clipped to 1 +- clip", low=0)
    kl_ema: float = key(0.0, "weight of the squared distance to what the averaged weights (ema) predict", low=0)
    sigma_power: float = key(1.0, "a picture's likelihood weighs as this power of the noise's share sigma", low=0)
    huber: float = key(0.25, "the matching loss enters with this power; 1 = as it is", low=0, high=1)
    anchor: Literal["first_pass", "recompute"] = key("first_pass", ANCHOR)

    def __post_init__(self) -> None:
        ForwardConfig.__post_init__(self)
        if self.anchor == "first_pass" and self.updates != 1:
            raise UserError(
                f"anchor=first_pass allows one update a step, updates is {self.updates}; set updates=1, or "
                "anchor=recompute"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RwrConfig(ForwardConfig):
    kind: str = key("rwr", KIND)
    weighting: Literal["exp", "top"] = key("exp", "pictures weigh exp(advantage / temperature), or 1 for the best")
    temperature: float = key(1.0, "exp: the higher, the more alike pictures weigh", low=0)
    share: float = key(0.25, "top: the share of a group that is trained on", low=0, high=1)


OBJECTIVE_KINDS = Kinds(
    base=ObjectiveConfig,
    table={
        "grpo": GrpoConfig,
        "grpo-guard": GrpoGuardConfig,
        "flow-dppo": FlowDppoConfig,
        "dpo": DpoConfig,
        "d3po": D3poConfig,
        "kto": KtoConfig,
        "nft": NftConfig,
        "awm": AwmConfig,
        "rwr": RwrConfig,
        "prdp": PrdpConfig,
        "draft": DraftConfig,
        "alignprop": AlignPropConfig,
        "refl": ReflConfig,
        "lasro": LasroConfig,
        "focus-n-fix": FocusNFixConfig,
    },
    registry=OBJECTIVES,
)
