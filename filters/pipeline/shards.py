"""Numbered output files that end at a planned size, each published whole: Parquet or zstd-compressed JSON lines."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard

from filters.pipeline.json_rows import check_schema, json_lines
from filters.publish import publishing

ROW_GROUP_BYTES = 32 * 2**20
"""Bytes of Arrow data in a row group: some 10,000 web pages, so that a reader can skip and parallelise."""
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
    """Rows in the order given, cut into files of a planned size.

    A file ends with the row that brings its weight to `size`, so the cut depends on the rows alone: not on batches,
    workers or compression. Use as a context manager; on an exception the unfinished file is removed.

    Args:
        folder: exists already.
        stem: file names are `{stem}-{number:05d}{suffix}`.
        schema: of the rows; every table is cast to it.
        size: weight at which a file ends.
        format: "parquet" or "jsonl.zst".
        plain: columns of mostly distinct values, written without dictionary and statistics.
        first: number of the first file.

    Raises:
        InputError: a column of the schema has no form in JSON, where that is asked for.

    Attributes:
        files: published or begun, in order.
        rows: written so far.
    """

    def __init__(
        self,
        folder: Path,
        stem: str,
        schema: pa.Schema,
        size: int,
        format: str = "parquet",
        plain: frozenset[str] = frozenset({"text", "id"}),
        first: int = 0,
    ) -> None:
        self.folder, self.stem, self.schema, self.size, self.format, self.plain = (
            folder, stem, schema, size, format, plain,
        )  # fmt: skip
        self.files: list[Path] = []
        self.rows = 0
        self._first = first
        self._weight = 0
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._writer: _Writer | None = None
        self._publishing: AbstractContextManager[Path] | None = None
        if format != "parquet":
            check_schema(schema)

    def write(self, table: pa.Table, weights: pa.Array) -> None:
        """Append rows.

        Args:
            table: n rows.
            weights: int64[n], what each row adds to its file's weight.
        """
        table = table.select(self.schema.names).cast(self.schema)
        self.rows += table.num_rows
        total = pc.cumulative_sum(weights).to_numpy()
        start = 0
        while start < table.num_rows:
            before = int(total[start - 1]) if start else 0
            room = self.size - self._weight
            stop = min(int(total.searchsorted(before + room, side="left")) + 1, table.num_rows)
            self._append(table.slice(start, stop - start))
            self._weight += int(total[stop - 1]) - before
            if self._weight >= self.size:
                self._finish()
            start = stop

    def _append(self, rows: pa.Table) -> None:
        self._pending.append(rows)
        self._pending_bytes += rows.nbytes
        if self._pending_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            suffix = ".parquet" if self.format == "parquet" else ".jsonl.zst"
            path = self.folder / f"{self.stem}-{self._first + len(self.files):05d}{suffix}"
            self._publishing = publishing(path)
            temporary = self._publishing.__enter__()
            self._writer = (
                _ParquetWriter(temporary, self.schema, self.plain)
                if self.format == "parquet"
                else _JsonLinesWriter(temporary)
            )
            self.files.append(path)
        if self._pending:
            self._writer.write(pa.concat_tables(self._pending))
        self._pending, self._pending_bytes = [], 0

    def _finish(self) -> None:
        self._flush()
        assert self._writer is not None
        assert self._publishing is not None
        self._writer.close()
        self._publishing.__exit__(None, None, None)
        self._writer, self._publishing, self._weight = None, None, 0

    def close(self) -> None:
        """Publish the last file. A writer that got no rows publishes one file without rows, for its schema."""
        if self._pending or self._writer is not None or not self.files:
            self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._publishing is not None:
            self._publishing.__exit__(kind, error, traceback)


def read_rows(path: Path) -> int:
    """Number of rows in a published file, counted from the file itself."""
    if path.suffix == ".parquet":
        return int(pq.read_metadata(path).num_rows)
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(2**20), b""))
