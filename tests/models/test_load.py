"""From a MODEL to a policy, and every way it can go wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import save_file

from safediffusion.core import hub
from safediffusion.core.errors import UserError
from safediffusion.diffusion.denoise import Plan
from safediffusion.diffusion.dynamics import Ddim
from safediffusion.models.banks import FullSpec, LoraSpec
from safediffusion.models.load import default_plan, load_policy, split, weights_file
from safediffusion.models.pipelines import StableDiffusionPipeline
from safediffusion.models.policy import Policy, Weights
from tests import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.pipeline_folder(tmp_path_factory.mktemp("model") / "tiny")


def output(policy: Policy) -> torch.Tensor:
    x = torch.randn(4, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return policy.predict(x, torch.full((4,), 500.0), policy.encode(tiny.PROMPTS)).noise


def checkpoint(run: Path, step: int, policy: Policy, *names: Weights) -> Path:
    """A finished checkpoint of a run folder that holds these sets of weights."""
    target = run / "checkpoints" / f"step-{step:06d}"
    target.mkdir(parents=True)
    files = {}
    for which in names:
        file = target / f"{which}.safetensors"
        save_file(policy.state(which), file, policy.bank.describe())
        files[file.name] = {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (target / "manifest.json").write_text(json.dumps({"format": 1, "step": step, "files": files}))
    return target


def test_a_folder_gives_the_model_that_was_saved(folder: Path) -> None:
    expected = output(tiny.policy())
    torch.testing.assert_close(output(load_policy(str(folder))), expected)
    trained = load_policy(str(folder), weights=LoraSpec(rank=2), precision="bf16")
    assert {p.dtype for p in trained.parameters()} == {torch.float32}
    torch.testing.assert_close(output(trained), expected, atol=0.05, rtol=0)
    full = load_policy(str(folder), weights=FullSpec())
    assert len(full.parameters()) == len(list(full.backbone.network.parameters()))
    torch.testing.assert_close(output(full), expected)


@pytest.mark.parametrize("full", [False, True])
def test_trained_weights_are_merged_into_the_base(folder: Path, tmp_path: Path, full: bool) -> None:
    policy = tiny.policy(full=full, trained=True)
    file = tmp_path / "weights.safetensors"
    save_file(policy.state(Weights.LIVE), file, policy.bank.describe())
    loaded = load_policy(f"{folder}+{file}")
    torch.testing.assert_close(output(loaded), output(policy), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(output(loaded), output(tiny.policy()), atol=1e-3)


def test_convolution_adapters_are_merged_with_their_scale(folder: Path, tmp_path: Path) -> None:
    spec = LoraSpec(rank=2, alpha=6.0, targets=("attention", "conv", "ff", "proj"))
    policy = load_policy(str(folder), weights=spec)
    tiny.nudge(policy)
    save_file(policy.state(Weights.LIVE), tmp_path / "lora.safetensors", policy.bank.describe())
    loaded = load_policy(f"{folder}+{tmp_path / 'lora.safetensors'}")
    torch.testing.assert_close(output(loaded), output(policy), atol=1e-5, rtol=1e-5)


def test_a_lora_of_the_diffusers_format_is_merged(folder: Path, tmp_path: Path) -> None:
    policy = tiny.policy(trained=True)  # alpha equals rank, which is what a LoRA without metadata means
    state = {f"unet.{name}": tensor for name, tensor in policy.state().items()}
    save_file(state, tmp_path / "lora.safetensors")
    loaded = load_policy(f"{folder}+{tmp_path / 'lora.safetensors'}", weights=LoraSpec())
    torch.testing.assert_close(output(loaded), output(policy), atol=1e-5, rtol=1e-5)


def test_a_run_means_its_newest_checkpoint_and_its_average_first(folder: Path, tmp_path: Path) -> None:
    policy = tiny.policy()
    policy.allocate(frozenset({Weights.EMA}))
    checkpoint(tmp_path, 1, policy, Weights.LIVE, Weights.EMA)
    tiny.nudge(policy)
    policy.refresh(Weights.EMA, 0.5)
    newest = checkpoint(tmp_path, 10, policy, Weights.LIVE, Weights.EMA)
    half = tmp_path / "checkpoints" / "step-000011"
    shutil.copytree(newest, half)
    (half / "manifest.json").unlink()
    assert weights_file(str(tmp_path)) == newest / "ema.safetensors"
    with policy.using(Weights.EMA):
        expected = output(policy)
    torch.testing.assert_close(output(load_policy(f"{folder}+{tmp_path}")), expected, atol=1e-5, rtol=1e-5)
    assert weights_file(str(newest)) == newest / "ema.safetensors"
    only_live = checkpoint(tmp_path / "other", 3, policy, Weights.LIVE)
    assert weights_file(str(tmp_path / "other")) == only_live / "live.safetensors"


def test_an_edited_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    file = checkpoint(tmp_path, 1, tiny.policy(), Weights.LIVE) / "live.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match="live.safetensors is not what its manifest says: it was cut short or edited"):
        weights_file(str(tmp_path))


def test_what_stands_before_and_after_the_plus(tmp_path: Path) -> None:
    assert split("emoji") == ("emoji", ())
    assert split("base+a.safetensors+runs/x") == ("base", ("a.safetensors", "runs/x"))
    (tmp_path / "a+b").mkdir()
    assert split(str(tmp_path / "a+b")) == (str(tmp_path / "a+b"), ())
    with pytest.raises(UserError, match=r"'base\+' has an empty part"):
        split("base+")


def test_the_default_plan_is_written_beside_the_model(folder: Path) -> None:
    assert default_plan(str(folder)) == Plan(steps=50, guidance=7.5, dynamics=Ddim(0.0))
    file = folder / "sampling.json"
    file.write_text('{"steps": 12, "guidance": 2.0, "eta": 0.5}')
    assert default_plan(f"{folder}+run") == Plan(steps=12, guidance=2.0, dynamics=Ddim(0.5))
    file.write_text('{"steps": 12}')
    with pytest.raises(UserError, match="sampling.json is damaged"):
        default_plan(str(folder))
    file.unlink()


def test_models_that_cannot_be_loaded_say_why(folder: Path, tmp_path: Path) -> None:
    empty, other, broken = (tmp_path / name for name in ("empty", "other", "broken"))
    empty.mkdir()
    other.mkdir()
    (other / "model_index.json").write_text('{"_class_name": "AuraFlowPipeline"}')
    refiner = tmp_path / "refiner"
    refiner.mkdir()
    (refiner / "model_index.json").write_text('{"_class_name": "StableDiffusionXLImg2ImgPipeline"}')
    pickled = tmp_path / "model.ckpt"
    pickled.write_bytes(b"\x80\x02}q\x00.")
    lora = tmp_path / "lora.safetensors"
    save_file({"unet.x.lora_A.weight": torch.zeros(1)}, lora)
    shutil.copytree(folder, broken)
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut")
    for model, message in (
        (str(tmp_path / "nowhere"), "there is no model at .*nowhere; give a diffusers folder"),
        (str(empty), "has no model_index.json"),
        (str(other), "holds a AuraFlowPipeline. The supported pipelines are: FluxPipeline, StableDiffusion3Pipeline"),
        (str(refiner), "It is SDXL's refiner; align the base it polishes"),
        (str(pickled), "is no safetensors file.*pickled checkpoints .* are never opened"),
        (str(lora), r"no single-file checkpoint of a supported model.*goes after its base: BASE\+lora.safetensors"),
        (str(broken), "could not be loaded"),
        (f"{folder}+{tmp_path / 'no.safetensors'}", "there is no LoRA file and no run folder at"),
        (f"{folder}+{empty}", "holds no finished checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            load_policy(model)
    with pytest.raises(UserError, match="unknown precision 'bf15'; did you mean 'bf16'"):
        load_policy(str(folder), precision="bf15")


HUB = {
    GatedRepoError: r"a/b is gated: accept its licence at https://huggingface.co/a/b, log in",
    RepositoryNotFoundError: r"the hub has no model 'a/b', or it is private",
    RevisionNotFoundError: r"a/b has no revision 'v9' on the hub; leave out @v9 for main",
    EntryNotFoundError: r"a/b has no model_index.json in the cache or on the hub",
    LocalEntryNotFoundError: r"or the hub cannot be reached; check the connection",
}


@pytest.mark.parametrize("kind", HUB, ids=lambda kind: kind.__name__)
def test_what_the_hub_refuses_is_told_with_the_way_out(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str | None]] = []

    def refuse(repository: str, file: str, *, revision: str | None, repo_type: str) -> str:
        assert repo_type == "model"
        asked.append((repository, file, revision))
        raise kind.__new__(kind, "no")  # without the answer of a server, which its __init__ wants

    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    with pytest.raises(UserError, match=HUB[kind]):
        load_policy("a/b@v9")
    assert asked == [("a/b", "model_index.json", "v9")]


def test_a_hub_id_gives_the_class_that_its_index_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is a folder here; that the revision reaches diffusers is what is looked at."""
    index = str(folder / "model_index.json")
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, revision, repo_type: index)
    whole, seen = StableDiffusionPipeline.from_pretrained, []

    def from_folder(name: str, **options: Any) -> Any:
        seen.append((name, options.pop("revision")))
        return whole(str(folder), **options)

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", from_folder)
    torch.testing.assert_close(output(load_policy("a/b@v9")), output(tiny.policy()))
    assert seen == [("a/b", "v9")]


