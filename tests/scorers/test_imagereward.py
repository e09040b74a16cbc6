"""ImageReward on small random weights, under the names its own weights are published with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, BlipTextConfig, BlipVisionConfig

from safediffusion.config.schema import SteeringConfig
from safediffusion.config.scorers import SharedEncoder, build_scorer
from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.scorers.base import ImageBatch
from safediffusion.scorers.contract import check_scorer
from safediffusion.scorers.imagereward import TEXT, VISION, Blip, ImageReward, from_blip
from tests import tiny

WIDTH = 24
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *tiny.WORDS)
SMALL_VISION = BlipVisionConfig(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=32,
    patch_size=8,
    layer_norm_eps=1e-6,
)
SMALL_TEXT = BlipTextConfig(
    vocab_size=len(VOCABULARY),
    hidden_size=WIDTH,
    encoder_hidden_size=16,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=3,
    max_position_embeddings=40,
    bos_token_id=2,
    sep_token_id=3,
)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    return folder


def networks() -> tuple[Blip, nn.Sequential]:
    """A random BLIP and a random head as ImageReward has them, smaller; every tensor matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blip = Blip(SMALL_VISION, SMALL_TEXT)
        sizes = (WIDTH, 20, 12, 8, 6, 1)
        layers: list[nn.Module] = [nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
        for place in (1, 3, 5):
            layers.insert(place, nn.Dropout(0.2))
        head = nn.Sequential(*layers)
        with torch.no_grad():
            for parameter in blip.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    blip.train(False)
    head.train(False)
    return blip, head


def published(blip: Blip, head: nn.Sequential) -> dict[str, Tensor]:
    """Their tensors under the published names, written down from its source: the reverse of what is tested."""
    vision, text = blip.visual_encoder.state_dict(), blip.text_encoder.state_dict()
    start = "blip.visual_encoder."
    out = {f"blip.text_encoder.{name}": value for name, value in text.items()}
    out |= {f"mlp.layers.{name}": value for name, value in head.state_dict().items()}
    out[f"{start}cls_token"] = vision["embeddings.class_embedding"]
    out[f"{start}pos_embed"] = vision["embeddings.position_embedding"]
    for kind in ("weight", "bias"):
        out[f"{start}patch_embed.proj.{kind}"] = vision[f"embeddings.patch_embedding.{kind}"]
        out[f"{start}norm.{kind}"] = vision[f"post_layernorm.{kind}"]
        for n in range(2):
            block, layer = f"{start}blocks.{n}", f"encoder.layers.{n}"
            out[f"{block}.norm1.{kind}"] = vision[f"{layer}.layer_norm1.{kind}"]
            out[f"{block}.norm2.{kind}"] = vision[f"{layer}.layer_norm2.{kind}"]
            out[f"{block}.attn.qkv.{kind}"] = vision[f"{layer}.self_attn.qkv.{kind}"]
            out[f"{block}.attn.proj.{kind}"] = vision[f"{layer}.self_attn.projection.{kind}"]
            out[f"{block}.mlp.fc1.{kind}"] = vision[f"{layer}.mlp.fc1.{kind}"]
            out[f"{block}.mlp.fc2.{kind}"] = vision[f"{layer}.mlp.fc2.{kind}"]
        out[f"blip.vision_proj.{kind}"] = out[f"blip.text_proj.{kind}"] = torch.zeros(2)
    out["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    return out


def small(words: Path, weights: dict[str, Tensor] | None = None) -> ImageReward:
    return ImageReward(weights or published(*networks()), words=words, vision=SMALL_VISION, text=SMALL_TEXT)


def pictures() -> ImageBatch:
    texts = ("a cat", "a red heart on the left of two dogs", "")
    images = torch.rand(3, 3, 40, 52, generator=torch.Generator().manual_seed(0))
    return ImageBatch(images, tuple(Prompt(id=str(i), text=text) for i, text in enumerate(texts)))


def test_a_score_is_the_standardised_head_of_the_first_token(words: Path) -> None:
    (blip, head), scorer, batch = networks(), small(words), pictures()
    texts = [prompt.text for prompt in batch.prompts]
    tokens = AutoTokenizer.from_pretrained(words)(texts, padding="max_length", max_length=35, return_tensors="pt")
    assert tokens.input_ids.shape == (3, 35) and tokens.input_ids[:, 0].tolist() == [2, 2, 2]
    with torch.no_grad():
        seen = blip.visual_encoder(scorer._prepare(batch.images)).last_hidden_state
        said = blip.text_encoder(
            tokens.input_ids, attention_mask=tokens.attention_mask, encoder_hidden_states=seen, is_decoder=False
        )
        raw = head(said.last_hidden_state[:, 0])[:, 0]
    expected = (raw - 0.16717362830052426) / 1.0333394966054072
    torch.testing.assert_close(scorer(batch), expected, atol=1e-5, rtol=1e-5)
    assert float(expected.std()) > 1e-3


def test_every_tensor_finds_its_place(words: Path) -> None:
    state = published(*networks())
    own = networks()[0].state_dict()
    converted = from_blip({name: value for name, value in state.items() if not name.startswith("mlp.")})
    assert converted.keys() == own.keys() and all(torch.equal(converted[name], own[name]) for name in own)
    for name in state:
        if "proj" in name.split(".")[1] or "position_ids" in name:
            continue
        with pytest.raises(UserError, match="is missing"):
            small(words, {other: value for other, value in state.items() if other != name})
    for odd in ("blip.visual_encoder.more", "head.weight", "mlp.layers.9.weight"):
        with pytest.raises(UserError, match="unknown"):
            small(words, state | {odd: torch.zeros(1)})
    for odd in ("blip.visual_encoder.pos_embed", "blip.text_encoder.embeddings.word_embeddings.weight"):
        with pytest.raises(UserError, match="of another shape"):
            small(words, state | {odd: state[odd][:, :-1]})
    with pytest.raises(UserError, match="layers do not fit one another"):
        small(words, state | {"mlp.layers.4.weight": torch.zeros(3, 3)})


def test_a_batch_is_scored_as_its_pictures_are_alone(words: Path) -> None:
    scorer, batch = small(words), pictures()
    alone = [scorer(ImageBatch(batch.images[i : i + 1], batch.prompts[i : i + 1])) for i in range(3)]
    torch.testing.assert_close(scorer(batch), torch.cat(alone), atol=1e-5, rtol=1e-5)
    other = scorer(ImageBatch(batch.images, batch.prompts[::-1]))
    assert float((other - scorer(batch)).abs()[0]) > 1e-4  # prompts matter


def test_a_prompt_is_read_up_to_35_tokens(words: Path) -> None:
    scorer, image = small(words), pictures().images[:1]
    first = " ".join(["cat"] * 33)  # and [CLS] and [SEP]
    scores = [float(scorer(ImageBatch(image, (Prompt(id="a", text=text),)))) for text in (first, f"{first} knife")]
    assert scores[0] == scores[1]
    assert scores[0] != float(scorer(ImageBatch(image, (Prompt(id="a", text=first[4:]),))))


def test_the_gradient_reaches_the_pixels_and_no_weight(words: Path) -> None:
    scorer, batch = small(words), pictures()
    images = batch.images.clone().requires_grad_()
    scorer(ImageBatch(images, batch.prompts)).sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert all(float(each.abs().sum()) > 0 for each in images.grad)
    assert not any(p.requires_grad for p in scorer.blip.parameters())
    assert [outcome for outcome in check_scorer(scorer) if not outcome.ok] == []


def test_a_recipe_s_name_and_source_lead_to_it(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(published(*networks()), tmp_path / "ImageReward.pt")
    defaults = {"device": "cpu", "words": words, "vision": SMALL_VISION, "text": SMALL_TEXT}
    monkeypatch.setattr(ImageReward.__init__, "__kwdefaults__", defaults)
    shared = SharedEncoder("never-loaded", "cpu")
    made = build_scorer("imagereward", SteeringConfig(), shared, source=str(tmp_path / "ImageReward.pt"))
    assert torch.equal(made(pictures()), small(words)(pictures()))


def test_a_tokenizer_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ImageReward's tokenizer '.*' cannot be loaded") as caught:
        ImageReward({}, words=tmp_path)
    assert "\n" not in str(caught.value)


def test_the_published_sizes() -> None:
    """ViT-L/16 at 224 pixels and BERT-base with cross-attention: 443 million weights."""
    with torch.device("meta"):
        count = sum(p.numel() for p in Blip(VISION, TEXT).parameters())
    vision = 24 * (12 * 1024**2 + 13 * 1024) + 1024 * (3 * 16**2 + 1) + 1024 * (1 + 197) + 2 * 1024
    crossed = 2 * (768**2 + 768) + 2 * (1024 * 768 + 768) + 2 * 768
    text = 12 * (12 * 768**2 + 13 * 768 + crossed) + 768 * (30524 + 512) + 2 * 768
    assert count == vision + text
