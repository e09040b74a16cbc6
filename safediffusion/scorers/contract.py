"""What a scorer must do to be a reward and a metric, checked on random pictures: for authors of plug-ins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt

from .base import Calibrated, Decomposed, ImageBatch, Scorer

SIDE, COUNT = 64, 3
TOLERANCE = 1e-3
ERRORS = (UserError, TypeError, ValueError, RuntimeError, AttributeError, IndexError, AssertionError)  # a plug-in's own


class Outcome(NamedTuple):
    ok: bool
    what: str
    advice: str = ""


def check_scorer(scorer: Any) -> Iterator[Outcome]:
    """Every rule and whether it holds; ends at the first that the others build on and that does not."""
    for name, kind in (("name", str), ("higher_is_better", bool), ("differentiable", bool)):
        value = getattr(scorer, name, None)
        yield Outcome(isinstance(value, kind), f"{name} is a {kind.__name__}", f"it is {value!r}; set the attribute")
        if not isinstance(value, kind):
            return
    batch = _pictures()
    before = batch.images.clone()
    if isinstance(scorer, Calibrated) and not scorer.ready:
        scorer.calibrate(dict.fromkeys(scorer.terms(batch), 1.0))
    try:
        scores = _score(scorer, batch)
    except ERRORS as error:
        yield Outcome(False, "scores pictures [B, 3, H, W] in [0, 1] with their prompts", f"it raised {error!r}")
        return
    shaped = isinstance(scores, Tensor) and scores.shape == (COUNT,) and scores.dtype is torch.float32
    found = f"{tuple(scores.shape)} {scores.dtype}" if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
    yield Outcome(shaped, "gives one float32 number a picture, [B]", f"it gave {found} for {COUNT} pictures")
    if not shaped:
        return
    known = not scores.isnan().all()
    yield Outcome(known, "can score ordinary pictures", "it gave NaN for all of them, as if none could be scored")
    try:
        yield from _behaviour(scorer, batch, before, scores)
    except ERRORS as error:
        yield Outcome(False, "scores one picture, and passes gradients if it says so", f"it raised {error!r}")


def _behaviour(scorer: Scorer, batch: ImageBatch, before: Tensor, scores: Tensor) -> Iterator[Outcome]:
    kept = torch.equal(batch.images, before)
    yield Outcome(kept, "leaves the pictures as they are", "it wrote into batch.images; copy first")
    finite = not scores.isinf().any()
    yield Outcome(finite, "gives numbers, or NaN where it cannot", "it gave inf; give NaN, which counts as missing")
    again = _same(_score(scorer, batch), scores)
    yield Outcome(again, "gives the same numbers again", "it draws random numbers; fix or remove them")
    one = [_score(scorer, _pick(batch, [row])) for row in range(COUNT)]
    flat = all(score.shape == (1,) for score in one)
    yield Outcome(flat, "gives [1] for one picture", f"it gave {list(one[0].shape)}; leave out .squeeze()")
    alone = torch.stack([score.reshape(-1)[0] for score in one])
    advice = f"alone {alone.tolist()}, together {scores.tolist()}; do not normalise over the batch"
    yield Outcome(_same(alone, scores), "scores a picture alone as among others", advice)
    if scorer.differentiable:
        yield _gradient(scorer, batch)


def _gradient(scorer: Scorer, batch: ImageBatch) -> Outcome:
    images = batch.images.clone().requires_grad_()
    with torch.enable_grad():
        scores = _score(scorer, ImageBatch(images, batch.prompts))
        reached = scores.requires_grad
        slope = torch.autograd.grad(scores.nansum(), images, allow_unused=True)[0] if reached else None
    fine = slope is not None and bool(slope.isfinite().all()) and bool(slope.abs().sum() > 0)
    return Outcome(
        fine,
        "lets gradients through to the pictures, as it says",
        "none, zero or no numbers arrive; leave out .detach(), numpy and rounding, or set differentiable = False",
    )


def _score(scorer: Scorer, batch: ImageBatch) -> Tensor:
    if isinstance(scorer, Decomposed):
        return scorer.combine(scorer.terms(batch), batch.prompts)
    return scorer(batch)


def _pictures() -> ImageBatch:
    images = torch.rand(COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    texts = {"a cat": "safe", "a knife and blood": "unsafe", "a portrait of a queen": "safe"}
    prompts = (Prompt(id=text, text=text, tags={"label": label}) for text, label in texts.items())
    return ImageBatch(images, tuple(prompts))


def _pick(batch: ImageBatch, rows: list[int]) -> ImageBatch:
    return ImageBatch(batch.images[rows].clone(), tuple(batch.prompts[row] for row in rows))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True).all())
