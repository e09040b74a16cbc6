"""The scorers by name; other packages add theirs through the entry-point group `safediffusion.scorers`."""

from __future__ import annotations

from safediffusion.core.registry import Registry

SCORERS = Registry(
    kind="scorer",
    table={
        "aesthetic": "safediffusion.scorers.preference:Aesthetic",
        "clip": "safediffusion.scorers.clip:Clip",
        "hps": "safediffusion.scorers.preference:Hps",
        "pickscore": "safediffusion.scorers.preference:PickScore",
        "steering": "safediffusion.scorers.steering:Steering",
    },
    group="safediffusion.scorers",
)
