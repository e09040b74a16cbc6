"""Names: lazy, did-you-mean, plug-ins merged."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from safediffusion.core import registry
from safediffusion.core.errors import UserError
from safediffusion.core.registry import Registry, suggest

TABLE = {"fraction": "fractions:Fraction", "decimal": "decimal:Decimal", "broken": "no_such_module_here:X"}


def test_get_imports_only_what_is_asked_for() -> None:
    from fractions import Fraction

    numbers = Registry("number", TABLE)
    assert numbers.names() == ("broken", "decimal", "fraction")
    assert numbers.get("fraction") is Fraction
    assert "decimal" in numbers and "float" not in numbers
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        numbers.get("broken")


def test_an_unknown_name_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(UserError) as caught:
        Registry("number", TABLE).get("fracton")
    assert str(caught.value) == ("unknown number 'fracton'; did you mean 'fraction'? known: broken, decimal, fraction")


def test_suggest_without_a_near_name_lists_what_is_known() -> None:
    assert suggest("zzz", ["b", "a"]) == "known: a, b"
    assert suggest("zzz", []) == "known: none"


def test_plugins_come_from_entry_points_and_may_not_steal_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [EntryPoint(name="mine", value="math:pi", group="g")]
    monkeypatch.setattr(registry, "entry_points", lambda *, group: found)
    numbers = Registry("number", TABLE, group="g")
    assert numbers.get("mine") == pytest.approx(3.14159, abs=1e-4)
    assert "mine" in numbers and not numbers.ships("mine") and numbers.ships("decimal")
    found.append(EntryPoint(name="decimal", value="math:e", group="g"))
    with pytest.raises(UserError, match="plug-in math:e registers number 'decimal', a name that is already taken"):
        Registry("number", TABLE, group="g").names()
