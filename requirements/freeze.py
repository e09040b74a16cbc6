"""Print the exact versions of everything the project needs, from the environment that runs this script."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

HEAD = """\
# The exact versions this project is tested with: every package it needs, directly or not. `make` installs torch first
# (TORCH and TORCH_INDEX in the Makefile), then the rest, all under these constraints.
# Written by: python requirements/freeze.py > requirements/constraints.txt
"""


def closure(names: list[str]) -> dict[str, str]:
    """Package -> version, for `names` and all they require here; what this environment lacks is left to pip."""
    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = version(name).split("+")[0]
        except PackageNotFoundError:
            continue
        needed = [Requirement(line) for line in requires(name) or []]
        waiting += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def main() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pins = closure([Requirement(line).name for line in wanted])
    print(HEAD + "\n".join(f"{name}=={pins[name]}" for name in sorted(pins)))


if __name__ == "__main__":
    main()
