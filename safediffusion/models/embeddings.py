"""Embeddings of texts on disk: one safetensors file a text, named by a hash of all that they depend on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from safediffusion.core.errors import UserError

from .files import network_sha256

NAME = re.compile(r"[0-9a-f]{64}\.safetensors")  # nothing else in the folder is ever touched
PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial")
ABANDONED = 3600.0  # seconds after which an unfinished file is one of a process that was killed


def cache_folder() -> Path:
    """Where embeddings are kept when no folder is named: in $SAFEDIFFUSION_CACHE, or in ~/.cache/safediffusion."""
    return Path(os.environ.get("SAFEDIFFUSION_CACHE") or "~/.cache/safediffusion").expanduser() / "embeddings"


class _File(NamedTuple):
    used: int  # time of the last read or write, ns
    size: int  # bytes
    path: Path


class Embeddings:
    """A folder that holds at most `gib` GiB of embeddings; those not used for longest make room for new ones.

    Any number of processes may share it: a file appears whole under its name or not at all. UserError when the folder
    cannot be made or written.
    """

    def __init__(self, folder: Path, *, gib: float) -> None:
        self.folder, self._gib = folder, gib
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def read(self, key: str) -> dict[str, Tensor] | None:
        """What was written under `key`, bit by bit, on the CPU; None when it is not there, cut short or damaged."""
        path = self._path(key)
        try:
            data = path.read_bytes()  # at once: another process may remove the file at any moment
            found = load(data)
        except (SafetensorError, OSError):
            return None
        if _said(data) != _sha256(found):
            return None
        with suppress(OSError):  # another process may just have removed it
            _touch(path)
        return found

    def write(self, key: str, embeddings: Mapping[str, Tensor]) -> None:
        partial = self.folder / f".{uuid4().hex}.partial"
        try:
            partial.write_bytes(_packed(embeddings))
            _touch(partial)
            partial.replace(self._path(key))
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise self._unusable(error) from error
        self._make_room()

    def admit(self, count: int, *, like: Mapping[str, Tensor]) -> None:
        """UserError when `count` texts whose embeddings are as large as these are more than may be kept."""
        needed = count * len(_packed(like))
        if needed > self._room:
            gib = math.ceil(needed / 2**30 * 1000) / 1000
            raise UserError(
                f"the embeddings of the {count} texts that may be asked for take {gib:g} GiB, but "
                f"memory.embeddings_gib is {self._gib:g}; set memory.embeddings_gib={gib:g} or more, or "
                "memory.text_encoders=cpu"
            )

    @property
    def _room(self) -> int:
        return int(self._gib * 2**30)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _make_room(self) -> None:
        """Remove the files used longest ago until the others fit; the one used last always stays."""
        files = sorted(self._files())
        excess = sum(file.size for file in files) - self._room
        for file in files[:-1]:
            if excess <= 0:
                break
            file.path.unlink(missing_ok=True)
            excess -= file.size

    def _files(self) -> Iterator[_File]:
        """The embeddings that are here; what killed processes left unfinished is removed on the way."""
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):  # another process may remove files at the same time
                if NAME.fullmatch(entry.name):
                    about = entry.stat()
                    yield _File(about.st_mtime_ns, about.st_size, Path(entry.path))
                elif PARTIAL.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > ABANDONED:
                    os.unlink(entry.path)

    def _unusable(self, error: OSError) -> UserError:
        return UserError(
            f"embeddings cannot be kept in {self.folder} ({error.strerror or error}); make room there, or set "
            "memory.embeddings to a folder that can be written"
        )


def fingerprint(
    encoders: Mapping[str, Any], options: Mapping[str, object], *, dtype: torch.dtype, device: torch.device
) -> str:
    """SHA-256 of all that embeddings depend on but the tokens: weights, configurations and how they are computed.

    `encoders` are modules with a transformers `config`, None for one that is left out; weights are read as they are
    now, with whatever was merged into them. `options` are what else the family does with them.
    """
    about: dict[str, object] = {"options": dict(options), "arithmetic": _arithmetic(dtype, device)}
    for name, encoder in encoders.items():
        about[name] = None if encoder is None else [_config(encoder), network_sha256(encoder)]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def key_of(fingerprint: str, tokens: Sequence[Tensor]) -> str:
    """The name of a text's embeddings: of the encoders, and of the numbers of the tokens that each is given."""
    return hashlib.sha256(json.dumps([fingerprint, [each.tolist() for each in tokens]]).encode()).hexdigest()


def _config(encoder: Any) -> dict[str, Any]:
    """Without the path it was read from; the types say how weights are stored."""
    own = {name: value for name, value in encoder.config.to_dict().items() if name != "_name_or_path"}
    return {**own, "stored": sorted({str(parameter.dtype) for parameter in encoder.parameters()})}


def _arithmetic(dtype: torch.dtype, device: torch.device) -> dict[str, str]:
    """What decides the rounding. The number of threads, which may move the last bit on a CPU, is left out."""
    cuda = device.type == "cuda"
    return {
        "dtype": str(dtype),
        "device": device.type,
        "processor": torch.cuda.get_device_name(device) if cuda else platform.machine(),
        "kernels": "" if cuda else torch.backends.cpu.get_cpu_capability(),
        "matmul": torch.get_float32_matmul_precision(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _touch(path: Path) -> None:
    """Say that a file was used now, by a finer clock than the file system's own."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _packed(embeddings: Mapping[str, Tensor]) -> bytes:
    """A safetensors file that says what it holds, so that damage shows."""
    own = {name: value.detach().cpu().contiguous() for name, value in embeddings.items()}
    return save(own, metadata={"sha256": _sha256(own)})


def _said(data: bytes) -> str | None:
    """The hash in the header of a safetensors file, whose form has been checked."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found: str | None = header.get("__metadata__", {}).get("sha256")
    return found


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {list(value.shape)} ".encode())
        found.update(value.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
