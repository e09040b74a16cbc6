"""open_clip as the reward's encoder, on a stand-in with the functions and signatures of open_clip 3.3 that are used.

The package needs torchvision, which is not among this one's; docs/scorers.md says what was run with the real one.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from safediffusion.config.check import check
from safediffusion.config.cost import forecast
from safediffusion.config.load import load_recipe
from safediffusion.config.schema import SteeringConfig
from safediffusion.config.scorers import SharedEncoder, build_scorer
from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.scorers.base import ImageBatch
from safediffusion.scorers.openclip import OpenClipEncoder, preprocessing
from safediffusion.scorers.preprocessing import Preprocessing
from safediffusion.scorers.steering import Steering
from tests import small

NAME = "open_clip:ViT-Small/random"


@dataclass
class Asked:
    """open_clip's PreprocessCfg with its defaults, but the size."""

    size: int | tuple[int, int] = 16
    mode: str = "RGB"
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0


class Model(nn.Module):
    """Two linear towers; embeddings are not normalised, as open_clip's are not by default."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Linear(3 * 16 * 16, 8)
        self.words = nn.Embedding(256, 8)
        self.calls: list[Tensor] = []

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
        out: Tensor = self.visual(image.flatten(1))
        return out

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        self.calls.append(text)
        out: Tensor = self.words(text).mean(1)
        return out


class OpenClip(ModuleType):
    """The module, with notes of how it was called."""

    def __init__(self) -> None:
        super().__init__("open_clip")
        self.made: list[dict[str, Any]] = []

    def list_models(self) -> list[str]:
        return ["ViT-Small", "ViT-Large"]

    def list_pretrained_tags_by_model(self, model: str) -> list[str]:
        return ["random", "quick"] if model == "ViT-Small" else []

    def get_pretrained_cfg(self, model: str, tag: str) -> dict[str, Any]:
        known: dict[str, dict[str, Any]] = {"random": {"url": "there"}, "quick": {"url": "there", "quick_gelu": True}}
        return known.get(tag.lower(), {}) if model == "ViT-Small" else {}

    def create_model(
        self,
        model_name: str,
        pretrained: str | None = None,
        load_weights: bool = True,
        precision: str = "fp32",
        device: str | torch.device = "cpu",
        jit: bool = False,
        force_quick_gelu: bool = False,
        require_pretrained: bool = False,
        weights_only: bool = True,
    ) -> Model:
        assert load_weights and not jit and require_pretrained and weights_only and precision == "fp32"
        if pretrained == "random" and self.offline:
            raise RuntimeError("Failed to download weights for tag 'random'\nand more")
        self.made.append({"model": model_name, "weights": pretrained, "quick": force_quick_gelu})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Model()
        model.visual.preprocess_cfg = asdict(Asked())  # type: ignore[assignment]
        return model.to(device)

    offline = False

    def get_tokenizer(self, model_name: str = "", context_length: int | None = None) -> Any:
        def tokens(texts: str | list[str], context_length: int | None = None) -> Tensor:
            return torch.tensor([list(text.encode().ljust(40)[:40]) for text in texts])

        return tokens

    def get_model_preprocess_cfg(self, model: Model) -> dict[str, Any]:
        found: dict[str, Any] = model.visual.preprocess_cfg  # type: ignore[assignment]
        return found


@pytest.fixture
def open_clip(monkeypatch: pytest.MonkeyPatch) -> OpenClip:
    made = OpenClip()
    monkeypatch.setitem(sys.modules, "open_clip", made)
    return made


def test_rows_are_the_model_s_own_of_length_1(open_clip: OpenClip) -> None:
    encoder = OpenClipEncoder(NAME)
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    asked = Asked()
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (asked.mean, asked.std))
    with torch.no_grad():
        expected = normalize(encoder.model.encode_image((pixels - mean) / std), dim=-1)
        words = normalize(encoder.model.encode_text(open_clip.get_tokenizer()(["a cat", "a dog"])), dim=-1)
    torch.testing.assert_close(encoder.image(pixels), expected)
    torch.testing.assert_close(encoder.text(["a cat", "a dog"]), words)


def test_texts_are_encoded_once_and_alone(open_clip: OpenClip) -> None:
    encoder = OpenClipEncoder(NAME, cache=2)
    first = encoder.text(["a cat", "a dog", "a cat"])
    assert torch.equal(first[0], first[2]) and not first.requires_grad
    assert [tuple(tokens.shape) for tokens in encoder.model.calls] == [(1, 40), (1, 40)]
    encoder.text(["a tree", "a cat"])  # the dog is used longest ago
    encoder.text(["a dog"])
    assert len(encoder.model.calls) == 4


def test_pictures_are_differentiable_and_weights_frozen(open_clip: OpenClip) -> None:
    encoder = OpenClipEncoder(NAME)
    images = torch.rand(1, 3, 20, 31).requires_grad_()
    encoder.image(images)[0, 0].backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None and float(images.grad.abs().sum()) > 0
    assert not any(p.requires_grad for p in encoder.model.parameters())


def test_weights_are_a_tag_or_a_file_and_quick_gelu_goes_with_the_tag(open_clip: OpenClip, tmp_path: Path) -> None:
    (tmp_path / "own.pt").touch()
    for weights in ("random", "quick", str(tmp_path / "own.pt")):
        OpenClipEncoder(f"open_clip:ViT-Small/{weights}")
    assert [made["weights"] for made in open_clip.made] == ["random", "quick", str(tmp_path / "own.pt")]
    assert [made["quick"] for made in open_clip.made] == [False, True, False]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open_clip:ViT-Small", "is not open_clip:MODEL/PRETRAINED; give e.g. open_clip:ViT-H-14/laion2b_s32b_b79k"),
        ("open_clip:/random", "is not open_clip:MODEL/PRETRAINED"),
        ("open_clip:ViT-Smal/random", "no model 'ViT-Smal'; did you mean 'ViT-Small'?"),
        ("open_clip:hf-hub:owner/name", "no model 'hf-hub:owner'"),
        ("open_clip:ViT-Small/randam", "'randam' is no file and none .* did you mean 'random'?"),
        ("open_clip:ViT-Large/nowhere.pt", "'nowhere.pt' is no file and none .* known: none"),
    ],
)
def test_names_it_does_not_know_are_refused(name: str, message: str, open_clip: OpenClip) -> None:
    with pytest.raises(UserError, match=message):
        OpenClipEncoder(name)
    with pytest.raises(UserError, match=message):
        check(load_recipe("emoji-steer", [f"encoder={name}"]))


def test_what_cannot_be_downloaded_is_said_in_one_line(open_clip: OpenClip) -> None:
    open_clip.offline = True
    with pytest.raises(UserError, match="Failed to download weights for tag 'random'\\); give a file") as caught:
        OpenClipEncoder(NAME)
    assert "\n" not in str(caught.value)


def test_pictures_are_resized_as_the_model_says() -> None:
    means = {"mean": Asked.mean, "std": Asked.std, "halves": "even"}
    for asked, expected in (
        (Asked(), Preprocessing(shortest=16, exact=None, crop=(16, 16), **means)),  # type: ignore[arg-type]
        (Asked(size=(16, 16)), Preprocessing(shortest=16, exact=None, crop=(16, 16), **means)),  # type: ignore[arg-type]
        (
            Asked(size=(16, 24), resize_mode="squash", interpolation="bilinear"),
            Preprocessing(shortest=None, exact=(16, 24), crop=None, mode="bilinear", **means),  # type: ignore[arg-type]
        ),
    ):
        assert preprocessing(NAME, asdict(asked)) == expected
    for odd in (Asked(resize_mode="longest"), Asked(size=(16, 24)), Asked(interpolation="random")):
        with pytest.raises(UserError, match="which is not supported; use a model with 'squash'"):
            preprocessing(NAME, asdict(odd))


@pytest.mark.parametrize("error", [ImportError("No module named 'open_clip'"), RuntimeError("torchvision::nms")])
def test_without_the_package_the_extra_is_named(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr("safediffusion.scorers.openclip.importlib.import_module", missing)
    for attempt in (
        lambda: OpenClipEncoder(NAME),
        lambda: check(load_recipe("emoji-steer", [f"encoder={NAME}"])),
        lambda: SharedEncoder(NAME, "cpu")(),
    ):
        with pytest.raises(UserError) as caught:
            attempt()
        assert str(caught.value).endswith('pip install "safediffusion[open-clip]"') and str(error) in str(caught.value)


def test_a_recipe_s_clip_and_steering_look_through_it(open_clip: OpenClip) -> None:
    recipe = load_recipe("emoji-steer", [f"encoder={NAME}"])
    check(recipe)
    shared = SharedEncoder(recipe.encoder, "cpu")
    settings = SteeringConfig(anchors="compact", alpha=1.0, gate="all")
    steering, clip = (build_scorer(name, settings, shared) for name in ("steering", "clip"))
    assert isinstance(steering, Steering) and isinstance(steering.encoder, OpenClipEncoder)
    assert len(open_clip.made) == 1  # one for both
    batch = ImageBatch(torch.rand(2, 3, 16, 16), (Prompt(id="a", text="a cat"), Prompt(id="b", text="a dog")))
    for scorer in (steering, clip):
        assert scorer(batch).shape == (2,) and bool(scorer(batch).isfinite().all())


def test_a_forecast_says_that_it_is_not_counted(folders: small.Folders) -> None:
    plain = forecast(load_recipe("emoji-steer", folders.small))
    told = forecast(load_recipe("emoji-steer", [*folders.small, f"encoder={NAME}", "scorers.imagereward=1"]))
    assert told.unmeasured == (f"the encoder {NAME}", "the network of scorer imagereward")
    assert f"not counted      the encoder {NAME}" in told.lines()
    assert not plain.unmeasured and told.memory.weights < plain.memory.weights
