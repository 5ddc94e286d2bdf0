"""Output files: row groups of a size, checksums, whole or absent, readable by others."""

from __future__ import annotations

from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from filters.run import writers
from filters.run.writers import ShardWriter
from filters.storage.files import publishing

SCHEMA = pa.schema([pa.field("id", pa.string()), pa.field("text", pa.large_string()), pa.field("n", pa.int64())])


def rows(start: int, count: int) -> pa.Table:
    texts = ["x" * (number % 7 + 1) for number in range(start, start + count)]
    ids = [str(number) for number in range(start, start + count)]
    return pa.table({"n": range(start, start + count), "text": texts, "id": ids})


def write(path: Path, steps: list[int]) -> Path:
    with ShardWriter(path, SCHEMA) as writer:
        start = 0
        for step in steps:
            writer.write(rows(start, step))
            start += step
    assert writer.rows == start
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.zst"])
def test_small_batches_do_not_make_small_row_groups(tmp_path: Path, name: str) -> None:
    (tmp_path / "one").mkdir()
    one, many = write(tmp_path / "one" / name, [100]), write(tmp_path / name, [1, 0, 2, 30, 67])
    assert one.read_bytes() == many.read_bytes()


def test_rows_come_back_in_order_with_the_explicit_schema_and_checksums(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [60, 40])
    table = pq.ParquetFile(path, page_checksum_verification=True).read()
    assert table["n"].to_pylist() == list(range(100))
    assert table.schema == SCHEMA
    text = pq.ParquetFile(path).metadata.row_group(0).column(1)
    damaged = bytearray(path.read_bytes())
    damaged[text.data_page_offset + text.total_compressed_size - 3] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(OSError, match=r"checksum|CRC"):
        pq.ParquetFile(path, page_checksum_verification=True).read()


def test_a_row_group_ends_where_it_is_large_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "ROW_GROUP_BYTES", 2000)
    metadata = pq.read_metadata(write(tmp_path / "a.parquet", [10] * 50))
    assert metadata.num_rows == 500
    assert metadata.num_row_groups > 3


def test_json_lines_hold_every_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.zst", [3])
    with path.open("rb") as file:
        lines = zstandard.ZstdDecompressor().stream_reader(file).read().splitlines()
    assert [orjson.loads(line) for line in lines][1] == {"id": "1", "text": "xx", "n": 1}


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.zst"])
def test_no_rows_make_a_file_too(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [])
    if name.endswith(".parquet"):
        assert pq.read_table(path).schema == SCHEMA
    else:
        assert zstandard.ZstdDecompressor().decompress(path.read_bytes(), max_output_size=10) == b""


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.zst"])
def test_nothing_half_written_stays(tmp_path: Path, name: str) -> None:
    with pytest.raises(RuntimeError, match="mid"), ShardWriter(tmp_path / name, SCHEMA) as writer:
        writer.write(rows(0, 100))
        raise RuntimeError("mid")
    assert list(tmp_path.iterdir()) == []


def test_publishing_leaves_the_old_file_when_the_new_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(RuntimeError), publishing(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
