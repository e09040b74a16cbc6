"""Embeddings on disk are those that encoding gives, bit by bit, within their bound, whoever else is at work there."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import time
import weakref
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from safediffusion.core.errors import UserError
from safediffusion.core.prompt import Prompt
from safediffusion.models.embeddings import Embeddings, cache_folder
from safediffusion.models.flux import FluxBackbone
from safediffusion.models.parts import PipelineBackbone
from safediffusion.models.policy import Drawing, Saving
from safediffusion.models.sd1 import Sd1Backbone
from safediffusion.models.sd3 import Sd3Backbone
from safediffusion.models.sdxl import SdxlBackbone
from tests import families, tiny

MADE: dict[str, tuple[type[PipelineBackbone], Any]] = {
    "sd1": (Sd1Backbone, tiny.pipeline),
    "sdxl": (SdxlBackbone, families.sdxl),
    "sd3": (Sd3Backbone, families.sd3),
    "sd3-no-t5": (Sd3Backbone, lambda: families.sd3(t5=False)),
    "flux": (FluxBackbone, families.flux),
}
GIB = 2**30


def backbone(family: str, pipe: Any = None, *, dtype: torch.dtype = torch.float32, saving: Saving) -> PipelineBackbone:
    kind, pipeline = MADE[family]
    made: Any = kind
    found: PipelineBackbone = made(pipe or pipeline(), dtype=dtype, drawing=Drawing(size=(16, 16)), saving=saving)
    return found


def kept(folder: Path, *, free: bool = False, gib: float = 1.0) -> Saving:
    return Saving(text_encoders="free" if free else "keep", embeddings=str(folder), embeddings_gib=gib)


def encoders(backbone: PipelineBackbone) -> list[nn.Module]:
    names = ("text_encoder", "text_encoder_2", "text_encoder_3")
    return [part for name in names if (part := getattr(backbone.pipe, name, None)) is not None]


def counted(backbone: PipelineBackbone) -> list[int]:
    """Grows at every call of a text encoder."""
    calls: list[int] = []
    for part in encoders(backbone):
        part.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def asked(backbone: PipelineBackbone, *texts: str) -> dict[str, Tensor]:
    return backbone.encode([Prompt(id=text, text=text) for text in texts]).tensors


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", MADE)
def test_a_later_run_reads_what_an_earlier_one_encoded(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    plain, first, later = (
        backbone(family, dtype=dtype, saving=saving) for saving in (Saving(), kept(tmp_path), kept(tmp_path))
    )
    wanted = asked(plain, "a cat", "a knife and blood", "a cat")
    assert same(asked(first, "a cat", "a knife and blood", "a cat"), wanted)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2 and len(list(tmp_path.iterdir())) == 2
    calls = counted(later)
    assert same(asked(later, "a cat", "a knife and blood", "a cat"), wanted) and not calls
    asked(later, "a dog")
    assert len(calls) == len(encoders(later))


@pytest.mark.parametrize("family", MADE)
def test_what_changes_embeddings_changes_their_name(family: str, tmp_path: Path) -> None:
    def files(made: PipelineBackbone) -> int:
        asked(made, "a cat")
        return len(list(tmp_path.iterdir()))

    made = backbone(family, saving=kept(tmp_path))
    assert files(made) == 1
    moved = MADE[family][1]()
    with torch.no_grad():  # as a LoRA that is merged into the last of the text encoders does
        last = encoders(backbone(family, moved, saving=Saving()))[-1]
        next(iter(last.parameters()))[0, 0] += 1e-3
    assert files(backbone(family, moved, saving=kept(tmp_path))) == 2
    assert files(backbone(family, dtype=torch.bfloat16, saving=kept(tmp_path))) == 3
    stored = backbone(family, MADE[family][1]().to(torch.bfloat16), dtype=torch.bfloat16, saving=kept(tmp_path))
    assert files(stored) == 4
    shorter = MADE[family][1]()
    for name in ("tokenizer", "tokenizer_2"):
        if getattr(shorter, name, None) is not None:
            getattr(shorter, name).model_max_length = tiny.MAX_LENGTH // 2
    assert files(backbone(family, shorter, saving=kept(tmp_path))) == 5
    configured = MADE[family][1]()
    configured.text_encoder.config.hidden_act = "gelu"
    assert files(backbone(family, configured, saving=kept(tmp_path))) == 6
    again = backbone(family, saving=kept(tmp_path))
    again.pipe.text_encoder.config._name_or_path = "elsewhere"  # the same files in another place
    assert files(again) == 6


def test_without_t5_stable_diffusion_3_has_other_embeddings(tmp_path: Path) -> None:
    for family in ("sd3", "sd3-no-t5"):
        asked(backbone(family, saving=kept(tmp_path)), "a cat")
    assert len(list(tmp_path.iterdir())) == 2


def damaged(path: Path, how: str) -> None:
    whole = path.read_bytes()
    flipped = bytes([*whole[:-5], whole[-5] ^ 1, *whole[-4:]])
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "flipped": flipped, "other": b"x" * 99}[how])


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "other"])
def test_a_damaged_file_is_encoded_anew(how: str, tmp_path: Path) -> None:
    wanted = asked(backbone("sd1", saving=kept(tmp_path)), "a cat")
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    damaged(file, how)
    again = backbone("sd1", saving=kept(tmp_path))
    calls = counted(again)
    assert same(asked(again, "a cat"), wanted) and len(calls) == 1
    assert file.read_bytes() == whole


def test_what_was_not_used_for_longest_makes_room_and_nothing_else_is_touched(tmp_path: Path) -> None:
    others = ["model.safetensors", f"{'0' * 63}.safetensors", f"{'0' * 64}.bin", ".mine.partial"]
    abandoned, unfinished = tmp_path / f".{'a' * 32}.partial", tmp_path / f".{'b' * 32}.partial"
    for path in (*(tmp_path / name for name in others), abandoned, unfinished):
        path.write_bytes(bytes(4000))
    os.utime(abandoned, (time.time() - 7200,) * 2)
    a, b, c = (digit * 64 for digit in "abc")
    tensors = {"text": torch.arange(1000.0)}
    store = Embeddings(tmp_path, gib=9000 / GIB)  # two files of 4 kB and a header
    store.write(a, tensors)
    store.write(b, tensors)
    assert store.read(a) is not None  # so b was used before it
    store.write(c, tensors)
    assert [store.read(key) is not None for key in (a, b, c)] == [True, False, True]
    assert all((tmp_path / name).exists() for name in others)
    assert unfinished.exists() and not abandoned.exists()
    Embeddings(tmp_path, gib=0).write(b, tensors)
    assert [store.read(key) is not None for key in (a, b, c)] == [False, True, False]


def test_every_value_comes_back(tmp_path: Path) -> None:
    store = Embeddings(tmp_path, gib=1)
    odd = {"text": torch.tensor([[0.0, -0.0, float("inf"), 1e-45]]), "half": torch.randn(3).bfloat16()}
    store.write("0" * 64, odd)
    found = store.read("0" * 64)
    assert found is not None and found.keys() == odd.keys()
    assert all(torch.equal(found[n].view(torch.uint8), odd[n].view(torch.uint8)) for n in odd)
    assert store.read("1" * 64) is None


def work(folder: Path, seed: int) -> int:
    """Asks for one of 12 texts at a time and writes those that are not there; returns how often one was."""
    store, chance, right = Embeddings(folder, gib=6 * 4200 / GIB), random.Random(seed), 0
    for _ in range(300):
        number = chance.randrange(12)
        found = store.read(f"{number:064x}")
        if found is None:
            store.write(f"{number:064x}", {"text": torch.full((1000,), float(number))})
        else:
            assert found["text"].tolist() == [number] * 1000
            right += 1
    return right


def test_processes_write_read_and_make_room_at_once(tmp_path: Path) -> None:
    """In a folder that holds half of what they ask for."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tiny"])
    with ProcessPoolExecutor(3, mp_context=context) as pool:
        assert min(pool.map(work, [tmp_path] * 3, range(3))) > 0
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 6 * 4200
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("family", MADE)
def test_freed_encoders_are_gone_and_what_they_said_is_not(family: str, tmp_path: Path) -> None:
    plain, freed = (backbone(family, saving=saving) for saving in (Saving(), kept(tmp_path, free=True)))
    calls, gone = counted(freed), [weakref.ref(part) for part in encoders(freed)]
    each = len(gone)
    freed.prepare(["a cat", "a knife and blood", "a cat", ""])
    gc.collect()
    assert len(calls) == 3 * each and not encoders(freed) and all(ref() is None for ref in gone)
    freed._texts._kept.clear()  # what memory has no room for comes from the disk
    assert same(asked(freed, "a knife and blood", "a cat", ""), asked(plain, "a knife and blood", "a cat", ""))
    assert same(freed.unconditional(2).tensors, plain.unconditional(2).tensors)
    freed.prepare(["a cat"])  # known, so nothing is to be encoded
    with pytest.raises(UserError, match=r"the text 'a dog' cannot be encoded: .* set memory\.text_encoders=cpu"):
        asked(freed, "a cat", "a dog")


