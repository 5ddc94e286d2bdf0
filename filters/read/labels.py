"""A file of labelled pages as a table: Parquet, JSON lines or CSV, whole, with the columns that mean something here.

What a file is, its first bytes say, not its name. JSON lines and CSV may be compressed (gzip, zstd, bz2, xz).
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from filters.errors import AnnotationsError
from filters.read.columns import is_number, is_numbers, is_text, plain_type
from filters.read.decompress import DamagedError, MemberStream

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
        table: those of its columns that were read, in the order of the file; strings are not dictionary-encoded.
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
        try:
            values: list[str | None] = self._column(name, "strings", is_text).to_pylist()
        except UnicodeDecodeError as error:
            raise AnnotationsError(f"{self.path}: column {name!r} holds invalid UTF-8: {error}") from error
        return values

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """float64[n]: a column of numbers, NaN where null.

        Raises:
            AnnotationsError: it holds something else.
        """
        column = self._column(name, "numbers", is_number)
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)

    def lists(self, name: str) -> list[list[float | None] | None]:
        """A column of lists of numbers.

        Raises:
            AnnotationsError: it holds something else.
        """
        values: list[list[float | None] | None] = self._column(name, "lists of numbers", is_numbers).to_pylist()
        return values

    def _column(self, name: str, what: str, fits: Callable[[pa.DataType], bool]) -> pa.ChunkedArray:
        column = self.table.column(name)
        if not fits(column.type):
            raise AnnotationsError(f"{self.path}: column {name!r} holds {column.type}, not {what}")
        return column


def read_labels(path: str | Path, also: Sequence[str] = ()) -> LabelFile:
    """Read a file of labelled pages: the columns in `COLUMNS`, and those named in `also`.

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
    wanted = {*COLUMNS, *also}
    table, names = _table(path, raw, wanted)
    twice = next((name for name in sorted(wanted) if names.count(name) > 1), None)
    if twice is not None:
        raise AnnotationsError(f"{path}: two columns are called {twice!r}. Remedy: rename or drop one of them")
    kinds = [plain_type(field.type) for field in table.schema]
    kinds = [pa.float64() if pa.types.is_decimal(kind) else kind for kind in kinds]
    table = table.cast(pa.schema(list(zip(table.column_names, kinds, strict=True))))
    return LabelFile(path, hashlib.sha256(raw).hexdigest(), table, tuple(names))


def _table(path: Path, raw: bytes, wanted: Set[str]) -> tuple[pa.Table, list[str]]:
    """(columns that are wanted, names of all columns)."""
    if raw[:4] == b"PAR1" or path.suffix.lower() in (".parquet", ".pq"):
        return _parquet(path, raw, wanted)
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
    return _json_lines(path, content, wanted) if first == b"{" else _csv(path, content, wanted)


def _unpacked(path: Path, raw: bytes) -> bytes:
    stream = MemberStream(io.BytesIO(raw), "")
    if stream.compression == "none":
        return raw
    parts: list[bytes] = []
    size = 0
    try:
        while size <= MOST_BYTES and (part := stream.read()):
            parts.append(part)
            size += len(part)
    except DamagedError as error:
        raise AnnotationsError(f"{path}: compressed, and damaged: {error}. Remedy: get or write it again") from error
    if size > MOST_BYTES:
        raise AnnotationsError(f"{path}: unpacks to more than {MOST_BYTES:,} bytes. Remedy: give a part of it")
    return b"".join(parts)


def _parquet(path: Path, raw: bytes, wanted: Set[str]) -> tuple[pa.Table, list[str]]:
    try:
        file = pq.ParquetFile(pa.BufferReader(raw))
        names: list[str] = file.schema_arrow.names
        present = [name for name in dict.fromkeys(names) if name in wanted]
        return file.read(columns=present), names
    except (OSError, pa.ArrowException) as error:
        raise AnnotationsError(
            f"{path}: not a Parquet file, or a damaged one: {error}. Remedy: write it again, or give JSON lines or CSV "
            "a name that says so"
        ) from error


def _json_lines(path: Path, content: bytes, wanted: Set[str]) -> tuple[pa.Table, list[str]]:
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
    for name in (name for name in names if name in wanted):
        values = [row.get(name) for row in rows]
        texts = name == "text" and all(isinstance(value, str | None) for value in values)
        columns[name] = _array(path, name, values, pa.large_string() if texts else None)
    return pa.table(columns), list(names)


def _array(path: Path, name: str, values: list[Any], kind: pa.DataType | None = None) -> pa.Array:
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise AnnotationsError(
            f"{path}: column {name!r} holds values of several kinds: {error}. Remedy: write them all alike"
        ) from error


def _csv(path: Path, content: bytes, wanted: Set[str]) -> tuple[pa.Table, list[str]]:
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
                include_columns=[name for name in dict.fromkeys(names) if name in wanted],
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
    return _array(path, name, values)
