"""The model families by name."""

from __future__ import annotations

from safediffusion.core.registry import Registry

MODELS = Registry("model family", {"sd1": "safediffusion.models.sd1:Sd1Backbone"}, group="safediffusion.models")
