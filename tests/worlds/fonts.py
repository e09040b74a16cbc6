"""Scenes are rendered with a font that does not ship."""

from __future__ import annotations

import pytest

from safediffusion.worlds.emoji import scenes

needs_font = pytest.mark.skipif(
    not any(path.exists() for path in scenes._FONTS), reason="the Noto Color Emoji font is not installed"
)
