from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
import zstandard

from filters.config.filter import InputConfig
from filters.errors import InputError
from filters.read.unit import Reading, Unit, file_digest
from filters.read.units import plan_units, read_unit
from tests.run.conftest import jsonl, page

ROWS = [{"id": f"d{n}", "topic": "aaaa", "text": page(n, 30)} for n in range(2500)]


def write_parquet(path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=500)
    return path


def write_wet(path: Path) -> Path:
    body = "".join(
        f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://h/{n}\r\nWARC-Record-ID: <urn:uuid:{n}>\r\n"
        f"Content-Length: {len(row['text'])}\r\n\r\n{row['text']}\r\n\r\n"
        for n, row in enumerate(ROWS)
    )
    path.write_bytes(gzip.compress(body.encode(), 1))
    return path


def compressed(path: Path) -> Path:
    path.write_bytes(zstandard.compress(jsonl(path.with_suffix(".plain"), ROWS).read_bytes()))
    return path


def damaged(path: Path) -> Path:
    content = compressed(path).read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"damage" + content[len(content) // 2 :])
    return path


MAKE: dict[str, tuple[str, str, Callable[[Path], Path]]] = {
    "lines": ("jsonl", "in.jsonl", lambda path: jsonl(path, ROWS)),
    "ranges of lines": ("jsonl", "in.ndjson", lambda path: jsonl(path, ROWS)),
    "compressed lines": ("jsonl", "in.jsonl.zst", compressed),
    "damaged lines": ("jsonl", "in.jsonl.zst", damaged),
    "parquet": ("parquet", "in.parquet", write_parquet),
    "wet": ("wet", "in.wet.gz", write_wet),
}


@pytest.fixture(params=MAKE)
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, InputConfig]:
    kind, name, make = MAKE[request.param]
    monkeypatch.setattr("filters.read.parquet.ROWS_PER_UNIT", 1000)
    path = make(tmp_path / name)
    if request.param == "ranges of lines":
        monkeypatch.setattr("filters.read.jsonl.BYTES_PER_UNIT", path.stat().st_size * 2 // 5)
    return path, InputConfig.model_validate({"kind": kind, "paths": [str(path)]})


def read(unit: Unit, config: InputConfig, between: Callable[[int], object] = lambda n: None) -> Reading:
    reading = Reading()
    for number, _ in enumerate(read_unit(unit, config, reading)):
        between(number)
    return reading


def overwritten(path: Path) -> None:
    """One byte near the end, with size and modification time as they were."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size - 40)
        byte = file.read(1)
        file.seek(before.st_size - 40)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path: Path) -> None:
    """The same bytes and the same modification time, in another file."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "overwritten": overwritten,
    "cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "replaced": replaced,
    "gone": lambda path: path.unlink(),
}


def test_the_digest_is_of_all_bytes(source: tuple[Path, InputConfig]) -> None:
    path, config = source
    units = plan_units(config)
    assert len(units) == (3 if path.suffix in (".parquet", ".ndjson") else 1)
    found = [read(unit, config) for unit in units]
    assert {reading.stamp for reading in found} == {units[0].stamp}
    assert [reading.digest for reading in found[1:]] == [None] * (len(units) - 1)
    assert found[0].digest == xxhash.xxh3_128_hexdigest(path.read_bytes()) == file_digest(str(path))


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_between_plan_and_reading_is_refused(source: tuple[Path, InputConfig], change: str) -> None:
    path, config = source
    (unit, *_) = plan_units(config)
    CHANGES[change](path)
    with pytest.raises(InputError, match=path.name):
        read(unit, config)


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_read_is_refused(source: tuple[Path, InputConfig], change: str) -> None:
    path, config = source
    (unit, *_) = plan_units(config)
    with pytest.raises(InputError, match=path.name):
        read(unit, config, lambda number: CHANGES[change](path) if number == 0 else None)


def test_a_reader_that_stops_early_asks_for_no_digest(source: tuple[Path, InputConfig]) -> None:
    _, config = source
    reading = Reading()
    batches = read_unit(plan_units(config)[0], config, reading)
    next(batches)
    reading.check()
    batches.close()  # type: ignore[attr-defined]
    assert reading.digest is None
