"""Scores of a finished run's documents that somebody else computed: columns of a Parquet file, joined by id or url."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.errors import ConfigError, InputError, RunError
from filters.phases.phase import Job
from filters.phases.rows import ADDED, ROWS, first_rows, score_fields
from filters.scores.finished_run import DAMAGE, Run
from filters.scores.rules import LOCKED, Kind
from filters.storage.files import publishing, sha256
from filters.storage.location import Location, parquet_file

JOINED = "joined.arrow"
"""File of the work folder: a row for each document of the run, in the order of the side files."""
KEYS = ("id", "url")
"""What documents are found by; the first that the file has, if nothing else is asked for."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_ROWS = 65_536
_MEMORY = "1GB"


@dataclass(frozen=True)
class Join:
    """A Parquet file of scores. Numbers become float32 (NaN and infinite ones NULL), texts become labels.

    Attributes:
        path: of the file.
        by: its column that names documents.
        columns: its other columns but `KEYS`, and what they hold.
        sha256: of the file.
    """

    path: Location
    by: str
    columns: dict[str, Kind]
    sha256: str

    @classmethod
    def open(cls, path: Location, by: str | None, taken: set[str]) -> Self:
        """Look at the columns of a file.

        Args:
            path: of the file.
            by: one of `KEYS`, or None for the first that it has.
            taken: names of columns that the run has.

        Raises:
            ConfigError: it has no such key, no other column, or one that no score can be.
            InputError: it cannot be read.
        """
        try:
            with parquet_file(path) as file:
                schema = file.schema_arrow
            digest = sha256(path)
        except DAMAGE as error:
            raise InputError(f"--scores {path}: cannot be read as Parquet: {error}") from error
        key = next((name for name in ((by,) if by else KEYS) if name in schema.names), None)
        if key is None:
            raise ConfigError(
                f"--scores {path}: has no column {by or 'id or url'}, only {', '.join(schema.names)}. Remedy: rename "
                "the column that names the documents"
            )
        columns: dict[str, Kind] = {}
        for field in schema:
            kind, wrong = _kind(field.type), None
            if schema.names.count(field.name) > 1:
                wrong = "is there twice. Remedy: leave one out"
            elif field.name == key and kind != "text" and not pa.types.is_integer(field.type):
                wrong = f"holds {field.type}, and keys are texts. Remedy: cast it to string"
            elif field.name in KEYS:
                continue
            elif field.name in taken:
                wrong = "is one that the run has already. Remedy: rename it, or leave it out"
            elif not _NAME.fullmatch(field.name):
                wrong = "cannot be a score. Remedy: call it by at most 40 of a-z, 0-9 and _, a letter first"
            elif kind is None:
                wrong = f"holds {field.type}, neither numbers nor text. Remedy: cast it, or leave it out"
            else:
                columns[field.name] = kind
            if wrong:
                raise ConfigError(f"--scores {path}: column {field.name!r} {wrong}")
        if not columns:
            raise ConfigError(f"--scores {path}: has no column beside {key}, so no score. Remedy: add one")
        return cls(path, key, columns, digest)

    def stated(self, name: str) -> dict[str, dict[str, Any]]:
        """What a manifest says of each column; `name` is that of the file."""
        return {
            column: {"name": name, "digest": self.sha256, "labels": [], "joined": {"kind": kind, "by": self.by}}
            for column, kind in self.columns.items()
        }

    def write(self, run: Run, work: Path) -> dict[str, int]:
        """Write `JOINED` into a work folder.

        Returns:
            rows: of the file; documents: of the run that it has a row for; unmatched_rows: that are of no document;
            not_finite: values that were taken for NULL.

        Raises:
            ConfigError: a key has two rows that differ, or nothing matches.
            InputError: the file cannot be read.
            RunError: a side file is missing or damaged.
        """
        import duckdb

        spill: dict[str, str | int] = {"temp_directory": str(work / "join"), "memory_limit": _MEMORY, "threads": 2}
        connection = duckdb.connect(config={**LOCKED, **spill})
        seen: Counter[str] = Counter()

        def table(name: str, sql: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
            connection.register("batches", pa.RecordBatchReader.from_batches(schema, batches))
            connection.execute(f"CREATE TABLE {name} AS {sql}")
            connection.unregister("batches")

        def ask(sql: str) -> list[Any]:
            return [value for (value,) in connection.execute(sql).fetchall()]

        try:
            key, fields = pa.field("_key", pa.string()), score_fields(self.columns)
            grouped = "SELECT *, count(*) AS _rows FROM batches GROUP BY ALL"
            try:
                table("given", grouped, pa.schema([key, *fields]), self._batches(fields, seen))
            except (duckdb.Error, *DAMAGE) as error:
                raise InputError(f"--scores {self.path}: cannot be read: {error}") from error
            named = "SELECT _key FROM given WHERE _key IS NOT NULL GROUP BY _key"
            if differ := ask(f"{named} HAVING count(*) > 1 ORDER BY _key LIMIT 3"):
                raise ConfigError(
                    f"--scores {self.path}: has rows of the same {self.by} with different values: "
                    f"{', '.join(map(repr, differ))}. Remedy: leave one row for each {self.by}"
                )
            table("documents", "FROM batches", pa.schema([key, ("_row", pa.int64())]), _documents(run, self.by))
            counts = {
                "rows": int(ask("SELECT coalesce(sum(_rows), 0) FROM given")[0]),
                "documents": int(ask("SELECT count(*) FROM documents SEMI JOIN given USING (_key)")[0]),
                "unmatched_rows": int(
                    ask("SELECT coalesce(sum(_rows), 0) FROM given ANTI JOIN documents USING (_key)")[0]
                ),
                "not_finite": seen["not finite"],
            }
            if not counts["documents"]:
                here, there = (
                    ", ".join(map(repr, ask(f"SELECT DISTINCT _key {some}"))) or "none"
                    for some in (
                        "FROM given WHERE _key IS NOT NULL ORDER BY _key LIMIT 3",
                        "FROM documents WHERE _key IS NOT NULL ORDER BY _key LIMIT 3",
                    )
                )
                raise ConfigError(
                    f"--scores {self.path}: no {self.by} of it is one of the run. The file has {here}; the run has "
                    f"{there}. Remedy: write them as the run's attributes/ do, or join by {KEYS[self.by == KEYS[0]]}"
                )
            schema = pa.schema(fields)
            found = connection.sql(
                "SELECT * EXCLUDE (_key, _row, _rows) FROM documents LEFT JOIN given USING (_key) ORDER BY _row"
            )
            with publishing(work / JOINED) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
                for batch in found.to_arrow_reader(_ROWS):
                    writer.write_batch(batch.cast(schema))
            return counts
        except duckdb.Error as error:  # what reading side files raises is one too
            raise RunError(f"{run.path}: --scores {self.path} cannot be joined to it: {error}") from error
        finally:
            connection.close()

    def _batches(self, fields: list[pa.Field], seen: Counter[str]) -> Iterator[pa.RecordBatch]:
        """Key and columns of the file."""
        with parquet_file(self.path) as file:
            for batch in file.iter_batches(_ROWS, columns=[self.by, *self.columns]):
                arrays = [batch[self.by].cast(pa.string())]
                for field in fields:
                    values = batch[field.name].cast(field.type, safe=False)
                    if pa.types.is_floating(field.type):
                        finite = pc.is_finite(values)
                        seen["not finite"] += finite.false_count
                        values = pc.if_else(finite, values, pa.scalar(None, field.type))
                    arrays.append(values)
                yield pa.record_batch(arrays, names=["_key", *self.columns])


def _documents(run: Run, by: str) -> Iterator[pa.RecordBatch]:
    """Key and number of every document of a run."""
    row = 0
    for table in run.tables([by]):
        for batch in table.to_batches():
            numbers = pa.array(np.arange(row, row + batch.num_rows, dtype=np.int64))
            yield pa.record_batch([batch[by].cast(pa.string()), numbers], names=["_key", "_row"])
            row += batch.num_rows


def _kind(type_: pa.DataType) -> Kind | None:
    types = pa.types
    if types.is_dictionary(type_):
        return "text" if _kind(type_.value_type) == "text" else None
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return "text"
    return "float" if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_) else None


class JoinedScores:
    """rows.arrow: what a file says of the documents of a unit; null for those that it has not."""

    name = ADDED

    def units(self, job: Job) -> int:
        """The stretches of side files."""
        return len(job.units)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Take the rows of a unit from `JOINED`."""
        first, end = first_rows(job)[unit : unit + 2].tolist()
        with pa.memory_map(str(job.work / JOINED)) as source, pa.ipc.open_file(source) as file:
            found = file.read_all().slice(first, end - first)
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            with pa.ipc.new_stream(str(folder / ROWS), found.schema, options=options) as writer:
                writer.write_table(found)
        return {}
