"""The protocols of a scorer. The same object is a reward in training and a metric in evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt


@dataclass(frozen=True, slots=True)
class ImageBatch:
    images: Tensor  # [B, 3, H, W] in [0, 1], float32
    prompts: tuple[Prompt, ...]  # B of them

    def __post_init__(self) -> None:
        assert self.images.ndim == 4 and self.images.shape[1] == 3, (
            f"images are {tuple(self.images.shape)}, not [B, 3, H, W]"
        )
        assert len(self.images) == len(self.prompts), f"{len(self.images)} images, {len(self.prompts)} prompts"


class Scorer(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def higher_is_better(self) -> bool: ...
    @property
    def differentiable(self) -> bool: ...

    def __call__(self, batch: ImageBatch) -> Tensor:
        """[B] float32; NaN where this image cannot be scored."""
        ...


@runtime_checkable
class Tabular(Protocol):
    """A scorer with columns beside its own, which are stored with it."""

    def columns(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Name -> [B], that of the scorer itself among them; NaN where a picture cannot be scored."""
        ...


@runtime_checkable
class Decomposed(Protocol):
    """A scorer made of terms, which are logged apart. `scorer(batch)` equals `combine(terms(batch), batch.prompts)`."""

    def terms(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Name of each term -> [B]; independent of everything that is calibrated."""
        ...

    def combine(self, terms: Mapping[str, Tensor], prompts: Sequence[Prompt]) -> Tensor:
        """[B], the score these terms give."""
        ...


@runtime_checkable
class Calibrated(Decomposed, Protocol):
    """A scorer with numbers that are measured on the first rollout, then frozen and kept in checkpoints."""

    @property
    def ready(self) -> bool:
        """False until `calibrate` or `load_state`."""
        ...

    def relevant(self, prompts: Sequence[Prompt]) -> list[bool]:
        """Which prompts the calibration is measured on."""
        ...

    def calibrate(self, spreads: Mapping[str, float]) -> None:
        """Fix the numbers from each term's standard deviation inside groups."""
        ...

    def state(self) -> dict[str, float]: ...
    def load_state(self, state: Mapping[str, float]) -> None: ...


def tabulated(scorer: Scorer, batch: ImageBatch) -> dict[str, Tensor]:
    """The columns that are stored of a score: its own, and those beside it or its terms as `name/term`."""
    if isinstance(scorer, Tabular):
        return scorer.columns(batch)
    if isinstance(scorer, Decomposed):
        terms = scorer.terms(batch)
        own = {scorer.name: scorer.combine(terms, batch.prompts)}
        return own | {f"{scorer.name}/{term}": value for term, value in terms.items()}
    return {scorer.name: scorer(batch)}


def raw_scores(scorers: Sequence[Scorer], batch: ImageBatch) -> dict[str, Tensor]:
    """One forward of every scorer: `name` -> [B] of a plain one, `name/term` -> [B] for each term of another."""
    found: dict[str, Tensor] = {}
    for scorer in scorers:
        if isinstance(scorer, Decomposed):
            found |= {f"{scorer.name}/{term}": value for term, value in scorer.terms(batch).items()}
        else:
            found[scorer.name] = scorer(batch)
    for name, value in found.items():
        if value.shape != (len(batch.prompts),):
            raise UserError(
                f"scorer '{name}' returned shape {list(value.shape)} for {len(batch.prompts)} images; it must give one "
                "number an image, NaN where there is none"
            )
    return found


def finish_scores(scorers: Sequence[Scorer], raw: Mapping[str, Tensor], prompts: Sequence[Prompt]) -> dict[str, Tensor]:
    """`raw` and, under its own name, the score of every decomposed scorer."""
    scores = dict(raw)
    for scorer in scorers:
        if isinstance(scorer, Decomposed):
            scores[scorer.name] = scorer.combine(terms_of(scorer, raw), prompts)
    return scores


def terms_of(scorer: Scorer, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries `name/term` of one scorer, by term."""
    start = f"{scorer.name}/"
    return {name.removeprefix(start): value for name, value in raw.items() if name.startswith(start)}


def score_all(scorers: Sequence[Scorer], batch: ImageBatch) -> dict[str, Tensor]:
    """Every score and every term of these images; one forward a scorer."""
    return finish_scores(scorers, raw_scores(scorers, batch), batch.prompts)
