"""P(unsafe) of a picture from its projections on safety directions, by a logistic fit on labelled pictures.

Notation:
    z(x), v    unit embedding of the picture, a direction towards safe (scorers.steering)      s = z(x).v
    P          1 / (1 + exp(A s + B)): Platt's probabilities (1999), fitted by Newton's method to the targets
               (N+ + 1) / (N+ + 2) for unsafe and 1 / (N- + 2) for safe pictures, as in Lin, Lin and Weng (2007)

P is meant for pictures like those of the fit, of which N+ / (N+ + N-) are unsafe; it is differentiable in the picture,
and as easily fooled by an optimiser as the encoder is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.scorers.base import ImageBatch
from safediffusion.scorers.clip import Encoder

COMMON = ""  # stands for the direction of prompts without one of their own


class Fitted(NamedTuple):
    """A direction and how its projection becomes a probability."""

    direction: Tensor  # [D], unit
    slope: float  # -A
    bias: float  # -B
    safe: float  # mean P of the safe pictures it was fitted on: what no budget can be below

    def __call__(self, z: Tensor) -> Tensor:
        """[B] of embeddings z [B, D]."""
        return (self.slope * (z @ self.direction.to(z.device)) + self.bias).sigmoid()


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """The mean of an ensemble, whose members are its terms. A member has a fitted direction by category and `COMMON`.

    A prompt's picture is judged along the direction of its tag `category`, where the member has that one.
    """

    encoder: Encoder
    members: Mapping[str, Mapping[str, Fitted]]
    name: str = "harm"
    higher_is_better: bool = False
    differentiable: bool = True

    def __call__(self, batch: ImageBatch) -> Tensor:
        return self.combine(self.terms(batch), batch.prompts)

    def terms(self, batch: ImageBatch) -> dict[str, Tensor]:
        z = self.encoder.image(batch.images)
        return {name: _by_category(z, batch.prompts, fitted) for name, fitted in self.members.items()}

    def on_safe(self, category: str) -> tuple[float, ...]:
        """Mean P of the safe labelled pictures by each member, along the category's direction where it has that."""
        return tuple(fitted.get(category, fitted[COMMON]).safe for fitted in self.members.values())

    def combine(self, terms: Mapping[str, Tensor], prompts: Sequence[Prompt]) -> Tensor:
        return torch.stack(list(terms.values())).mean(0)


def _by_category(z: Tensor, prompts: Sequence[Prompt], fitted: Mapping[str, Fitted]) -> Tensor:
    """[B]"""
    which = [name if (name := prompt.tags.get("category", COMMON)) in fitted else COMMON for prompt in prompts]
    every = {name: fitted[name](z) for name in dict.fromkeys(which)}
    return torch.stack([every[name][row] for row, name in enumerate(which)])


def fit(direction: Tensor, z: Tensor, unsafe: Tensor) -> Fitted:
    """Platt's fit for `direction` [D] on embeddings z [N, D], of which `unsafe` [N] says which are; on the CPU.

    UserError where there are not both kinds, or all projections are the same.
    """
    s = z.double().cpu() @ direction.double().cpu()
    positive = int(unsafe.sum())
    negative = len(unsafe) - positive
    if not positive or not negative or float(s.std(correction=0)) == 0:
        raise UserError(
            f"P(unsafe) cannot be fitted: there are {positive} unsafe and {negative} safe pictures, and both kinds, "
            "not all alike, are needed; give other labelled pictures in constraint.pictures"
        )
    mean, std = s.mean(), s.std(correction=0)
    x = torch.stack([(s - mean) / std, torch.ones_like(s)], 1)  # [N, 2]
    target = torch.where(unsafe, (positive + 1) / (positive + 2), 1 / (negative + 2)).double()
    slope, bias = _newton(x, target).tolist()
    found = Fitted(direction, slope / float(std), bias - slope * float(mean / std), safe=0.0)
    return found._replace(safe=float(found(z[~unsafe]).mean()))


def _newton(x: Tensor, target: Tensor) -> Tensor:
    """[2] that minimises the mean cross-entropy of sigmoid(x w) and target, with steps halved until it falls."""
    w = torch.zeros(2, dtype=torch.float64)

    def loss(w: Tensor) -> float:
        return float(torch.nn.functional.binary_cross_entropy_with_logits(x @ w, target))

    for _ in range(100):
        p = (x @ w).sigmoid()
        gradient = x.T @ (p - target) / len(x)
        if float(gradient.norm()) < 1e-10:
            break
        hessian = x.T @ (x * (p * (1 - p))[:, None]) / len(x) + 1e-12 * torch.eye(2, dtype=torch.float64)
        step, length = torch.linalg.solve(hessian, gradient), 1.0
        while loss(w - length * step) > loss(w) and length > 1e-6:
            length /= 2
        w = w - length * step
    return w
