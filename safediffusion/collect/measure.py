"""What a rollout's scores look like as metrics, and the stop when one of them is no number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from safediffusion.core.errors import Diverged
from safediffusion.core.prompt import Prompt
from safediffusion.credit.base import pooled_spread, zero_variance_share


def check_finite(scores: Mapping[str, Tensor], prompts: Sequence[Prompt], step: int) -> None:
    """Diverged when a score, of all processes' images, is NaN or infinite: none such must be learned from."""
    for name, value in scores.items():
        bad = (~value.isfinite()).nonzero().flatten().tolist()
        if bad:
            raise Diverged(
                f"step {step}: reward '{name}' is {value[bad[0]].item()} for {len(bad)} of {len(value)} images, first "
                "for "
                f"prompt '{prompts[bad[0]].id}'; no weight was changed. Check the scorer on that prompt, "
                "or lower the learning rate"
            )


def measure(
    scores: Mapping[str, Tensor], prompts: Sequence[Prompt], group: Tensor, *, reward: Tensor
) -> dict[str, float]:
    """Mean of each score, overall and by `label`; its spread inside groups; the share of groups that teach nothing."""
    found: dict[str, float] = {}
    labels = [prompt.tags.get("label") for prompt in prompts]
    rows = {label: [i for i, own in enumerate(labels) if own == label] for label in ("safe", "unsafe")}
    for name, value in scores.items():
        value = value.double()
        found[f"score/{name}"] = float(value.mean())
        found[f"spread/{name.rpartition('/')[2]}"] = pooled_spread(value, group)
        found |= {f"score/{name}/{label}": float(value[index].mean()) for label, index in rows.items() if index}
    found["group/zero_variance"] = zero_variance_share(reward, group)
    return found
