"""Fixtures of more than one folder."""

from __future__ import annotations

import pytest

from tests import small


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> small.Folders:
    """Written once, only read."""
    return small.folders(tmp_path_factory.mktemp("small"))
