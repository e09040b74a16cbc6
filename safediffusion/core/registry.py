"""Names to objects: the package's own table merged with entry points; nothing is imported before it is asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from .errors import UserError


def suggest(name: str, allowed: Iterable[str]) -> str:
    """The end of an error message: the nearest allowed name if there is one, then all of them."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    guess = f"did you mean '{near[0]}'? " if near else ""
    return f"{guess}known: {', '.join(names) if names else 'none'}"


class Registry:
    """Objects of one kind by name. `table` and the entry-point `group` map a name to "module:Object"."""

    def __init__(self, kind: str, table: Mapping[str, str], *, group: str | None = None) -> None:
        self.kind = kind
        self._table = dict(table)
        self._group = group

    @cached_property
    def _targets(self) -> dict[str, str]:
        plugins = {} if self._group is None else {e.name: e.value for e in entry_points(group=self._group)}
        clash = sorted(name for name in plugins.keys() & self._table.keys() if plugins[name] != self._table[name])
        if clash:
            raise UserError(
                f"the installed plug-in {plugins[clash[0]]} registers {self.kind} '{clash[0]}', a name that is already "
                f"taken by {self._table[clash[0]]}; rename or uninstall the plug-in"
            )
        return self._table | plugins

    def names(self) -> tuple[str, ...]:
        """Every registered name, sorted."""
        return tuple(sorted(self._targets))

    def __contains__(self, name: str) -> bool:
        return name in self._targets

    def ships(self, name: str) -> bool:
        """Whether `name` comes with this package, not with a plug-in."""
        return name in self._table

    def get(self, name: str) -> Any:
        """The object called `name`, imported now. UserError names the nearest when there is none."""
        if name not in self._targets:
            raise UserError(f"unknown {self.kind} '{name}'; {suggest(name, self._targets)}")
        module, _, attribute = self._targets[name].partition(":")
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found
