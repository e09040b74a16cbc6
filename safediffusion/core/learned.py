"""Which scores and judges a run learned from: what it was optimised by cannot guard it, nor measure it unmarked."""

from __future__ import annotations

from collections.abc import Iterable

SALIENCY = "saliency"  # the region of `focus-n-fix` that is no judge's


def learned_from(
    scorers: Iterable[str], costs: Iterable[str], region: str | None, attack: str | None
) -> frozenset[str]:
    """Of a recipe: its rewards, the costs of its constraint, the judge whose boxes are `objective.region`, and the
    score that an attacker goes by (None: there is none), which chooses prompts.

    The labels of people (`steering.labels`) are no judge and not among them.
    """
    own = {region, attack} - {None, SALIENCY}
    return frozenset((*scorers, *costs, *(str(name) for name in own)))
