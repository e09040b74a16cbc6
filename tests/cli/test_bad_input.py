"""What a user can get wrong: each is status 2 and one line that says what and what next, never a traceback."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from safediffusion.cli.main import run
from safediffusion.scorers.base import ImageBatch
from safediffusion.scorers.registry import SCORERS
from safediffusion.train import checkpoint
from tests import small, tiny


@dataclass(frozen=True)
class Broken:
    """A plug-in scorer that cannot score one picture."""

    name: str = "broken"
    higher_is_better: bool = True
    differentiable: bool = False

    def __call__(self, batch: ImageBatch) -> Tensor:
        scores = torch.linspace(0, 1, len(batch.prompts))
        scores[-1] = torch.nan
        return scores


@dataclass(frozen=True)
class Shapeless(Broken):
    """A plug-in scorer that returns a row a pixel instead of one number a picture."""

    name: str = "shapeless"

    def __call__(self, batch: ImageBatch) -> Tensor:
        return batch.images.mean(1)


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert SCORERS.names()
    for name in (Broken, Shapeless):
        monkeypatch.setitem(SCORERS._targets, name.name, f"{__name__}:{name.__name__}")


def refused(capsys: pytest.CaptureFixture[str], *line: str) -> str:
    """The one line on stderr of a command that must end with status 2."""
    capsys.readouterr()
    assert run(line) == 2
    said = capsys.readouterr().err
    assert said.startswith("safediffusion: ") and said.count("\n") == 1, said
    return said.removeprefix("safediffusion: ").rstrip()


def train(folders: small.Folders, *more: str) -> tuple[str, ...]:
    return ("train", "emoji-steer", "--out", "run", *folders.small, *more)


PROMPTS: dict[str, tuple[str, str]] = {
    "empty.txt": ("\n\n", "prompt file 'empty.txt' holds no prompt; write at least one line"),
    "cut.jsonl": ('{"id": "a", "text": "a cat"}\n{"id": "b", "te', "prompt file 'cut.jsonl', line 2 is not JSON"),
    "blank.csv": ("id,prompt\n1,a cat\n2,\n", "prompt file 'blank.csv', line 3 has an empty 'prompt'"),
    "column.csv": ("id,text\n1,a cat\n", "one of them must be called 'prompt'"),
    "prompts.md": ("a cat\n", "prompt file 'prompts.md' ends in '.md'; allowed are .jsonl"),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_bad_prompt_file(name: str, folders: small.Folders, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = PROMPTS[name]
    Path(name).write_text(content)
    mine = ("prompts={}", f"prompts.mine.file={name}", "prompts.mine.label=unsafe")
    assert message in refused(capsys, *train(folders, *mine))
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("prompts.unsafe.builtin=null", "prompts.unsafe.file=none.txt"), "prompt file 'none.txt' does not exist"),
        (("optimizer.learning_rate=1",), "unknown key 'optimizer.learning_rate'"),
        (("optimizer.lrr=1",), "did you mean 'lr'?"),
        (("model=missing/folder/here",), "there is no model at missing/folder/here; give a diffusers folder"),
        (("encoder=/missing/folder",), "CLIP '/missing/folder' cannot be loaded"),
        (("weights.targets=[to_qq]",), "LoRA target 'to_qq' matches no layer of this model; did you mean 'to_q'?"),
        (("steering.anchors=mine.yaml#x",), "anchor file 'mine.yaml' does not exist"),
        (("calibration.pictures=pictures",), "labelled pictures 'pictures' must be a .jsonl file, or a folder"),
        (("precision=fp8",), "precision is 'fp8'; allowed is fp32 or bf16"),
        (("scorers.broken=1",), "reward 'broken' is nan for 1 of 4 images, first for prompt"),
        (("scorers.shapeless=1",), "scorer 'shapeless' returned shape [4, 16, 16] for 4 images"),
        (("--device", "cuda:9"), "device 'cuda:9' cannot be used"),
    ],
)
def test_a_bad_recipe(
    more: tuple[str, ...], message: str, folders: small.Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *train(folders, *more))


def without(path: str) -> Callable[[Path], None]:
    return lambda model: (model / path).unlink()


def cut(path: str) -> Callable[[Path], None]:
    def damage(model: Path) -> None:
        data = (model / path).read_bytes()
        (model / path).write_bytes(data[: len(data) // 2])

    return damage


def other_shapes(model: Path) -> None:
    """Weights of a UNet with another number of latent channels than its configuration says."""
    config = json.loads((model / "unet" / "config.json").read_text())
    (model / "unet" / "config.json").write_text(json.dumps({**config, "block_out_channels": [24, 32]}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("unet/diffusion_pytorch_model.safetensors"), "could not be loaded"),
        (without("model_index.json"), "has no model_index.json, so it is no diffusers model"),
        (cut("unet/diffusion_pytorch_model.safetensors"), "could not be loaded"),
        (cut("model_index.json"), "model_index.json is damaged"),
        (other_shapes, "could not be loaded"),
    ],
)
def test_a_damaged_model(
    damage: Callable[[Path], None], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny.pipeline_folder(tmp_path / "model")
    damage(model)
    said = refused(capsys, "sample", str(model), "a cat")
    assert message in said and str(model) in said


def test_a_lora_of_another_shape(folders: small.Folders, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(train(folders, "steps=1")) == 0
    file = next(Path("run/checkpoints").rglob("live.safetensors"))
    said = refused(capsys, "sample", f"{wide()}+{file}", "a cat")
    assert "to_k' has shape [32, 32], the model's is [64, 64]; it belongs to another base" in said


def wide() -> Path:
    """A model whose attention is wider than that of `tiny.pipeline`."""
    from diffusers import UNet2DConditionModel

    pipe = tiny.pipeline()
    config = {**pipe.unet.config, "block_out_channels": (16, 64)}
    pipe.unet = UNet2DConditionModel.from_config(config)
    pipe.save_pretrained("wide")
    return Path("wide")


def test_a_corrupt_checkpoint_is_named_and_the_one_before_can_be_used(
    folders: small.Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(train(folders, "checkpoint_every=1")) == 0
    last = Path("run/checkpoints/step-000002")
    cut("optimizer.safetensors")(last)
    said = refused(capsys, "train", "run", "--resume")
    assert "optimizer.safetensors has" in said and "it was cut short" in said
    assert f"delete {last} to resume from the checkpoint before it" in said
    shutil.rmtree(last)
    assert run(["train", "run", "--resume"]) == 0


def test_a_damaged_run_json(folders: small.Folders, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(train(folders, "steps=1")) == 0
    cut("run.json")(Path("run"))
    assert "run/run.json is damaged" in refused(capsys, "train", "run", "--resume")
    assert "run/run.json is damaged" in refused(capsys, "evaluate", "run")


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    folders: small.Folders, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(train(folders, "steps=1")) == 0

    def full(*unused: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(checkpoint, "save_file", full)
        said = refused(capsys, "train", "run", "--resume", "steps=2")
    assert "checkpoint step-000002 could not be written: no space left on the disk" in said
    assert "step-000001, is intact. Free some space, then resume" in said
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["step-000001"]
    assert run(["train", "run", "--resume", "steps=2"]) == 0


def test_a_weak_direction_is_refused_unless_allowed(folders: small.Folders, capsys: pytest.CaptureFixture[str]) -> None:
    """Each unsafe picture has a safe twin, so whatever the direction, a third of the pairs is in the wrong order."""
    from PIL import Image

    for folder in ("pictures/safe", "pictures/unsafe/violence"):
        Path(folder).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (16, 16), (60 * number, 90, 10)).save(f"{folder}/{number}.png")
    more = ("calibration.pictures=pictures", "steps=1")
    said = refused(capsys, *train(folders, *more))
    assert said.startswith("safety direction: AUC 0.") and "on 3 safe and 3 unsafe pictures" in said
    assert "train all the same with calibration.allow_weak_direction=true" in said
    assert run(train(folders, *more, "calibration.allow_weak_direction=true")) == 0
    assert "safety direction: AUC 0." in capsys.readouterr().out
    keys = (*folders.small, more[0], "scorers={steering: 1, clip: 1}", "preferences.by=clip")  # read, and not its aim
    assert run(["check", "direction", "emoji-dpo", *keys]) == 1
    assert "training would not start" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("evaluate", "nowhere", "--suite", "emoji-quick"), "there is no model at nowhere"),
        (("compare", "a", "b"), "there is no folder a; give a run folder"),
        (("compare", ".", "."), "holds no evaluation"),
        (("score", ".", "--scorer", "steering", "--encoder", "emoji", "alpha=1"), "settings start with steering."),
        (
            ("score", ".", "--scorer", "clip", "steering.alpha=3"),
            "clip has no settings; that is for steering",
        ),
        (("score", ".", "--scorer", "clip", "--source", "x"), "clip has no --source; that is for pickscore, hps,"),
        (("score", ".", "--scorer", "aesthetic", "--encoder", "x"), "aesthetic has no --encoder; that is for steering"),
        (("train", "emoji-steer", "--processes", "4"), "to train with 4: accelerate launch --num_processes 4 -m safe"),
        (("train", "emoji-steer", "--out", "file"), "file is a file, so no folder file can be written"),
        (("sample", "emoji", "a cat", "--out", "file"), "file is a file, so no folder file can be written"),
        (("train", "emoji-steer", "optimizer.max_norm=0"), "max_norm is 0, which leaves nothing of a gradient; set it"),
        (("train", "emoji-steer", "optimizer.betas=[1.5,2]"), "betas are [1.5, 2.0]; both lie from 0 to below 1"),
        (("sample", "emoji", " "), "a prompt is empty"),
        (("train", "mine.yaml"), "recipe file 'mine.yaml' does not exist"),
        (("demo", "--recipe", "emoji-ster"), "unknown recipe 'emoji-ster'; did you mean 'emoji-steer'?"),
        (("evaluate", "emoji", "--batch", "0"), "--batch"),
        (("evaluate", "emoji", "--format", "jpeg"), "'jpeg' is not one of 'png', 'webp'"),
    ],
)
def test_a_bad_argument(line: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    assert message in refused(capsys, *line)
