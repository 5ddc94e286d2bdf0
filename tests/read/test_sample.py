from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from synthetic import responses, warc_record

from filters.config.filter import InputConfig
from filters.errors import InputError
from filters.read.sample import InputSample, draw_sample
from filters.read.units import plan_units, read_unit


def draw(folder: Path, config: InputConfig, documents: int, seed: int = 0) -> tuple[InputSample, list[str], int]:
    """The sample, the texts that the reader finds in it, and how many records it quarantines."""
    place = folder / f"sample-{documents}-{seed}"
    place.mkdir(exist_ok=True)
    sample = draw_sample(plan_units(config), [config], documents, seed)
    batches = [batch for unit in sample.write(place) for batch in read_unit(unit, config)]
    texts = [text for batch in batches for text in batch.text.to_pylist()]
    return sample, texts, sum(len(batch.quarantined) for batch in batches)


def lines(path: Path, first: int, count: int) -> None:
    rows = [json.dumps({"id": str(n), "text": f"page {n} says {n * n}"}) + "\n" for n in range(first, first + count)]
    content = "".join(rows).encode()
    compress = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(path.suffix, bytes)
    path.write_bytes(compress(content))


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_lines_are_drawn_from_every_file(tmp_path: Path, suffix: str) -> None:
    for number in range(4):
        lines(tmp_path / f"part-{number}.jsonl{suffix}", number * 1000, 1000)
    config = InputConfig(kind="jsonl", paths=(f"{tmp_path}/*.jsonl{suffix}",))
    sample, texts, bad = draw(tmp_path, config, 100)
    numbers = [int(text.split()[1]) for text in texts]
    assert 100 <= len(set(numbers)) == len(numbers) <= 104
    assert bad == 0
    assert {number // 1000 for number in numbers} == {0, 1, 2, 3}
    assert max(number % 1000 for number in numbers) > 500  # not only heads of files
    assert [drawn.records for drawn in sample.drawn] == [1000] * 4
    assert all(drawn.whole for drawn in sample.drawn)
    assert draw(tmp_path, config, 100, seed=1)[1] != texts
    assert draw(tmp_path, config, 100)[1] == texts
    other = tmp_path / "again"
    other.mkdir()
    pieces = [read_unit(unit, config) for unit in sample.write(other, every=4, pieces=3)]
    assert [text for piece in pieces for batch in piece for text in batch.text.to_pylist()] == texts[::4]
    assert len(pieces) == 3


def test_of_many_files_some_are_drawn_the_large_ones_more_often(tmp_path: Path) -> None:
    for number in range(60):
        lines(tmp_path / f"part-{number:02d}.jsonl", number * 1000, 900 if number == 30 else 10)
    sample, texts, _ = draw(tmp_path, InputConfig(kind="jsonl", paths=(str(tmp_path),)), 160)
    large = sum(30_000 <= int(text.split()[1]) < 31_000 for text in texts)
    assert 1 < len(sample.drawn) <= 16
    assert large / len(texts) > 0.5


def test_bad_lines_and_damage_are_part_of_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    content = gzip.compress(b'{"text": "one"}\n{broken\n{"text": "two"}\n')
    path.write_bytes(content + gzip.compress(b'{"text": "three"}\n' * 1000)[:-20])
    sample, texts, bad = draw(tmp_path, InputConfig(kind="jsonl", paths=(str(path),)), 10_000)
    assert "one" in texts
    assert bad == 1
    assert sample.drawn[0].bad == 1  # the truncated member
    assert sample.drawn[0].records == len(texts) + 2


def test_rows_are_drawn_from_all_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pa.table({"text": [f"page {n}" for n in range(5000)], "id": list(map(str, range(5000))), "n": range(5000)})
    pq.write_table(table, path, row_group_size=500)
    config = InputConfig(kind="parquet", paths=(str(path),), id_key="id")
    sample, texts, _ = draw(tmp_path, config, 200)
    numbers = [int(text.split()[1]) for text in texts]
    assert {number // 500 for number in numbers} == set(range(10))
    assert len(set(numbers)) == len(numbers) == 200
    assert "n" not in pq.read_schema(sample.write(tmp_path)[0].address).names  # nobody asked for it


def test_an_unreadable_parquet_file_counts_as_bad(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a page"] * 100}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1" + bytes(500))
    sample, texts, _ = draw(tmp_path, InputConfig(kind="parquet", paths=(f"{tmp_path}/*.parquet",)), 50)
    assert set(texts) == {"a page"}
    assert sum(drawn.bad for drawn in sample.drawn) == 1
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(InputError, match="no row of the drawn row groups can be read"):
        draw(tmp_path, InputConfig(kind="parquet", paths=(f"{tmp_path}/*.parquet",)), 51)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a page"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"no column 'text'; the file has body"):
        draw(tmp_path, InputConfig(kind="parquet", paths=(str(tmp_path),)), 5)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor().compress, bytes])
def test_warc_responses_are_drawn(tmp_path: Path, compress: object) -> None:
    assert callable(compress)
    records = [warc_record(100, b"software: test\r\n", "warcinfo"), *responses(40)]
    path = tmp_path / "in.warc"
    path.write_bytes(b"".join(map(compress, records)))
    config = InputConfig(kind="warc", paths=(str(path),))
    every = {html for batch in read_unit(plan_units(config)[0], config) for html in batch.html.to_pylist()}
    sample, texts, bad = draw(tmp_path, config, 10)
    assert len(texts) == 10
    assert bad == 0
    assert sample.drawn[0].records == 40
    found = {html for batch in read_unit(sample.write(tmp_path)[0], config) for html in batch.html.to_pylist()}
    assert len(found) == 10
    assert found < every


@pytest.mark.parametrize("kind", ["jsonl", "wet"])
@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_compressed_file_is_sampled_far_beyond_its_first_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, compress: Callable[[bytes], bytes]
) -> None:
    """Short pages first, as in a file that is sorted: the beginning says little of the rest."""
    monkeypatch.setattr("filters.read.sample.LOCAL_BYTES", 1 << 16)
    count = 24_000
    texts = [f"page {n} " + "word " * (4 if n < count // 2 else 60) for n in range(count)]
    if kind == "jsonl":
        content = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    else:
        content = b"".join(
            f"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: {len(text)}\r\n\r\n{text}\r\n\r\n".encode()
            for text in texts
        )
    path = tmp_path / ("in.jsonl.gz" if kind == "jsonl" else "in.wet.gz")
    path.write_bytes(compress(content))
    sample, drawn, _ = draw(tmp_path, InputConfig.model_validate({"kind": kind, "paths": [str(path)]}), 400)
    numbers = sorted(int(text.split()[1]) for text in drawn)
    assert numbers[0] < count // 10
    assert numbers[-1] > count * 9 // 10
    assert sum(number >= count // 2 for number in numbers) > len(numbers) // 4
    (only,) = sample.drawn
    assert only.whole
    assert only.records == count
