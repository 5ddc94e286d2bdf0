"""Shards: cut by the rows alone, whole or absent, readable by others."""

from __future__ import annotations

from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from filters.pipeline.shards import ShardWriter, read_rows
from filters.publish import publishing

SCHEMA = pa.schema([pa.field("id", pa.string()), pa.field("text", pa.large_string()), pa.field("n", pa.int64())])


def rows(start: int, count: int) -> tuple[pa.Table, pa.Array]:
    texts = ["x" * (number % 7 + 1) for number in range(start, start + count)]
    ids = [str(number) for number in range(start, start + count)]
    table = pa.table({"n": range(start, start + count), "text": texts, "id": ids})
    return table, pa.array([len(text) for text in texts], type=pa.int64())


def write(folder: Path, steps: list[int], size: int = 50, format: str = "parquet") -> list[Path]:
    folder.mkdir()
    with ShardWriter(folder, "shard", SCHEMA, size, format) as writer:
        start = 0
        for step in steps:
            writer.write(*rows(start, step))
            start += step
    return writer.files


@pytest.mark.parametrize("format", ["parquet", "jsonl.zst"])
def test_the_cut_does_not_depend_on_batches(tmp_path: Path, format: str) -> None:
    one = write(tmp_path / "one", [100], format=format)
    many = write(tmp_path / "many", [1, 0, 2, 30, 67], format=format)
    assert len(one) > 5
    assert [read_rows(path) for path in one] == [read_rows(path) for path in many]
    assert sum(read_rows(path) for path in one) == 100


def test_a_shard_ends_with_the_row_that_fills_it(tmp_path: Path) -> None:
    files = write(tmp_path / "run", [100], size=50)
    for path in files[:-1]:
        weights = [len(text) for text in pq.read_table(path)["text"].to_pylist()]
        assert sum(weights) >= 50
        assert sum(weights[:-1]) < 50


def test_rows_come_back_in_order_with_the_explicit_schema_and_checksums(tmp_path: Path) -> None:
    files = write(tmp_path / "run", [60, 40])
    tables = [pq.ParquetFile(path, page_checksum_verification=True).read() for path in files]
    assert pa.concat_tables(tables)["n"].to_pylist() == list(range(100))
    assert tables[0].schema == SCHEMA
    text = pq.ParquetFile(files[0]).metadata.row_group(0).column(1)
    damaged = bytearray(files[0].read_bytes())
    damaged[text.data_page_offset + text.total_compressed_size - 3] ^= 0xFF
    files[0].write_bytes(damaged)
    with pytest.raises(OSError, match=r"checksum|CRC"):
        pq.ParquetFile(files[0], page_checksum_verification=True).read()


def test_json_lines_hold_every_column(tmp_path: Path) -> None:
    (path,) = write(tmp_path / "run", [3], size=10**6, format="jsonl.zst")
    with path.open("rb") as file:
        lines = zstandard.ZstdDecompressor().stream_reader(file).read().splitlines()
    assert [orjson.loads(line) for line in lines][1] == {"id": "1", "text": "xx", "n": 1}


def test_no_rows_make_one_file_with_the_schema(tmp_path: Path) -> None:
    (path,) = write(tmp_path / "run", [])
    assert pq.read_table(path).schema == SCHEMA
    assert read_rows(path) == 0


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(RuntimeError, match="mid"), ShardWriter(folder, "shard", SCHEMA, 50) as writer:
        writer.write(*rows(0, 100))
        raise RuntimeError("mid")
    assert all(read_rows(path) for path in folder.iterdir())
    assert not list(folder.glob(".*"))


def test_publishing_leaves_the_old_file_when_the_new_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(RuntimeError), publishing(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