def test_a_missing_part_is_an_error(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "part")
    (tmp_path / "part" / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="could not be loaded"):
        load_policy(str(tmp_path / "part"))


def test_weights_of_another_base_are_refused(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    about = {"kind": "lora", "rank": "2", "alpha": "2", "targets": "attention"}
    save_file({"x.lora_A.weight": torch.zeros(2, 4), "x.lora_B.weight": torch.zeros(4, 2)}, file, metadata=about)
    with pytest.raises(UserError, match="the LoRA adapts 'x', which this model or this file lacks"):
        load_policy(f"{folder}+{file}")
    wrong = {"conv_in.lora_A.weight": torch.zeros(2, 9), "conv_in.lora_B.weight": torch.zeros(4, 2)}
    save_file(wrong, file, metadata=about)
    with pytest.raises(UserError, match=r"of 'conv_in' has shape \[4, 9\], the model's is \[16, 4, 3, 3\]"):
        load_policy(f"{folder}+{file}")
    save_file({"conv_in.weight": torch.zeros(1)}, file, metadata={"kind": "full"})
    with pytest.raises(UserError, match="does not fit this model"):
        load_policy(f"{folder}+{file}")
    save_file({"unet.x": torch.zeros(1)}, file)
    with pytest.raises(UserError, match="is no LoRA"):
        load_policy(f"{folder}+{file}")
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(UserError, match="w.safetensors is cut short or damaged"):
        load_policy(f"{folder}+{file}")
