"""The world's CLIPTokenizer: byte-pair merges learned on its own captions."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTokenizer

from ..captions import caption
from ..scenes import draw

MAX_LENGTH = 28
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # as CLIP splits


def text_ids(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """Token ids [N, MAX_LENGTH], cut and padded."""
    ids: Tensor = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
    ).input_ids
    return ids


def fit(
    folder: Path, extra: list[str], *, captions: int = 60_000, vocabulary: int = 1400, seed: int = 5
) -> CLIPTokenizer:
    """A word of the corpus becomes one token; a misspelled one falls apart into pieces, as in the real CLIP."""
    rng = random.Random(seed)
    corpus = [caption(draw(rng), rng) for _ in range(captions)] + extra * 40 + list(string.printable) * 40
    bpe = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    bpe.normalizer = normalizers.Lowercase()
    words = pre_tokenizers.Split(Regex(WORDS), "removed", invert=True)
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([words, pieces])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        min_frequency=2,
    )
    bpe.train_from_iterator(corpus, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    bpe.model.save(str(folder))
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer
