"""An input is what was read: files that change during a run end it, and a resumed run goes by their content."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters import run_filter
from filters.config.filter import FilterConfig
from filters.errors import FinesieveError, RunError
from filters.read.unit import file_digest
from filters.run.forecast import forecast
from filters.run.plan import Observer, make_plan
from filters.run.verify import verify_run
from tests.read.synthetic import responses
from tests.run.conftest import digest, jsonl, page

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


def test_inputs_of_other_kinds_and_keys_run_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table(
        {"body": [page(n, 30) for n in range(30)], "n": range(30), "url": [f"https://a.org/{n}" for n in range(30)]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    rows = [{"id": str(n % 35), "topic": "aaaa", "text": page(20 + n, 30)} for n in range(40)]
    lines = jsonl(tmp_path / "b.jsonl", [*rows, b"{"])
    (tmp_path / "c.warc").write_bytes(b"".join(responses(2)))
    inputs = [
        {"kind": "parquet", "paths": [f"{tmp_path}/*.parquet"], "text_key": "body", "slices": ["n"]},
        {"kind": "jsonl", "paths": [str(lines), str(lines)], "id_key": "id", "slices": ["topic"], "columns": ["url"]},
        {"kind": "warc", "paths": [str(tmp_path / "c.warc")]},
    ]

    def config(output: str, workers: int = 1) -> FilterConfig:
        sections = {"keep": {"min_score": -10.0}, "executor": {"workers": workers}}
        sections["output"] = {"path": str(tmp_path / output), "rejected": True}
        return FilterConfig.model_validate(sections | {"inputs": inputs})

    plan = make_plan(config("run"))
    assert [name for name, _ in plan.steps()].count("read") == 3
    assert plan.not_taken == (f"named more than once, read once: {lines}",)
    assert forecast(plan, documents=60).pilot_documents > 20
    with monkeypatch.context() as threads:
        threads.setattr("filters.run.engine.threads_will_do", lambda config: True)
        result = run_filter(plan)
    manifest = result.manifest
    assert manifest["ledger"]["total"]["records"] == 73
    assert manifest["ledger"]["sources"][str(lines)]["quarantined"] == {"bad_json": 1}
    assert manifest["slices"] == ["n", "topic"]
    kept = pq.read_table(result.path / "data")
    assert sorted(kept.schema.names)[-4:] == ["text", "tokens", "topic", "url"]
    assert len(set(kept["id"].to_pylist())) == len(kept) >= 60
    by_source = {Path(row["source"]).name: row for row in kept.to_pylist()}
    assert [(row["n"] is None, row["topic"], row["url"] is None) for row in by_source.values()] == [
        (False, None, False),
        (True, "aaaa", True),
        (True, None, False),
    ]
    assert {check.name: check.ok for check in verify_run(result.path) if check.ok is False} == {}
    run_filter(config("again", workers=2))  # in processes
    published = digest(tmp_path / "run"), digest(tmp_path / "again")
    assert published[0] == published[1]

    monkeypatch.setattr("filters.run.engine.threads_will_do", lambda config: True)

    class Stops(Observer):
        def phase(self, name: str, done: int, units: int) -> None:
            if name == "shard":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_filter(config("resumed"), observer=Stops())
    inputs[1]["text_key"] = "topic"
    with pytest.raises(RunError, match=r"config.inputs.1.text_key: was \"text\", is \"topic\""):
        run_filter(config("resumed"))
    inputs[1]["text_key"] = "text"
    run_filter(config("resumed"))
    assert digest(tmp_path / "resumed") == published[0]


def test_an_input_without_text_is_an_error_beside_one_with_text(tmp_path: Path) -> None:
    good = jsonl(tmp_path / "good.jsonl", [{"text": page(n, 30)} for n in range(10)])
    empty = jsonl(tmp_path / "empty.jsonl", [{"text": " "} for _ in range(3)])
    inputs = [{"kind": "jsonl", "paths": [str(path)]} for path in (good, empty)]
    config = FilterConfig.model_validate({"inputs": inputs, "output": {"path": str(tmp_path / "run")}})
    with pytest.raises(FinesieveError, match=r"empty\.jsonl: nothing in this input could be read as kind jsonl"):
        run_filter(config)
