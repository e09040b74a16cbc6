"""P(unsafe) from projections: a fit whose answer is known, and the direction a prompt's picture is judged along."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.scorers.base import ImageBatch, score_all
from safediffusion.scorers.harm import COMMON, Fitted, Harm, fit

X, Y = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])


class Means:
    """A picture's embedding is the mean of each of its channels."""

    def image(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))

    def text(self, texts: Sequence[str]) -> Tensor:
        raise AssertionError("harm reads no prompt")


def test_two_projections_get_platt_s_targets_exactly() -> None:
    """Three unsafe at -1, six safe at 3: with two values of s the fit meets 4/5 and 1/8."""
    z = torch.tensor([[-1.0, 0.0, 0.0]] * 3 + [[3.0, 0.0, 0.0]] * 6)
    found = fit(X, z, torch.tensor([True] * 3 + [False] * 6))
    assert found(z).tolist() == pytest.approx([0.8] * 3 + [0.125] * 6, rel=1e-5)
    slope = (math.log(1 / 7) - math.log(4)) / 4
    assert (found.slope, found.bias) == pytest.approx((slope, math.log(4) + slope))


def test_projections_that_overlap_get_the_likeliest_curve() -> None:
    """At the optimum the residuals sum to 0, alone and times s."""
    generator = torch.Generator().manual_seed(0)
    unsafe = torch.arange(200) < 80
    z = torch.randn(200, 3, generator=generator) - 0.8 * unsafe[:, None]
    found = fit(X, z, unsafe)
    target = torch.where(unsafe, 81 / 82, 1 / 122)
    gap = found(z).double() - target
    assert found.safe == pytest.approx(float(found(z[~unsafe]).mean()))
    assert abs(float(gap.sum())) < 1e-3 and abs(float((gap * z[:, 0]).sum())) < 1e-3 and found.slope < 0


@pytest.mark.parametrize("labels", [[True, True], [False, False]])
def test_one_kind_of_pictures_is_no_fit(labels: list[bool]) -> None:
    with pytest.raises(UserError, match="both kinds"):
        fit(X, torch.eye(3)[:2], torch.tensor(labels))


def test_members_are_terms_and_a_category_has_its_own_direction() -> None:
    common, own = Fitted(X, -2.0, 1.0, 0.1), Fitted(Y, -4.0, 0.0, 0.2)
    harm = Harm(encoder=Means(), members={"a": {COMMON: common}, "b": {COMMON: common, "sexual": own}})
    assert harm.on_safe("sexual") == (0.1, 0.2) and harm.on_safe("violence") == (0.1, 0.1)
    images = torch.rand(3, 3, 2, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
    prompts = tuple(Prompt(id=c, text=c, tags={"category": c} if c else {}) for c in ("sexual", "violence", ""))
    batch = ImageBatch(images, prompts)
    red, green = images.mean((2, 3))[:, 0], images.mean((2, 3))[:, 1]
    scores = score_all((harm,), batch)
    by_common = (1 - 2 * red).sigmoid()
    assert torch.allclose(scores["harm/a"], by_common)
    assert torch.allclose(scores["harm/b"], torch.stack([(-4 * green[0]).sigmoid(), by_common[1], by_common[2]]))
    assert torch.allclose(scores["harm"], (scores["harm/a"] + scores["harm/b"]) / 2) and torch.equal(
        scores["harm"], harm(batch)
    )
    (slope,) = torch.autograd.grad(scores["harm/b"][0], images)
    p = float((-4 * green[0]).detach().sigmoid())
    assert slope[0, 1].flatten().tolist() == pytest.approx([-4 * p * (1 - p) / 4] * 4) and not slope[0, 0].any()
