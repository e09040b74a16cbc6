"""The steering reward against vectors worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.scorers.anchors import Anchors
from safediffusion.scorers.base import Calibrated, Decomposed, ImageBatch, score_all
from safediffusion.scorers.steering import NearestAnchor, Steering, direction

TEXTS = {
    "safe": (0.0, 1.0, 0.0),
    "calm": (0.0, 0.6, 0.8),
    "unsafe": (0.0, -1.0, 0.0),
    "gore": (0.6, -0.8, 0.0),
    "cat": (1.0, 0.0, 0.0),
    "cat with a gun": (0.6, -0.8, 0.0),
    "unsafe hate": (0.0, 0.0, -1.0),
}


class Table:
    """Texts by table; a picture's embedding is its mean colour, normalized."""

    def text(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([TEXTS[text] for text in texts])

    def image(self, images: Tensor) -> Tensor:
        return normalize(images.mean((2, 3)), dim=-1)


def picture(*colour: float) -> Tensor:
    return torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 2, 2)


def prompt(text: str, **tags: str) -> Prompt:
    return Prompt(id=text, text=text, tags=tags)


ANCHORS = Anchors(safe=("safe",), unsafe=("unsafe",))  # v = (0, 1, 0)
CAT, GUN = prompt("cat", label="safe"), prompt("cat with a gun", label="unsafe")
IMAGES = torch.cat([picture(0.6, 0.8, 0.0), picture(1.0, 0.0, 0.0)])  # unit already


def test_direction_by_hand() -> None:
    assert direction(Table(), ANCHORS).tolist() == [0, 1, 0]
    # ((0,1,0) + (0,.6,.8)) / 2 - ((0,-1,0) + (.6,-.8,0)) / 2 = (-.3, 1.7, .4)
    found = direction(Table(), Anchors(safe=("safe", "calm"), unsafe=("unsafe", "gore")))
    length = math.sqrt(0.09 + 2.89 + 0.16)
    assert found.tolist() == pytest.approx([-0.3 / length, 1.7 / length, 0.4 / length])
    # no safe anchors: away from the mean unsafe one, (.3, -.9, 0)
    assert direction(Table(), Anchors(unsafe=("unsafe", "gore"))).tolist() == pytest.approx(
        [-0.3 / math.sqrt(0.9), 0.9 / math.sqrt(0.9), 0.0]
    )


def test_translation_by_hand() -> None:
    found = Steering(Table(), ANCHORS, alpha=0.5, gate="all")(ImageBatch(IMAGES, (CAT, GUN)))
    # cat: target (1, .5, 0) / sqrt(1.25); picture (.6, .8, 0): (.6 + .4) / sqrt(1.25)
    # gun: target (.6, -.3, 0) / sqrt(.45); picture (1, 0, 0): .6 / sqrt(.45)
    assert found.tolist() == pytest.approx([1.0 / math.sqrt(1.25), 0.6 / math.sqrt(0.45)], rel=1e-6)


def test_projection_by_hand() -> None:
    found = Steering(Table(), ANCHORS, alpha=0.5, mode="projection", gate="all")(ImageBatch(IMAGES, (CAT, GUN)))
    # cat has no safety component: as translation. gun: (.6, 0, 0) + (0, .5, 0) = (.6, .5, 0) / sqrt(.61)
    assert found.tolist() == pytest.approx([1.0 / math.sqrt(1.25), 0.6 / math.sqrt(0.61)], rel=1e-6)


def test_gate_labelled_steers_unsafe_prompts_only() -> None:
    both = ImageBatch(IMAGES[:1].expand(2, -1, -1, -1), (CAT, GUN))
    gated = Steering(Table(), ANCHORS, alpha=0.5, gate="labelled")(both)
    every = Steering(Table(), ANCHORS, alpha=0.5, gate="all")(both)
    assert gated[0].item() == pytest.approx(0.6)  # plain alignment of (.6, .8, 0) with (1, 0, 0)
    assert gated[1].item() == every[1].item() and gated[0].item() != every[0].item()


@pytest.mark.parametrize("tags", [{}, {"label": "Unsafe"}])
def test_gate_labelled_refuses_a_prompt_without_a_label(tags: dict[str, str]) -> None:
    scorer = Steering(Table(), ANCHORS, alpha=0.5)
    with pytest.raises(UserError, match="prompt 'cat' is not. Tag it"):
        scorer(ImageBatch(IMAGES[:1], (prompt("cat", **tags),)))


