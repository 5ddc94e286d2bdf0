"""A file of labelled pages as a table: Parquet, JSON lines or CSV, whole, with the columns that mean something here.

What a file is, its first bytes say, not its name. JSON lines and CSV may be compressed (gzip, zstd).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import zstandard

from filters.errors import AnnotationsError

STRINGS = ("text", "id", "url", "topic", "format", "language", "source", "sampling")
NUMBERS = ("score", "expected_score", "score_2", "expected_score_2", "natural_weight")
LISTS = ("scores",)
COLUMNS = (*STRINGS, *NUMBERS, *LISTS)
"""Columns that are read; a file may have others."""
MOST_BYTES = 8 * 2**30
"""Most bytes of a compressed file's content."""

_FOREIGN = (
    (b"SQLite format 3\x00", "an SQLite data base. Remedy: finesieve annotate writes annotations of an answer store"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook. Remedy: unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook. Remedy: save the sheet as CSV"),
    (b"ARROW1", "an Arrow or Feather file. Remedy: write it as Parquet (pyarrow.parquet.write_table)"),
    (b"ORC", "an ORC file. Remedy: write it as Parquet"),
    (b"Obj\x01", "an Avro file. Remedy: write it as Parquet"),
    (b"\x89HDF", "an HDF5 file. Remedy: write it as Parquet"),
    (b"%PDF", "a PDF"),
    (b"BZh", "compressed with bzip2. Remedy: unpack it"),
    (b"\xfd7zXZ", "compressed with xz. Remedy: unpack it"),
    (b"\x80\x04", "a Python pickle. Remedy: write it as Parquet"),
    (b"\xff\xfe", "UTF-16 text. Remedy: save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text. Remedy: save it as UTF-8"),
)


@dataclass(frozen=True)
class LabelFile:
    """What a file of labelled pages holds.

    Attributes:
        path: of the file.
        sha256: of the file as stored.
        table: those of its columns that are in `COLUMNS`, in the order of the file; strings are not dictionary-encoded.
        names: of all its columns.
    """

    path: Path
    sha256: str
    table: pa.Table
    names: tuple[str, ...]

    def require(self, name: str, remedy: str) -> None:
        """Refuse a file without a column.

        Raises:
            AnnotationsError: names the columns that there are.
        """
        if name not in self.table.column_names:
            found = ", ".join(self.names) or "none"
            raise AnnotationsError(f"{self.path}: column {name!r} is missing; found {found}. Remedy: {remedy}")

    def strings(self, name: str) -> list[str | None]:
        """A column of strings.

        Raises:
            AnnotationsError: it holds something else, or invalid UTF-8.
        """
        column = self.table.column(name)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise AnnotationsError(f"{self.path}: column {name!r} holds {column.type}, not strings")
        try:
            values: list[str | None] = column.to_pylist()
        except UnicodeDecodeError as error:
            raise AnnotationsError(f"{self.path}: column {name!r} holds invalid UTF-8: {error}") from error
        return values

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """float64[n]: a column of numbers, NaN where null.

        Raises:
            AnnotationsError: it holds something else.
        """
        column = self.table.column(name)
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise AnnotationsError(f"{self.path}: column {name!r} holds {column.type}, not numbers")
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)

    def lists(self, name: str) -> list[list[float | None] | None]:
        """A column of lists of numbers.

        Raises:
            AnnotationsError: it holds something else.
        """
        column = self.table.column(name)
        kind = column.type
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if not lists or not (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)):
            raise AnnotationsError(f"{self.path}: column {name!r} holds {kind}, not lists of numbers")
        values: list[list[float | None] | None] = column.to_pylist()
        return values


def read_labels(path: str | Path) -> LabelFile:
    """Read a file of labelled pages.

    Raises:
        AnnotationsError: it cannot be read, or is none of the three formats; says what it is instead, and where.
    """
    path = Path(path)
    if path.is_dir():
        raise AnnotationsError(f"{path}: a folder. Remedy: name one file of labels (Parquet, JSON lines or CSV)")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise AnnotationsError(f"{path}: cannot read this file: {error.strerror}. Remedy: check the path") from error
    except ValueError as error:  # a NUL in the path
        raise AnnotationsError(f"{path!r}: cannot read this file: {error}. Remedy: check the path") from error
    table, names = _table(path, raw)
    twice = next((name for name in COLUMNS if names.count(name) > 1), None)
    if twice is not None:
        raise AnnotationsError(f"{path}: two columns are called {twice!r}. Remedy: rename or drop one of them")
    for place, name in enumerate(table.column_names):
        kind = table.schema.field(place).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_string_view(kind):
            kind = pa.large_string()
        if pa.types.is_decimal(kind):
            kind = pa.float64()
        table = table.set_column(place, name, table.column(place).cast(kind))
    return LabelFile(path, hashlib.sha256(raw).hexdigest(), table, tuple(names))


