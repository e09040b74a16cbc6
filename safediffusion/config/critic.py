"""The keys of `critic`, and what they exclude. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from safediffusion.config.fields import key
from safediffusion.config.objectives import ForwardConfig
from safediffusion.core.errors import UserError

if TYPE_CHECKING:
    from safediffusion.config.schema import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticConfig:
    kind: Literal["none", "latents"] = key(
        "none", "latents: a network learns what a noisy state is worth, and every step gets its own advantage from it"
    )
    gae_lambda: float = key(
        1.0,
        "1 = the advantage over what was expected before the step; less = what later steps add counts less",
        low=0,
        high=1,
    )
    hidden: int = key(128, "units of each of its two hidden layers", low=1)
    lr: float = key(1e-4, "its learning rate; above 0", low=0)
    epochs: int = key(1, "passes over a step's states", low=1)
    batch: int = key(256, "states an update, over all processes", low=1)
    clip: float | None = key(None, "a value is pulled no further than this from what it was; null = never", low=0)
    whiten: bool = key(False, "give a step's advantages mean 0 and variance 1")
    reset_every: int | None = key(None, "steps until its active neurons are drawn anew; null = never", low=1)
    reset_threshold: float = key(0.0, "a neuron is active above this share of its layer's mean activation", low=0)


def check_critic(recipe: Recipe) -> None:
    """Options that nobody would look at."""
    own, none, objective = recipe.critic, CriticConfig(), recipe.objective
    if own.kind == "none":
        if own != none:
            raise UserError("`critic` has keys but critic.kind is none; set critic.kind=latents, or leave them out")
        return
    if not objective.advantages or isinstance(objective, ForwardConfig):
        raise UserError(
            f"critic.kind={own.kind} gives recorded steps their advantages, which objective.kind={objective.kind} does "
            "not read; set critic.kind=none"
        )
    if recipe.credit.gae_lambda is not None:
        raise UserError(
            "both critic.kind and credit.gae_lambda would give every step its advantage; set credit.gae_lambda=null "
            "(critic.gae_lambda is the critic's) or critic.kind=none"
        )
    if own.reset_every is None and own.reset_threshold != none.reset_threshold:
        raise UserError(
            "critic.reset_threshold says which neurons are reset, but critic.reset_every is null; set it, or leave "
            "critic.reset_threshold out"
        )
