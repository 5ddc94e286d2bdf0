"""Output files: Parquet, or JSON lines compressed with zstd that lose nothing of a row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard

from filters.arrays import Int64
from filters.errors import InputError
from filters.read.columns import base64_text, duration, number

ROW_GROUP_BYTES = 32 * 2**20
"""Bytes of Arrow data in a row group: some 10,000 web pages, so that a reader can skip and parallelise. It ends with
the row that reaches them: where it ends depends on the rows alone, not on the batches they come in."""
ZSTD_LEVEL = 3


class _Writer(Protocol):
    def write(self, table: pa.Table) -> None: ...
    def close(self) -> None: ...


class _ParquetWriter:
    def __init__(self, path: Path, schema: pa.Schema, plain: frozenset[str]) -> None:
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=ZSTD_LEVEL,
            write_page_checksum=True,
            use_dictionary=[name for name in schema.names if name not in plain],
            write_statistics=[name for name in schema.names if name not in plain],
        )

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=max(table.num_rows, 1))

    def close(self) -> None:
        self._writer.close()


class _JsonLinesWriter:
    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._stream: Any = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).stream_writer(self._file)

    def write(self, table: pa.Table) -> None:
        for batch in table.to_batches():
            self._stream.write(b"\n".join([*json_lines(batch), b""]))

    def close(self) -> None:
        self._stream.close()
        self._file.close()


class ShardWriter:
    """Writes rows to one file, in the order given. Use as a context manager: on an exception the file is removed.

    Args:
        path: of the file; it does not exist yet.
        schema: of the rows; every table is cast to it.
        plain: columns of mostly distinct values, written without dictionary and statistics.

    Raises:
        InputError: a column of the schema has no form in JSON, where that is asked for.

    Attributes:
        rows: written so far.
    """

    def __init__(self, path: Path, schema: pa.Schema, plain: frozenset[str] = frozenset({"text", "id"})) -> None:
        self.path, self.schema, self.rows = path, schema, 0
        self._pending: list[pa.Table] = []
        self._pending_bytes, self._closed = 0, False
        if path.suffix != ".parquet":
            check_schema(schema)
        self._writer: _Writer = (
            _ParquetWriter(path, schema, plain) if path.suffix == ".parquet" else _JsonLinesWriter(path)
        )

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        table = table.select(self.schema.names).cast(self.schema)
        self.rows += table.num_rows
        ends, start = self._pending_bytes + np.cumsum(_sizes(table)), 0
        while start < table.num_rows:
            stop = min(int(np.searchsorted(ends, ROW_GROUP_BYTES)) + 1, table.num_rows)
            self._pending.append(table.slice(start, stop - start))
            self._pending_bytes, start = int(ends[stop - 1]), stop
            if self._pending_bytes >= ROW_GROUP_BYTES:
                ends = ends - self._pending_bytes
                self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write(pa.concat_tables(self._pending).combine_chunks())
        self._pending, self._pending_bytes = [], 0

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Write what is pending, and end the file."""
        self._flush()
        self._writer.close()
        self._closed = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._closed:
            return
        if kind is None:
            self.close()
            return
        with suppress(Exception):  # the error at hand is the one to tell
            self._writer.close()
        self.path.unlink(missing_ok=True)


def _sizes(table: pa.Table) -> Int64:
    """int64[n]: bytes of each row, about."""
    sizes: Int64 = np.full(table.num_rows, 8 * table.num_columns, np.int64)
    for column in table.columns:
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
            sizes += pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            sizes += 8 * pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    return sizes


_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def check_schema(schema: pa.Schema) -> None:
    """Refuse what JSON has no form for, before anything is written.

    Raises:
        InputError: names the column.
    """
    for field in schema:
        try:
            _values(pa.nulls(1, field.type))
        except (pa.ArrowException, TypeError) as error:
            raise InputError(
                f"column {field.name!r} of type {field.type} cannot be written as JSON ({error}). Remedy: "
                "output.format: parquet, or leave it out of input.columns"
            ) from error


def json_lines(batch: pa.RecordBatch) -> Iterator[bytes]:
    """One JSON object a row, without the line end.

    Binary is base64, decimals and times are strings (durations as ISO 8601 has them), maps are lists of pairs, and a
    number that is not finite is "NaN", "Infinity" or "-Infinity".
    """
    names = batch.schema.names
    for row in zip(*map(_values, batch.columns), strict=True):
        yield orjson.dumps(dict(zip(names, row, strict=True)))


def _values(array: pa.Array) -> list[Any]:
    """The values of a column, of types that orjson writes."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _values(array.storage)
    if pa.types.is_dictionary(kind):
        return _values(array.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return _values(pc.run_end_decode(array))
    if pa.types.is_floating(kind):
        values: list[Any] = array.to_pylist()
        return values if pc.all(pc.is_finite(array)).as_py() is not False else [number(value) for value in values]
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        if pa.types.is_duration(kind):
            counts = array.cast(pa.int64()).to_pylist()
            return [None if count is None else duration(count, _PER_SECOND[kind.unit]) for count in counts]
        if pa.types.is_interval(kind):
            raise TypeError("an interval of months, days and nanoseconds")
        return list(array.cast(pa.string()).to_pylist())
    if _is_binary(kind):
        return [None if value is None else base64_text(value) for value in array.to_pylist()]
    if pa.types.is_struct(kind):
        return _structs(array)
    if pa.types.is_map(kind):
        pairs = array.cast(pa.list_(pa.struct([pa.field("key", kind.key_type), pa.field("value", kind.item_type)])))
        return _lists(pairs, [list(pair.values()) for pair in _structs(pairs.flatten())])
    if _is_list(kind):
        return _lists(array, _values(array.flatten()))
    if pa.types.is_union(kind):
        raise TypeError("a union")
    return list(array.to_pylist())


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    sized = types.is_fixed_size_binary(kind) or types.is_large_binary(kind)
    return bool(types.is_binary(kind) or types.is_binary_view(kind) or sized)


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    views = types.is_list_view(kind) or types.is_large_list_view(kind)
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or views)


def _lists(array: pa.Array, values: list[Any]) -> list[Any]:
    lists: list[Any] = []
    start = 0
    lengths = pc.list_value_length(array).to_pylist()
    for valid, length in zip(array.is_valid().to_pylist(), lengths, strict=True):
        lists.append(values[start : start + length] if valid else None)
        start += length if valid else 0
    return lists


def _structs(array: pa.Array) -> list[Any]:
    names = [field.name for field in array.type]
    if len(set(names)) < len(names):
        raise TypeError("two fields of one name")
    if not names:
        return [{} if valid else None for valid in array.is_valid().to_pylist()]
    rows = zip(*map(_values, array.flatten()), strict=True)
    return [
        dict(zip(names, row, strict=True)) if valid else None
        for valid, row in zip(array.is_valid().to_pylist(), rows, strict=True)
    ]
