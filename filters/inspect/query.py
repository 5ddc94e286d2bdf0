"""`finesieve inspect RUN --sql`: any question to the side files of a run, answered by DuckDB.

The side files are a table, `documents`. The database holds nothing else, reads no file by itself (pyarrow reads the
side files for it, here or behind an address), loads no extension, and no statement can change that: a query that
somebody sent may be run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from filters.errors import ConfigError, RunError
from filters.run.json_rows import json_lines
from filters.scores.finished_run import Run
from filters.scores.rules import LOCKED
from filters.storage.publish import publishing
from filters.terminal import printable

TABLE = "documents"
MOST_SHOWN = 200
"""Rows that a terminal is given."""
_WIDTH = 60
_ROWS = 65_536
"""Rows of the answer that are handed on at a time."""


@dataclass(frozen=True)
class Answer:
    """The rows that a query gives.

    Attributes:
        schema: of them.
        batches: in pieces, once.
    """

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


@contextmanager
def answer(run: Run, sql: str) -> Iterator[Answer]:
    """Ask a run; the answer is computed while its rows are taken.

    Args:
        run: whose side files are the table `documents`.
        sql: one SELECT, or what DuckDB takes for one (DESCRIBE, SUMMARIZE, FROM ...).

    Raises:
        ConfigError: it is something else, or DuckDB refuses it; the message has its words, with a caret.
        RunError: the side files are missing or damaged.
    """
    import duckdb

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    files = run.dataset()
    connection = duckdb.connect(config=LOCKED | {"threads": threads})
    try:
        with _told(run):
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise ConfigError(
                    f"--sql: takes one query of the table {TABLE} (SELECT, DESCRIBE, SUMMARIZE); nothing can be "
                    "written or set"
                )
            connection.register(TABLE, files)
            reader = connection.sql(sql).to_arrow_reader(_ROWS)
        yield Answer(reader.schema, _batches(run, reader))
    finally:
        connection.close()


def _batches(run: Run, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while True:
        with _told(run):
            batch = next(reader, None)
        if batch is None:
            return
        yield batch


@contextmanager
def _told(run: Run) -> Iterator[None]:
    """What DuckDB and pyarrow raise, as errors of ours."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise ConfigError(f"--sql: {str(error).rstrip()}") from error
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{run.path / 'attributes'}: cannot answer from the side files: {error}") from error


def write_answer(run: Run, sql: str, path: Path) -> int:
    """Write the rows that a query gives to a file, whole or not at all: .csv, .parquet or .json by its name.

    Returns:
        How many there are.

    Raises:
        ConfigError: see `answer`; or the file is of another kind, or cannot be written.
        RunError: see `answer`.
    """
    writers: dict[str, Callable[[Answer, Path], int]] = {
        ".csv": _write_csv, ".parquet": _write_parquet, ".json": _write_json,
    }  # fmt: skip
    write = writers.get(path.suffix.lower())
    if write is None:
        raise ConfigError(f"--output {path}: ends in none of {', '.join(writers)}, which say what is written")
    with answer(run, sql) as found:
        try:
            with publishing(path) as temporary:
                return write(found, temporary)
        except pa.ArrowException as error:
            raise ConfigError(f"--output {path}: {error}. Remedy: write .parquet or .json") from error
        except OSError as error:
            raise ConfigError(f"--output {path}: cannot be written: {error.strerror or error}") from error


def _write_csv(found: Answer, path: Path) -> int:
    from pyarrow import csv

    rows = 0
    with csv.CSVWriter(path, found.schema) as writer:
        for batch in found.batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _write_parquet(found: Answer, path: Path) -> int:
    import pyarrow.parquet as pq

    rows = 0
    with pq.ParquetWriter(path, found.schema, compression="zstd", write_page_checksum=True) as writer:
        for batch in found.batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _write_json(found: Answer, path: Path) -> int:
    rows = 0
    with path.open("wb") as file:
        for piece in json_rows(found):
            file.write(piece)
            rows += 1
    return rows - 1  # but for the end


def json_rows(found: Answer) -> Iterator[bytes]:
    """An array of objects, a piece for each row, and one for its end."""
    begin = b"[\n"
    for batch in found.batches:
        for line in json_lines(batch):
            yield begin + line
            begin = b",\n"
    yield b"\n]\n" if begin == b",\n" else b"[]\n"


def rows_view(found: Answer, most: int = MOST_SHOWN) -> RenderableType:
    """A table of the first rows, and how many more there are; numbers to the right, text cut to what a line takes."""
    numbers = [pa.types.is_integer(field.type) or pa.types.is_floating(field.type) for field in found.schema]
    table = Table(box=None, pad_edge=False)
    for field, number in zip(found.schema, numbers, strict=True):
        table.add_column(printable(field.name, _WIDTH), justify="right" if number else "left", no_wrap=True)
    rows = 0
    for batch in found.batches:
        for row in batch.slice(0, max(most - rows, 0)).to_pylist():
            table.add_row(*(_cell(value) for value in row.values()))
        rows += batch.num_rows
    if rows <= most:
        return table
    return Group(table, Text(f"... and {rows - most:,} more rows; --output FILE writes all", style="dim"))


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable(value.hex() if isinstance(value, bytes) else str(value), _WIDTH)
