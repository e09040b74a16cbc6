"""The scorers by name; other packages add theirs through the entry-point group `safediffusion.scorers`."""

from __future__ import annotations

from safediffusion.core.registry import Registry

SCORERS = Registry(
    kind="scorer",
    table={
        "clip": "safediffusion.scorers.clip:Clip",
        "steering": "safediffusion.scorers.steering:Steering",
    },
    group="safediffusion.scorers",
)