def _table(path: Path, raw: bytes) -> tuple[pa.Table, list[str]]:
    """(columns in `COLUMNS`, names of all columns)."""
    if raw[:4] == b"PAR1" or path.suffix.lower() in (".parquet", ".pq"):
        return _parquet(path, raw)
    content = _unpacked(path, raw).removeprefix(b"\xef\xbb\xbf")
    what = next((what for magic, what in _FOREIGN if content.startswith(magic)), None)
    if what is None and b"\x00" in content[:4096]:
        what = "no text, and no Parquet file"
    if what is not None:
        raise AnnotationsError(f"{path}: this is {what}. Labels are read from Parquet, JSON lines and CSV")
    first = content.lstrip()[:1]
    if not first:
        raise AnnotationsError(f"{path}: this file is empty. Remedy: write the labels again")
    if first == b"[":
        raise AnnotationsError(f"{path}: this is a JSON array. Remedy: write JSON lines, one object a line")
    return _json_lines(path, content) if first == b"{" else _csv(path, content)


def _unpacked(path: Path, raw: bytes) -> bytes:
    try:
        if raw[:2] == b"\x1f\x8b":
            stream: gzip.GzipFile | zstandard.ZstdDecompressionReader = gzip.GzipFile(fileobj=io.BytesIO(raw))
        elif raw[:4] == b"\x28\xb5\x2f\xfd":
            stream = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw), read_across_frames=True)
        else:
            return raw
        content = stream.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise AnnotationsError(f"{path}: compressed, and damaged: {error}. Remedy: get or write it again") from error
    if len(content) > MOST_BYTES:
        raise AnnotationsError(f"{path}: unpacks to more than {MOST_BYTES:,} bytes. Remedy: give a part of it")
    return content


def _parquet(path: Path, raw: bytes) -> tuple[pa.Table, list[str]]:
    try:
        file = pq.ParquetFile(pa.BufferReader(raw))
        names: list[str] = file.schema_arrow.names
        present = [name for name in dict.fromkeys(names) if name in COLUMNS]
        return file.read(columns=present), names
    except (OSError, pa.ArrowException) as error:
        raise AnnotationsError(
            f"{path}: not a Parquet file, or a damaged one: {error}. Remedy: write it again, or give JSON lines or CSV "
            "a name that says so"
        ) from error


def _json_lines(path: Path, content: bytes) -> tuple[pa.Table, list[str]]:
    names: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise AnnotationsError(
                f"{path}: line {number} is not JSON: {error}. Remedy: JSON lines have one object a line"
            ) from error
        if not isinstance(row, dict):
            raise AnnotationsError(f"{path}: line {number} is no JSON object. Remedy: one object a line, with the keys")
        names.update(dict.fromkeys(row))
        rows.append(row)
    columns = {}
    for name in (name for name in names if name in COLUMNS):
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values, pa.large_string() if name == "text" and not _others(values) else None)
        except (pa.ArrowException, OverflowError, TypeError) as error:
            raise AnnotationsError(
                f"{path}: column {name!r} holds values of several kinds: {error}. Remedy: write them all alike"
            ) from error
    return pa.table(columns), list(names)


def _others(values: Sequence[Any]) -> bool:
    return any(not isinstance(value, str | None) for value in values)


def _csv(path: Path, content: bytes) -> tuple[pa.Table, list[str]]:
    header = content.split(b"\n", 1)[0].decode("utf-8", "replace")
    delimiter = max(",;\t", key=header.count)
    names = next(csv.reader([header.rstrip("\r")], delimiter=delimiter), [])
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(content),
            # One block: a page may be longer than any.
            pyarrow.csv.ReadOptions(block_size=len(content) + 1, column_names=names, skip_rows=1),
            pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys((*STRINGS, *LISTS), pa.large_string()),
                include_columns=[name for name in dict.fromkeys(names) if name in COLUMNS],
                null_values=["", "null", "NULL", "NA", "N/A", "None"],
            ),
        )
    except (pa.ArrowException, OverflowError) as error:
        raise AnnotationsError(
            f"{path}: taken for CSV (its first bytes are neither Parquet nor JSON), and cannot be read as such: {error}"
            ". Remedy: CSV has a header, a column for each name in every row, and UTF-8"
        ) from error
    for name in (name for name in LISTS if name in table.column_names):
        table = table.set_column(table.column_names.index(name), name, _parsed(path, name, table.column(name)))
    return table, names


def _parsed(path: Path, name: str, column: pa.ChunkedArray) -> pa.Array:
    """Lists that a CSV file holds as JSON."""
    values: list[Any] = []
    for row, text in enumerate(column.to_pylist()):
        try:
            values.append(orjson.loads(text) if text else None)
        except orjson.JSONDecodeError as error:
            raise AnnotationsError(
                f"{path}: column {name!r} in row {row} is no list: {text!r:.40}. Remedy: write it as [2, 3]"
            ) from error
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise AnnotationsError(f"{path}: column {name!r} holds values of several kinds: {error}") from error
