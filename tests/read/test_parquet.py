from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import read_file

from filters.config.filter import InputConfig
from filters.errors import InputError
from filters.read.parquet import DECODED_BYTES, batch_rows
from filters.read.unit import ROWS_PER_UNIT
from filters.read.units import plan_units, read_unit


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **{"write_page_checksum": True, **options})
    return path


def texts(count: int) -> list[str]:
    return [f"text of row {row} " * 20 for row in range(count)]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.string_view(),
    ],
    ids=str,
)
def test_reads_text_of_every_type(tmp_path: Path, kind: pa.DataType) -> None:
    values = [value.encode() if "binary" in str(kind) else value for value in texts(2300)]
    path = write(tmp_path / "a.parquet", {"text": pa.array(values).cast(kind)}, row_group_size=900)
    result = read_file(path, "parquet")
    assert result.texts == texts(2300)
    assert result.positions == list(range(2300))
    assert len(set(result.ids)) == 2300


def test_ids_and_columns_are_passed_through(tmp_path: Path) -> None:
    columns = {
        "text": texts(4),
        "id": [1, None, 3, 4],
        "url": pa.array(["a", "b", None, "d"], pa.large_string()),
        "n": pa.array([1, 2, 3, None], pa.int16()),
        "tags": [["x"], [], None, ["y", "z"]],
    }
    result = read_file(write(tmp_path / "a.parquet", columns), "parquet", id_key="id", columns=["n", "tags"])
    assert [value for value in result.ids if len(value) < 32] == ["1", "3", "4"]
    assert result.column("url") == ["a", "b", None, "d"]
    assert result.column("n") == [1, 2, 3, None]
    assert result.column("tags") == [["x"], [], None, ["y", "z"]]
    (batch,) = result.batches
    assert (batch.columns["url"].type, batch.columns["n"].type) == (pa.string(), pa.int16())


def test_rows_without_text_get_a_reason(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["a", None, "", " \n\u2003", "b"]})
    result = read_file(path, "parquet")
    assert result.reasons == [None, "missing_text", "empty_text", "empty_text", None]
    assert result.texts == ["a", "", "", " \n\u2003", "b"]


def test_a_column_of_nulls_only_is_missing_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": pa.nulls(3)})
    assert read_file(path, "parquet").reasons == 3 * ["missing_text"]


def test_an_empty_file_has_no_documents(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": pa.array([], pa.string())})
    assert read_file(path, "parquet").records == 0


@pytest.mark.parametrize("column", ["text", "url", "tags"])
def test_bytes_that_are_no_utf8_cost_their_record(tmp_path: Path, column: str) -> None:
    broken = pa.array([b"fine", b"caf\xe9", b"fine too"]).view(pa.string())
    columns = {"text": pa.array(["one", "two", "three"]), "url": pa.array(["u", "v", "w"])}
    columns["tags"] = pa.ListArray.from_arrays([0, 1, 2, 3], pa.array(["a", "b", "c"]))
    columns[column] = pa.ListArray.from_arrays([0, 1, 2, 3], broken) if column == "tags" else broken
    path = write(tmp_path / "a.parquet", columns)
    result = read_file(path, "parquet", columns=["tags"])
    assert result.positions == [0, 2]
    assert result.causes == ["invalid_utf8"]
    assert result.quarantined[0].position == 1
    assert repr(column) in result.quarantined[0].cause


def test_missing_column_names_the_file_its_columns_and_the_remedy(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"content": texts(1), "n": [1]})
    with pytest.raises(
        InputError, match=r"a\.parquet: no column 'text'; the file has content, n\. Set input\.text_key"
    ):
        read_file(path, "parquet")
    with pytest.raises(InputError, match="no column 'nid', 'more'"):
        read_file(path, "parquet", text_key="content", id_key="nid", columns=["more", "n"])


def test_a_text_column_of_numbers_is_an_input_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": [1, 2]})
    with pytest.raises(InputError, match="'text' is of type int64, not text"):
        read_file(path, "parquet")


def test_a_damaged_page_costs_its_row_group_and_no_other(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet", {"text": texts(900)}, row_group_size=300, compression="snappy", use_dictionary=False
    )
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 0x10
    path.write_bytes(data)
    result = read_file(path, "parquet")
    assert result.records == 900
    assert result.positions == [*range(300), *range(600, 900)]
    assert [record.position for record in result.quarantined] == list(range(300, 600))
    assert set(result.causes) == {"corrupt"}
    assert result.texts == [*texts(900)[:300], *texts(900)[600:]]


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.99])
def test_a_file_without_footer_is_one_quarantined_record(tmp_path: Path, keep: float) -> None:
    path = write(tmp_path / "a.parquet", {"text": texts(100)})
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    result = read_file(path, "parquet")
    assert (len(result), result.causes) == (0, ["corrupt"])
    assert result.quarantined[0].position == -1


