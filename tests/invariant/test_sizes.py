"""Files, functions and signatures stay small enough to read."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE_MEDIAN, FILE_MAX = 150, 350
FUNCTION_P95, FUNCTION_MAX = 40, 60
PARAMETERS = 6

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def functions(*folders: str) -> Iterator[tuple[str, Function]]:
    """(file:line name, node) of every function."""
    for path in sources(*folders):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Function):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def length(node: Function) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def is_command(node: Function) -> bool:
    """A click command: its parameters are its options."""
    return any("option(" in ast.unparse(d) or "argument(" in ast.unparse(d) for d in node.decorator_list)


def test_no_file_is_longer_than_350_lines() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {lines(path)}"
        for path in sources("safediffusion", "tests", "benchmarks")
        if lines(path) > FILE_MAX
    ]
    assert not long, "\n".join(long)


def test_the_median_file_has_at_most_150_lines() -> None:
    written = [count for path in sources("safediffusion") if (count := lines(path)) > 3]
    assert len(written) > 20
    assert statistics.median(written) <= FILE_MEDIAN


def test_no_function_is_longer_than_60_lines_and_most_than_40() -> None:
    found = [(length(node), name) for name, node in functions("safediffusion")]
    long = [f"{name}: {count}" for count, name in found if count > FUNCTION_MAX]
    assert not long, "\n".join(long)
    assert sorted(count for count, _ in found)[int(0.95 * len(found))] <= FUNCTION_P95
    assert not [name for name, node in functions("tests") if length(node) > FUNCTION_MAX]


def test_signatures_have_at_most_six_parameters_and_options_are_named() -> None:
    """In public functions an optional parameter is keyword-only from the third on: a call says what it changes."""
    wrong = []
    for name, node in functions("safediffusion"):
        given = [*node.args.posonlyargs, *node.args.args]
        own = given[1:] if given and given[0].arg in {"self", "cls"} else given
        if len(own) + len(node.args.kwonlyargs) > PARAMETERS and not is_command(node):
            wrong.append(f"{name}: {len(own) + len(node.args.kwonlyargs)} parameters")
        private = node.name.startswith("_") and node.name != "__init__"
        if node.args.defaults and len(own) > 2 and not private:
            wrong.append(f"{name}: '{own[-1].arg}' has a default and may be given by position")
    assert not wrong, "\n".join(wrong)


def test_no_signature_hides_its_parameters() -> None:
    hidden = [name for name, node in functions("safediffusion") if node.args.kwarg]
    assert not hidden, "\n".join(hidden)
