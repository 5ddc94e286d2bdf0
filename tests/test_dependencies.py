"""Every package that is imported is asked for in pyproject.toml."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def imported(path: Path) -> set[str]:
    """Top-level modules that a file imports, or names to `import_module`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    declared = {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", line)[0]).lower() for line in asked}  # type: ignore[index]
    own = {"filters", "finesieve"} | sys.stdlib_module_names
    modules = {name for path in (ROOT / "filters").rglob("*.py") for name in imported(path)} - own
    distributions = packages_distributions()
    for module in sorted(modules):
        owners = {re.sub(r"[-_.]+", "-", name).lower() for name in distributions.get(module, [module])}
        assert owners & declared, f"{module} is imported, and none of {sorted(owners)} is in pyproject.toml"
    assert {"scipy", "regex", "pandas"} <= modules
