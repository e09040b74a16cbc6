"""Which scores and judges a run learned from: what it was optimised by cannot guard it, nor measure it unmarked."""

from __future__ import annotations

from collections.abc import Iterable

SALIENCY = "saliency"  # the region of `focus-n-fix` that is no judge's


def learned_from(scorers: Iterable[str], costs: Iterable[str], region: str | None) -> frozenset[str]:
    """Of a recipe: its rewards, the costs of its constraint, and the judge whose boxes are `objective.region`.

    The labels of people (`steering.labels`) are no judge and not among them.
    """
    return frozenset((*scorers, *costs, *(() if region in (None, SALIENCY) else (region,))))
