"""No result depends on how a processor's vector unit orders ties: numpy's default sort is not stable."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for room in ("filters", "tests", "benchmarks", "examples") for path in (ROOT / room).rglob("*.py"))
UNSTABLE = {"argsort", "sort_values"}
"""Functions that order ties anyhow without `kind`. (np.sort orders values alone, and equal ones are the same.)"""
NEVER = {"argpartition", "topk"}
"""Functions that cannot be told to keep ties in order."""


def unstable_sorts(source: str) -> list[int]:
    """Numbers of the lines on which ties may come in any order."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        kinds = [word.value for word in node.keywords if word.arg == "kind"]
        stable = any(isinstance(kind, ast.Constant) and kind.value in ("stable", "mergesort") for kind in kinds)
        if name in NEVER or (name in UNSTABLE and not stable):
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("order = np.argsort(keys)", [1]),
        ("order = keys.argsort()", [1]),
        ("a = 1\norder = np.argsort(keys, kind='quicksort')", [2]),
        ("order = np.argsort(keys, kind='stable')", []),
        ("frame.sort_values('score')", [1]),
        ("few = np.argpartition(keys, 3)", [1]),
        ("values = np.sort(values)", []),
    ],
)
def test_an_unstable_sort_is_found(source: str, lines: list[int]) -> None:
    assert unstable_sorts(source) == lines


def test_every_sort_whose_ties_can_matter_is_stable() -> None:
    found = [f"{path.relative_to(ROOT)}:{line}" for path in FILES for line in unstable_sorts(path.read_text("utf-8"))]
    assert not found, f'ties come in any order; add kind="stable": {", ".join(found)}'