def test_gate_classifier_is_any_function_of_the_text() -> None:
    scorer = Steering(Table(), ANCHORS, alpha=0.5, gate=lambda text: "gun" in text)
    assert scorer.relevant((prompt("cat"), prompt("cat with a gun"))) == [False, True]
    nearest = Steering(Table(), ANCHORS, alpha=0.5, gate="classifier")
    assert nearest.relevant((prompt("calm"), prompt("cat with a gun"))) == [False, True]
    with pytest.raises(UserError, match="this set has no safe ones"):
        NearestAnchor(Table(), Anchors(unsafe=("unsafe",)))


def test_per_category_uses_the_category_of_the_prompt() -> None:
    anchors = Anchors(safe=("safe",), unsafe=("unsafe",), per_category={"hate": Anchors(unsafe=("unsafe hate",))})
    scorer = Steering(Table(), anchors, alpha=1.0, gate="all", per_category=True)
    hateful, other = prompt("cat", category="hate"), prompt("cat")
    image = picture(0.0, 0.6, 0.8)
    terms = scorer.terms(ImageBatch(image.expand(2, -1, -1, -1), (hateful, other)))
    assert terms["safety"].tolist() == pytest.approx([0.8, 0.6])  # along (0,0,1), along (0,1,0)
    with pytest.raises(UserError, match=r"category 'spam', for which there are no anchors; there are \['hate'\]"):
        scorer.terms(ImageBatch(image, (prompt("cat", category="spam"),)))
    with pytest.raises(UserError, match="per_category is on"):
        Steering(Table(), ANCHORS, per_category=True)


@pytest.mark.parametrize("mode", ["translation", "projection"])
def test_the_reward_is_the_cosine_with_the_target(mode: str) -> None:
    """The closed form in terms of alignment and safety, against the definition, on random vectors."""
    g = torch.Generator().manual_seed(0)
    image, z, v = (normalize(torch.randn(50, 5, generator=g), dim=-1) for _ in range(3))

    class Fixed:
        def text(self, texts: Sequence[str]) -> Tensor:
            return torch.stack([v[0] if t == "up" else -v[0] if t == "down" else z[int(t)] for t in texts])

        def image(self, images: Tensor) -> Tensor:
            return image

    scorer = Steering(Fixed(), Anchors(safe=("up",), unsafe=("down",)), alpha=1.7, mode=mode, gate="all")  # type: ignore[arg-type]
    found = scorer(ImageBatch(torch.zeros(50, 3, 1, 1), tuple(prompt(str(i)) for i in range(50))))
    base = z if mode == "translation" else z - (z @ v[0])[:, None] * v[0]
    expected = (image * normalize(base + 1.7 * v[0], dim=-1)).sum(-1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_alpha_auto_is_measured_once_then_kept() -> None:
    scorer = Steering(Table(), ANCHORS, alpha="auto", ratio=2.0)
    assert isinstance(scorer, Calibrated) and not scorer.ready and scorer.state() == {}
    with pytest.raises(UserError, match="alpha is 'auto' and has not been measured"):
        scorer(ImageBatch(IMAGES, (CAT, GUN)))
    scorer.calibrate({"alignment": 0.3, "safety": 0.05})
    assert scorer.alpha == pytest.approx(2.0 * 0.3 / 0.05)  # so that alpha * 0.05 = 2 * 0.3
    other = Steering(Table(), ANCHORS, alpha="auto")
    other.load_state(scorer.state())
    assert other.ready and other.alpha == scorer.alpha
    with pytest.raises(UserError, match="all pictures are equally safe"):
        Steering(Table(), ANCHORS).calibrate({"alignment": 0.3, "safety": 0.0})


def test_scores_hold_the_terms_and_the_gradient() -> None:
    images = IMAGES.clone().requires_grad_()
    scorer = Steering(Table(), ANCHORS, alpha=0.5)
    assert isinstance(scorer, Decomposed)
    scores = score_all((scorer,), ImageBatch(images, (CAT, GUN)))
    assert set(scores) == {"steering", "steering/alignment", "steering/safety"}
    assert scores["steering/alignment"].tolist() == pytest.approx([0.6, 0.6])
    assert scores["steering/safety"].tolist() == pytest.approx([0.8, 0.0])
    scores["steering"].sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None and float(images.grad.abs().sum()) > 0


def test_anchors_that_cancel_are_refused() -> None:
    with pytest.raises(UserError, match="no direction between them"):
        direction(Table(), Anchors(safe=("safe",), unsafe=("safe",)))
