"""CONTRIBUTING shows every room, and a first change that works: its diff is applied to a copy of the tree and used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", CONTRIBUTING, re.MULTILINE | re.DOTALL)


def test_the_tree_shows_every_room_and_no_other() -> None:
    (tree,) = blocks("text")
    shown = re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)
    assert sorted(shown) == sorted(path.parent.name for path in (ROOT / "filters").glob("*/__init__.py"))
    assert all((ROOT / name).is_dir() for name in re.findall(r"^(\w+)/", tree, re.MULTILINE))


def test_files_that_are_named_exist() -> None:
    named = re.findall(r"`((?:filters|tests|benchmarks|docs|configs|examples)/[\w/.-]+)`", CONTRIBUTING)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_first_change_works_in_a_copy_of_the_tree(tmp_path: Path) -> None:
    (diff,) = blocks("diff")
    for name in ("filters", "configs", "tests/run"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "change.diff").write_text(diff)
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent), "PYTHONPATH": str(tmp_path)}

    def done(*command: str) -> str:
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    done("git", "apply", "change.diff")
    python = (sys.executable, "-m")
    assert '"shouting"' in done(*python, "filters", "schema", "filter")
    done(*python, "pytest", "-n", "0", "-p", "no:cacheprovider", "tests/run/test_heuristics.py", "-k", "decides")
    pq.write_table(
        pa.table({"text": ["A river carries sand to the sea. " * 9, "BUY NOW, " * 30]}), tmp_path / "in.parquet"
    )
    (tmp_path / "run.yaml").write_text(
        "input: {kind: parquet, paths: in.parquet}\nheuristics: {name: shouting}\noutput: {path: out}\n"
    )
    assert "shouting" in done(*python, "filters", "filter", "run.yaml", "--dry-run", "--pilot", "0")
