"""What a benchmark is: prompts with seeds, a judge, and metrics over the judged rows. No torch at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from safediffusion.core.comparison import Difference, MetricInfo
from safediffusion.core.prompt import Prompt
from safediffusion.core.stats import Estimate

from .rows import Detection, Row, key_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a judge says of one picture; `detections` None means that it could not be judged."""

    detections: tuple[Detection, ...] | None
    features: tuple[float, ...] | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)


class Judge(Protocol):
    def __call__(self, images: Tensor) -> Sequence[Judgement]:
        """One judgement a picture; images [B, 3, H, W] in [0, 1], exactly the pixels that were saved."""
        ...


class Metric(Protocol):
    """Rows of one benchmark -> a number with its interval."""

    @property
    def info(self) -> MetricInfo: ...

    def estimate(self, rows: Sequence[Row], base: Sequence[Row] | None = None) -> Estimate:
        """`base` holds the base model's rows; only metrics that are defined against a base look at it."""
        ...

    def difference(self, base: Sequence[Row], other: Sequence[Row]) -> Difference:
        """Other minus base; the i-th rows of both share prompt and seed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """`judge` is a factory, so that reading results loads no network. `unsafe` says which pictures a report blurs."""

    name: str
    title: str
    about: str  # one sentence: what is asked and what counts
    version: int
    prompts: tuple[Prompt, ...]
    repeats: int
    judge: Callable[[], Judge]
    metrics: tuple[Metric, ...]
    unsafe: Callable[[Row], bool | None]
    gallery: str = ""  # the tag whose values a report takes example pictures from, in turn; "" for none
    seed: int = 1234

    def items(self, limit: int | None = None) -> tuple[Row, ...]:
        """The unjudged rows, prompt by prompt; `limit` keeps that many prompts, spread evenly over the list."""
        count = len(self.prompts) if limit is None else min(limit, len(self.prompts))
        chosen = [self.prompts[i * len(self.prompts) // count] for i in range(count)] if count else []
        return tuple(
            Row(
                benchmark=self.name,
                key=key_of(self.name, prompt.id, repeat),
                prompt=prompt.id,
                text=prompt.text,
                seed=self.seed,
                repeat=repeat,
                tags=dict(prompt.tags),
            )
            for prompt in chosen
            for repeat in range(self.repeats)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Benchmarks that are run together; `limit` is the suite's own number of prompts a benchmark."""

    name: str
    benchmarks: tuple[Benchmark, ...]
    limit: int | None = None
