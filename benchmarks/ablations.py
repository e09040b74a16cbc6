"""What the frontier trains beside the methods: a recipe with one choice changed, and recipes to their own end."""

from __future__ import annotations

from dataclasses import dataclass

STEER, DIRECT = "emoji-steer", "emoji-steer-direct"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    recipe: str
    keys: tuple[str, ...]


# By recipe: of the reward's own gradient, then of policy gradients what the former has not.
_CHANGES: dict[str, dict[str, tuple[str, ...]]] = {
    DIRECT: {
        "alpha-1": ("steering.alpha=1",),
        "alpha-4": ("steering.alpha=4",),
        "anchors-unsafe-only": ("steering.anchors=emoji/unsafe-only", "steering.per_category=false"),
        "anchors-scaled": ("steering.anchors=emoji/scaled", "steering.per_category=false"),
        "one-direction": ("steering.per_category=false",),  # that of the anchors `compact`, too
        "projection": ("steering.mode=projection",),
        "gate-all": ("steering.gate=all",),
        "gate-classifier": ("steering.gate=classifier",),
        "kl-none": ("objective.kl_safe=0",),
        "kl-all": ("objective.kl=50",),
        "exit-early": ("objective.early=[5,6]",),
        "exit-late": ("objective.early=[0,1]",),
        "guidance-2": ("plan.guidance=2",),
        "views-none": ("objective.views=0",),
        "unconstrained": ("constraint.rho=0", "constraint.eta=0"),
        "clip-constrained": ("scorers={clip: 1.0}",),
        "init-random": ("weights.init=random",),
    },
    STEER: {
        "kl-unsafe-too": ("objective.kl=0.4",),
        "window-early": ("plan.window=[0,3]",),
        "window-late": ("plan.window=[4,7]",),
        "window-all": ("plan.window=null",),
        "noise-fresh": ("plan.noise_sharing=fresh",),
        "noise-all": ("plan.noise_sharing=all",),
        "group-2": ("group_size=2", "groups=96"),
        "group-8": ("group_size=8", "groups=24"),
        "reward-weighted": ("credit.gae_lambda=null", "scorers={clip: 1.0, steering: 1.0}"),
        "reward-decoupled": ("credit.kind=decoupled", "credit.gae_lambda=null", "scorers={clip: 1.0, steering: 1.0}"),
        "moderated": ("scorers.emoji-moderator=-0.2",),
    },
}
ABLATIONS = {
    name: Ablation(recipe=recipe, keys=keys) for recipe, changes in _CHANGES.items() for name, keys in changes.items()
}

# A budget alone asks for safety, and quality is the reward.
_RULE = ("constraint.rho=6", "constraint.eta=0.2", "constraint.ema=0.85", "constraint.bound=4")
_COST = ("constraint.finished=true", "constraint.views=8")
BUDGETS = (0, 2, 5, 10)  # percent, for every category
BUDGETED = ("scorers={clip: 1.0}", *_RULE, *_COST, "steps=120")

# The attacker of one category by what it had not: less room for benign prompts, finds that nobody checks, no sweep.
_MORE = ("attack.share=0.4",)
_UNCHECKED = (*_MORE, "attack.least=0.5", "attack.base_pictures=0", "attack.base_least=null")
_NO_SWEEP = (*_UNCHECKED, "attack.sweep=0", "attack.crosses=0", "attack.candidates=64")

# To the end of their own steps: what users are given, from one category alone, under budgets alone, and other methods
# for as many UNet forwards as the default takes (draft), or for four fifths of them (tdpo-r).
WHOLE = (
    {
        "all-categories": Ablation(recipe=DIRECT, keys=()),
        "all-categories-no-views": Ablation(recipe=DIRECT, keys=("objective.views=0",)),
        "one-category": Ablation(recipe="emoji-one-category", keys=()),
        "one-category-share-40": Ablation(recipe="emoji-one-category", keys=_MORE),
        "one-category-unchecked": Ablation(recipe="emoji-one-category", keys=_UNCHECKED),
        "one-category-no-sweep": Ablation(recipe="emoji-one-category", keys=_NO_SWEEP),
    }
    | {
        f"budget-{percent}": Ablation(recipe=DIRECT, keys=(f"constraint.budget={percent / 100:g}", *BUDGETED))
        for percent in BUDGETS
    }
    | {
        "draft-as-long": Ablation(recipe="emoji-draft", keys=("steps=178",)),
        "tdpo-r-as-long": Ablation(recipe="emoji-tdpo", keys=("steps=32",)),
    }
)
