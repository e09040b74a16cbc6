"""One file of the Hugging Face hub, or what to do when it cannot be had (no torch)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .errors import UserError


def fetch(
    repository: str, file: str, *, revision: str | None, kind: Literal["model", "dataset"], absent: str, instead: str
) -> Path:
    """Where `file` of `repository` (OWNER/NAME) lies in the cache, downloaded if it is not there yet.

    UserError when it cannot be had; `absent` says there what a missing file may mean, `instead` what else can be given.
    """
    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repository}"
    try:
        return Path(hf_hub_download(repository, file, revision=revision, repo_type=kind))
    except GatedRepoError as error:
        raise UserError(
            f"{repository} is gated: accept its licence at {page}, log in with `hf auth login` (or set HF_TOKEN), "
            f"{instead}"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(
            f"{repository} has no revision '{revision}' on the hub; leave out @{revision} for main"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"the hub has no {kind} '{repository}', or it is private; check the spelling, log in with `hf auth login`, "
            f"{instead}"
        ) from error
    except EntryNotFoundError as error:
        raise UserError(
            f"the {kind} {repository} has no {file} in the cache or on the hub: {absent}, or the hub cannot be "
            f"reached; check the connection, {instead}"
        ) from error
    except ValueError as error:
        raise UserError(
            f"'{repository}' with the file '{file}' is no name on the hub ({error}); check the spelling, {instead}"
        ) from error
    except OSError as error:
        raise UserError(
            f"the hub cannot be reached for {repository} ({error}); check the connection, {instead}"
        ) from error
