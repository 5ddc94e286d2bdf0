"""An input is what was read: files that change during a run end it, and a resumed run goes by their content."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from filters import run_filter
from filters.config import FilterConfig
from filters.errors import FinesieveError, RunError
from filters.pipeline.observer import Observer
from filters.read.local import file_digest
from tests.pipeline.conftest import digest, jsonl, page

Change = Callable[[Path], object]


def other_topic(path: Path) -> None:
    """Another value of a pass-through column; size and modification time as they were."""
    before = path.stat()
    content = path.read_bytes().replace(b"aaaa", b"zzzz")
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes().replace(b"aaaa", b"zzzz"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


CHANGES: dict[str, Change] = {
    "column": other_topic,
    "replaced": replaced,
    "cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
    "gone": lambda path: path.unlink(),
}


class Meddler(Observer):
    """Changes a file once: when something is read, or at the begin or the end of a phase ("shard", "shard done")."""

    def __init__(self, path: Path, change: Change, phase: str) -> None:
        self.path, self.change, self.at = path, change, phase
        self.done = False

    def _once(self, phase: str) -> None:
        if phase == self.at and not self.done:
            self.done = True
            self.change(self.path)

    def read(self, records: int, input_bytes: int) -> None:
        self._once("read")

    def phase(self, name: str, done: int, units: int) -> None:
        self._once(name)
        if done == units:
            self._once(f"{name} done")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    def rows(name: str, first: int) -> list[Any]:
        return [{"id": f"{name}{n}", "topic": "aaaa", "text": page(first + n, 30)} for n in range(40)]

    return [jsonl(tmp_path / name, rows(name, 100 * k)) for k, name in enumerate(("one.jsonl", "two.jsonl"))]


@pytest.fixture
def make(tmp_path: Path, files: list[Path]) -> Callable[[], FilterConfig]:
    def config() -> FilterConfig:
        return FilterConfig.model_validate(
            {
                "input": {"kind": "jsonl", "paths": list(map(str, files)), "id_key": "id", "slices": ["topic"]},
                "keep": {"min_score": -1},
                "output": {"path": str(tmp_path / "run")},
            }
        )

    return config


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("phase", ["read", "join", "shard"])
def test_a_file_that_changes_during_a_run_ends_it(
    make: Callable[[], FilterConfig], files: list[Path], tmp_path: Path, phase: str, change: str
) -> None:
    meddler = Meddler(files[0], CHANGES[change], phase)
    with pytest.raises(FinesieveError, match=r"one\.jsonl"):
        run_filter(make(), observer=meddler)
    assert meddler.done
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_the_manifest_has_digests_of_the_bytes_that_were_read(
    make: Callable[[], FilterConfig], files: list[Path]
) -> None:
    result = run_filter(make())
    assert [entry["xxh3_128"] for entry in result.manifest["inputs"]] == [file_digest(str(path)) for path in files]


def test_a_file_that_is_touched_behind_its_last_reading_is_still_the_same(
    make: Callable[[], FilterConfig], files: list[Path]
) -> None:
    meddler = Meddler(files[0], os.utime, "shard done")
    assert run_filter(make(), observer=meddler).ledger.total.records == 80
    assert meddler.done


class Stop(Observer):
    def phase(self, name: str, done: int, units: int) -> None:
        if name == "join":
            raise KeyboardInterrupt


def interrupted(config: FilterConfig) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_filter(config, observer=Stop())


def test_a_resume_goes_by_content(make: Callable[[], FilterConfig], files: list[Path], tmp_path: Path) -> None:
    run_filter(make())
    expected = digest(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    interrupted(make())
    for path in files:  # copied back from elsewhere: another inode, other times
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    run_filter(make())
    assert digest(tmp_path / "run") == expected


def test_a_resume_is_refused_where_size_and_time_lie(
    make: Callable[[], FilterConfig], files: list[Path], tmp_path: Path
) -> None:
    interrupted(make())
    before = digest(tmp_path / "run")
    other_topic(files[1])
    with pytest.raises(RunError, match=r"two\.jsonl is not what it was"):
        run_filter(make())
    assert digest(tmp_path / "run") == before
    state: dict[str, Any] = json.loads((tmp_path / "run" / ".work" / "state.json").read_text())
    assert state["identity"]["inputs"][str(files[0])]["bytes"] == files[0].stat().st_size
