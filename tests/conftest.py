"""Fixtures of more than one folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from safediffusion.train import contrast
from tests import small


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is left in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAFEDIFFUSION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def short_start() -> Iterator[None]:
    """A contrast is of few prompts: 128 of either label took longer than all else of a two-step run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrast, "PROMPTS", 8)
        yield


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> small.Folders:
    """Written once, only read."""
    return small.folders(tmp_path_factory.mktemp("small"))