def test_a_file_is_cut_into_row_ranges(tmp_path: Path) -> None:
    rows = 52_000
    path = write(tmp_path / "a.parquet", {"text": pa.array(["x"] * rows)}, row_group_size=8_000)
    units = plan_units(InputConfig(kind="parquet", paths=(str(path),)))
    assert [(unit.start, unit.stop) for unit in units] == [(0, 16_000), (16_000, 32_000), (32_000, 52_000)]
    assert all(unit.stop - unit.start <= ROWS_PER_UNIT for unit in units if unit.stop and unit.start is not None)
    assert [unit.index for unit in units] == [0, 1, 2]
    result = read_file(path, "parquet")
    assert result.positions == list(range(rows))


def test_large_texts_make_small_batches_and_too_large_ones_are_quarantined(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["x" * 8_000_000 for _ in range(10)] + ["y" * 60_000_000]})
    result = read_file(path, "parquet", max_document_bytes="50MB")
    assert len(result) == 10
    assert all(sum(map(len, batch.text.to_pylist())) <= 40_000_000 for batch in result.batches)
    assert result.causes == ["too_large"]


def test_real_pages(shared_data: Path) -> None:
    path = shared_data / "web" / "unlabelled.parquet"
    result = read_file(path, "parquet", id_key="id")
    assert result.texts == pq.read_table(path, columns=["text"])["text"].to_pylist()
    assert set(result.reasons) == {None}
    assert len(set(result.ids)) == 4353


def test_one_text_named_by_every_row_takes_bounded_memory(tmp_path: Path) -> None:
    """A text of 2 MB in a dictionary, 5,000 times: 10 GB of rows in a file of a few kilobytes."""
    path = tmp_path / "a.parquet"
    column = pa.array(["a " * (1 << 20)]).dictionary_encode()
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), column.dictionary)
    pq.write_table(pa.table({"text": column}), path, compression="zstd", dictionary_pagesize_limit=1 << 30)
    assert path.stat().st_size < 10_000
    with path.open("rb") as handle:
        metadata = pq.read_metadata(path)
        assert batch_rows(metadata, 0, handle, ["text"]) * (2 << 20) <= DECODED_BYTES
        assert batch_rows(metadata, 0, handle, ["other"]) == 1000
    config = InputConfig(kind="parquet", paths=(str(path),))
    (unit,) = plan_units(config)
    before = pa.total_allocated_bytes()
    batches = read_unit(unit, config)
    for _ in range(3):
        batch = next(batches)
        assert len(batch) <= 17
        assert pa.total_allocated_bytes() - before < 2 * DECODED_BYTES


def test_texts_that_repeat_the_one_before_take_bounded_memory(tmp_path: Path) -> None:
    """A text of 2 MB, 450 times, stored as "the one before" but for the first of a group: 900 MB in kilobytes."""
    path = tmp_path / "a.parquet"
    text = pa.array(["a " * (1 << 20)])
    schema = pa.schema({"text": pa.string()})
    encoding = {"text": "DELTA_BYTE_ARRAY"}
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False, column_encoding=encoding) as writer:
        for _ in range(3):
            writer.write_batch(pa.record_batch([text.take(pa.array([0] * 150))], schema=schema), row_group_size=1000)
    assert path.stat().st_size < 10_000
    config = InputConfig(kind="parquet", paths=(str(path),))
    (unit,) = plan_units(config)
    before = pa.total_allocated_bytes()
    rows = 0
    for batch in read_unit(unit, config):
        rows += len(batch)
        assert pa.total_allocated_bytes() - before < DECODED_BYTES
    assert rows == 450


