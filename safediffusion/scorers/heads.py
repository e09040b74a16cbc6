"""The heads of LAION's aesthetic predictor and of ImageReward: five linear layers with only dropout between them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from safediffusion.core.errors import UserError

LAYERS = (0, 2, 4, 6, 7)  # the numbers of the linear layers; between them it has only dropout


def linear_head(weights: Mapping[str, Tensor], *, of: str) -> tuple[Tensor, Tensor]:
    """[D] and [], weight and bias of the one linear map that such layers in a row are. `of`: whose they should be.

    `weights`: layers.0.weight [1024, D], layers.0.bias [1024], ... layers.7.bias [1], and nothing else.
    """
    wanted = {f"layers.{n}.{kind}" for n in LAYERS for kind in ("weight", "bias")}
    odd = sorted(wanted ^ weights.keys())
    if odd:
        state = "missing" if odd[0] in wanted else "unknown"
        raise UserError(f"these are no weights of {of}: '{odd[0]}' is {state}; give its file")
    own = {name: value.double() for name, value in weights.items()}
    weight, bias = own["layers.0.weight"], own["layers.0.bias"]
    try:
        for n in LAYERS[1:]:
            weight, bias = (own[f"layers.{n}.weight"] @ each for each in (weight, bias))
            bias = bias + own[f"layers.{n}.bias"]
    except RuntimeError as error:
        raise UserError(f"these are no weights of {of}: layers do not fit one another; give its file") from error
    return weight[0].float(), bias[0].float()
