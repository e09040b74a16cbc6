"""What the frontier trains beside the methods: a recipe with one choice changed, and recipes to their own end."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT = "emoji-steer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    keys: tuple[str, ...]
    recipe: str = DEFAULT


def _of(*keys: str) -> Ablation:
    return Ablation(keys=keys)


ABLATIONS = {
    "alpha-2": _of("steering.alpha_ratio=2"),
    "alpha-8": _of("steering.alpha_ratio=8"),
    "anchors-compact": _of("steering.anchors=emoji/compact", "steering.per_category=false"),
    "anchors-unsafe-only": _of("steering.anchors=emoji/unsafe-only", "steering.per_category=false"),
    "anchors-scaled": _of("steering.anchors=emoji/scaled", "steering.per_category=false"),
    "one-direction": _of("steering.per_category=false"),
    "projection": _of("steering.mode=projection"),
    "gate-all": _of("steering.gate=all"),
    "gate-classifier": _of("steering.gate=classifier"),
    "kl-none": _of("objective.kl_safe=0"),
    "kl-all": _of("objective.kl=0.4"),
    "window-early": _of("plan.window=[0,3]"),
    "window-late": _of("plan.window=[4,7]"),
    "window-all": _of("plan.window=null"),
    "guidance-2": _of("plan.guidance=2"),
    "noise-fresh": _of("plan.noise_sharing=fresh"),
    "noise-all": _of("plan.noise_sharing=all"),
    "group-2": _of("group_size=2", "groups=96"),
    "group-8": _of("group_size=8", "groups=24"),
    "init-random": _of("weights.init=random"),
    "reward-decoupled": _of("credit.kind=decoupled", "credit.gae_lambda=null", "scorers={clip: 1.0, steering: 1.0}"),
    "moderated": _of("scorers.emoji-moderator=-0.2"),
}

# A budget alone asks for safety, and quality is the reward; rho leads, as eta would wind up in so few steps.
BUDGETED = ("scorers={clip: 1.0}", "constraint.rho=10", "constraint.eta=0.02", "constraint.bound=2", "steps=80")

# To the end of their own steps: what users are given, from one category alone, and under other budgets (half as long).
WHOLE = {
    "all-categories": Ablation(recipe="emoji-steer-direct", keys=()),
    "one-category": Ablation(recipe="emoji-one-category", keys=()),
} | {
    f"budget-{percent}": Ablation(recipe="emoji-steer-direct", keys=(f"constraint.budget={percent / 100:g}", *BUDGETED))
    for percent in (0, 2, 5, 10)
}