NAMED = "a " * (1 << 20)
TYPES = {
    "list": (pa.list_(pa.string()), lambda n: [NAMED] * n),
    "list of lists": (
        pa.list_(pa.large_list(pa.string())),
        lambda n: [[NAMED] * (n // 2), [], None, [NAMED] * (n - n // 2)],
    ),
    "map": (pa.map_(pa.string(), pa.string()), lambda n: [(f"{row}", NAMED) for row in range(n)]),
    "list of structs": (
        pa.list_(pa.struct({"a": pa.int64(), "b": pa.list_(pa.string())})),
        lambda n: [{"a": row, "b": [NAMED]} for row in range(n)],
    ),
}


@pytest.mark.parametrize("name", TYPES)
def test_lists_that_name_one_text_take_bounded_memory(tmp_path: Path, name: str) -> None:
    """Lists that name a text of 2 MB 600 times: 1.2 GB a row in kilobytes. Those of one and two names are kept."""
    path = tmp_path / "a.parquet"
    kind, make = TYPES[name]
    table = pa.table(
        {"text": ["a text"] * 6, "tags": pa.array([make(1), None, make(0), make(1), make(2), make(1)], kind)}
    )
    schema = table.schema
    with pq.ParquetWriter(path, schema, compression="zstd", dictionary_pagesize_limit=1 << 30) as writer:
        writer.write_table(table)
    small = path.stat().st_size
    rows = table.to_pylist()
    del table
    config = InputConfig(kind="parquet", paths=(str(path),), columns=("tags",))
    (unit,) = plan_units(config)
    found = [row for batch in read_unit(unit, config) for row in batch.columns["tags"].to_pylist()]
    assert found == [row["tags"] for row in rows]
    assert small < 10_000
    many = tmp_path / "many.parquet"
    offsets = pa.array([0, 1, 601, 602, 602], pa.int32())
    values = pa.DictionaryArray.from_arrays(pa.array([0] + [1] * 601, pa.int32()), pa.array(["small", NAMED]))
    lists = pa.ListArray.from_arrays(offsets, values)
    pq.write_table(
        pa.table({"text": ["a text"] * 4, "tags": lists}), many, compression="zstd", dictionary_pagesize_limit=1 << 30
    )
    config = InputConfig(kind="parquet", paths=(str(many),), columns=("tags",))
    (unit,) = plan_units(config)
    before, peak, positions, causes = pa.total_allocated_bytes(), 0, [], []
    for batch in read_unit(unit, config):
        peak = max(peak, pa.total_allocated_bytes() - before)
        positions += batch.position.tolist()
        causes += [(record.position, record.cause) for record in batch.quarantined]
    assert positions == [0, 2, 3]
    assert causes == [(1, "too_large: lists of 1,258,291,200 bytes in a row (input.max_document_bytes)")]
    assert peak < DECODED_BYTES


def test_lists_that_claim_more_values_than_their_bytes_hold_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("filters.read.parquet.DECODED_BYTES", 1 << 20)
    path = tmp_path / "a.parquet"
    values = pa.repeat(pa.scalar(7, pa.int32()), 1_000_000)
    lists = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    pq.write_table(pa.table({"text": ["a text"], "tags": lists}), path, compression="zstd")
    assert path.stat().st_size < 2000
    config = InputConfig(kind="parquet", paths=(str(path),), columns=("tags",))
    (unit,) = plan_units(config)
    (batch,) = read_unit(unit, config)
    (record,) = batch.quarantined
    assert record.cause.startswith("corrupt: row group 0")
    assert record.cause.endswith("column tags.list.element claims 1,000,000 values in lists")


@pytest.mark.parametrize("encoding", [None, "PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_long_lists_of_short_words_are_read_as_they_are(tmp_path: Path, encoding: str | None) -> None:
    path = tmp_path / "a.parquet"
    rows = [[f"word {(row * n) % 9_000}" for n in range(row % 50)] if row % 7 else None for row in range(20_000)]
    texts = [f"text {row}" for row in range(20_000)]
    options = {} if encoding is None else {"column_encoding": {"tags.list.element": encoding}, "use_dictionary": False}
    pq.write_table(pa.table({"text": texts, "tags": rows}), path, **options)
    config = InputConfig(kind="parquet", paths=(str(path),), columns=("tags",))
    (unit,) = plan_units(config)
    batches = list(read_unit(unit, config))
    assert [row for batch in batches for row in batch.columns["tags"].to_pylist()] == rows
    assert [text for batch in batches for text in batch.text.to_pylist()] == texts


def test_an_id_that_is_nan_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c", "d"], "id": [1.5, float("nan"), float("nan"), None]}), path)
    result = read_file(path, "parquet", id_key="id")
    assert result.ids[0] == "1.5"
    assert len(set(result.ids)) == 4
    assert "nan" not in result.ids


def test_ordinary_dictionaries_leave_batches_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"text {row % 7}" for row in range(3000)]}), path)
    with path.open("rb") as handle:
        assert batch_rows(pq.read_metadata(path), 0, handle, ["text"]) == 1000
