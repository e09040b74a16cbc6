"""Ctrl-C in the middle of work that can go on later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click


class Stopped(click.ClickException):
    """Carries the one line that says how to go on; the exit status is 130."""


@contextmanager
def resumable(how: str) -> Iterator[None]:
    """Turns Ctrl-C into `how` to go on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Stopped(f"stopped; go on with: {how}") from stop