def test_encoders_stay_unless_they_are_to_be_freed(tmp_path: Path) -> None:
    made = backbone("sd1", saving=kept(tmp_path))
    calls = counted(made)
    made.prepare(["a cat"])
    assert not calls and len(encoders(made)) == 1


def test_more_prompts_than_there_is_room_for_are_refused(tmp_path: Path) -> None:
    made = backbone("sd1", saving=kept(tmp_path, free=True, gib=0.00001))
    with pytest.raises(UserError) as caught:
        made.prepare([f"a cat {number}" for number in range(2000)])
    said = str(caught.value)
    assert "the embeddings of the 2001 texts that may be asked for take 0.003 GiB" in said
    assert "memory.embeddings_gib is 1e-05; set memory.embeddings_gib=0.003 or more" in said
    assert len(encoders(made)) == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_one_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"embeddings cannot be kept in .*file \(.*\); make room there, or set memory"):
        backbone("sd1", saving=kept(tmp_path / "file"))


def test_freed_encoders_need_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAFEDIFFUSION_CACHE", str(tmp_path))
    backbone("sd1", saving=Saving(text_encoders="free")).prepare(["a cat"])
    assert len(list((tmp_path / "embeddings").iterdir())) == 2
    monkeypatch.delenv("SAFEDIFFUSION_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "safediffusion" / "embeddings"
