"""`finesieve inspect RUN --sql`: any question to the side files of a run, answered by DuckDB.

The side files are a table, `documents`. The database holds nothing else, reads no file by itself (pyarrow reads the
side files for it, here or behind an address), loads no extension, and no statement can change that: a query that
somebody sent may be run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from filters.errors import ConfigError, RunError
from filters.run.writers import json_lines
from filters.scores.finished_run import Run
from filters.scores.rules import LOCKED
from filters.scores.summary import BELOW
from filters.storage.files import publishing
from filters.terminal import printable

TABLE = "documents"
MOST_SHOWN = 200
"""Rows that a terminal is given."""
KINDS = (".csv", ".parquet", ".json")
_WIDTH = 60
_ROWS = 65_536
"""Rows of the answer that are handed on at a time."""


class QueryResult:
    """The rows that a query gives, in batches, once.

    Attributes:
        schema: of them.
        rows: how many were taken so far.
    """

    def __init__(self, run: Run, reader: pa.RecordBatchReader) -> None:
        self._run, self._reader = run, reader
        self.schema, self.rows = reader.schema, 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while True:
            with _told(self._run):
                batch = next(self._reader, None)
            if batch is None:
                return
            self.rows += batch.num_rows
            yield batch


@contextmanager
def answer(run: Run, sql: str) -> Iterator[QueryResult]:
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
        yield QueryResult(run, reader)
    finally:
        connection.close()


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
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise ConfigError(f"--output {path}: ends in none of {', '.join(KINDS)}, which say what is written")
    with answer(run, sql) as found:
        try:
            with publishing(path) as temporary:
                if kind == ".json":
                    with temporary.open("wb") as file:
                        file.writelines(json_rows(found))
                else:
                    with _writer(kind, temporary, found.schema) as writer:
                        for batch in found:
                            writer.write_batch(batch)
            return found.rows
        except pa.ArrowException as error:
            raise ConfigError(f"--output {path}: {error}. Remedy: write .parquet or .json") from error
        except OSError as error:
            raise ConfigError(f"--output {path}: cannot be written: {error.strerror or error}") from error


def _writer(kind: str, path: Path, schema: pa.Schema) -> Any:
    if kind == ".csv":
        from pyarrow import csv

        return csv.CSVWriter(path, schema)
    import pyarrow.parquet as pq

    return pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)


def json_rows(found: QueryResult) -> Iterator[bytes]:
    """An array of objects, a piece for each row, and one for its end."""
    begin = b"[\n"
    for batch in found:
        for line in json_lines(batch):
            yield begin + line
            begin = b",\n"
    yield b"\n]\n" if begin == b",\n" else b"[]\n"


@dataclass(frozen=True)
class Cell:
    """Documents that deduplication left, with one value of each of two columns."""

    values: tuple[str | None, str | None]
    documents: int
    kept: int
    kept_share: float
    mean_score: float


def cross_table(run: Run, columns: tuple[str, str], min_score: float | None = None) -> list[Cell]:
    """Counts by the values of two columns, most documents first.

    Args:
        run: the run.
        columns: language, host, source, a column of `input.slices`, or a score, in bins.
        min_score: threshold of what counts as kept; None: what the run kept.

    Raises:
        RunError: the run has no such column, or its side files are damaged.
    """
    groups = ", ".join(f"{_grouped(run, by)} AS {name}" for by, name in zip(columns, ("first", "second"), strict=True))
    kept = "keep" if min_score is None else f"score >= CAST({min_score!r} AS FLOAT)"
    below = ", ".join(f"'{reason}'" for reason in BELOW)
    sql = (
        f"SELECT {groups}, count(*), count(*) FILTER (WHERE {kept}), avg(score) FROM {TABLE} "  # noqa: S608
        f"WHERE NOT isnan(score) AND (reason IS NULL OR reason IN ({below})) "
        "GROUP BY first, second ORDER BY count(*) DESC, first NULLS LAST, second NULLS LAST"
    )
    with answer(run, sql) as found:
        rows = [tuple(row.values()) for batch in found for row in batch.to_pylist()]
    return [Cell((a, b), count, kept, kept / count, mean) for a, b, count, kept, mean in rows]


def _grouped(run: Run, by: str) -> str:
    """SQL of the text by which a column is grouped."""
    name = '"' + by.replace('"', '""') + '"'
    if by not in run.score_columns:
        run.check_column(by)
        return f"CAST({name} AS VARCHAR)"
    per_point = 10 if run.score_histogram(by).top == 1 else 2
    place = f"least(greatest(floor({name} * {per_point}), 0), 9)"
    return f"printf('%.1f-%.1f', {place} / {per_point}, ({place} + 1) / {per_point})"


def rows_view(found: QueryResult, most: int = MOST_SHOWN) -> RenderableType:
    """A table of the first rows, and how many more there are; numbers to the right, text cut to what a line takes."""
    numbers = [pa.types.is_integer(field.type) or pa.types.is_floating(field.type) for field in found.schema]
    table = Table(box=None, pad_edge=False)
    for field, number in zip(found.schema, numbers, strict=True):
        table.add_column(printable(field.name, _WIDTH), justify="right" if number else "left", no_wrap=True)
    for batch in found:
        for row in batch.slice(0, max(most - table.row_count, 0)).to_pylist():
            table.add_row(*(_cell(value) for value in row.values()))
    if found.rows <= most:
        return table
    return Group(table, Text(f"... and {found.rows - most:,} more rows; --output FILE writes all", style="dim"))


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable(value.hex() if isinstance(value, bytes) else str(value), _WIDTH)
