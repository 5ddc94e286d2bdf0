"""Phase `shard`: the files that are published, each from the plan and the inputs by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.arrays import Bool
from filters.errors import RunError
from filters.phases.phase import Job
from filters.phases.rows import (
    ATTRIBUTE_FIELDS,
    ATTRIBUTE_ROWS,
    OWN_FIELDS,
    PLAIN_ATTRIBUTES,
    REJECTED_FIELDS,
    SLICE,
    added_fields,
    columns_do_not_fit,
    first_rows,
    pass_through_names,
    read_rows,
    slice_names,
)
from filters.phases.texts import read_texts
from filters.read.batch import Batch
from filters.run.adopt import adopted_texts, check_inputs, missing_texts
from filters.run.attributes import column_schema
from filters.run.selection import Decisions, OutputFile, decisions, output_files
from filters.run.writers import ShardWriter
from filters.scores.hosts import hosts
from filters.scores.summary import Histograms

SHARD = "shard"
_SUFFIXES = {"parquet": ".parquet", "jsonl.zst": ".jsonl.zst"}


@dataclass(frozen=True)
class ShardUnit:
    """What a unit of the phase writes: consecutive output files of one kind, or a side file.

    Attributes:
        files: (number in its folder, output file).
        attributes: number of the side file, None for output files.
    """

    files: tuple[tuple[int, OutputFile], ...] = ()
    attributes: int | None = None


def shard_units(job: Job) -> list[ShardUnit]:
    """All units of the phase.

    Files that lie within one input unit are written by one unit of this phase: an input unit that cannot be entered in
    its middle (a compressed file of JSON lines) is then read three times at most, however many shards it fills.
    """
    units: list[ShardUnit] = []
    numbers: Counter[tuple[bool, str | None]] = Counter()
    group: list[tuple[int, OutputFile]] = []
    for file in output_files(job):
        folder = (file.rejected, file.bucket)
        if group:
            _, before = group[-1]
            inside = before.first[0] == before.stop[0] == file.first[0] and before.rows and file.rows
            if not inside or (before.rejected, before.bucket, before.turn) != (*folder, file.turn):
                units.append(ShardUnit(tuple(group)))
                group = []
        group.append((numbers[folder], file))
        numbers[folder] += 1
    units.append(ShardUnit(tuple(group)))
    parts = max(1, -(-int(first_rows(job)[-1]) // ATTRIBUTE_ROWS))
    return units + [ShardUnit(attributes=part) for part in range(parts)]


class Shard:
    """Write shards, rejected documents and side files.

    Facts of a unit: files (path in the output folder, name in the unit's folder, rows; for side files also kept,
    renamed, and by source what became of the documents), histograms of a side file.
    """

    name = SHARD

    def __init__(self) -> None:
        self._plan: tuple[Job, list[ShardUnit]] | None = None

    def units(self, job: Job) -> int:
        """One for each stretch of output files, then one for each side file."""
        return len(self._units(job))

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Write a unit's files.

        Raises:
            InputError: an input is not what it was, or its pass-through columns do not fit those of the first one.
            RunError: a file does not have the rows it was planned to have.
        """
        what = self._units(job)[unit]
        if what.attributes is not None:
            return _write_attributes(job, what.attributes, folder)
        return _write_documents(job, what.files, folder)

    def _units(self, job: Job) -> list[ShardUnit]:
        if self._plan is None or self._plan[0] is not job:
            self._plan = job, shard_units(job)
        return self._plan[1]


def _write_documents(job: Job, files: tuple[tuple[int, OutputFile], ...], folder: Path) -> dict[str, Any]:
    config = job.config.output
    kind = files[0][1]
    own = [*OWN_FIELDS, *added_fields(job.config, job.scores), *(REJECTED_FIELDS if kind.rejected else [])]
    passed = column_schema(job)
    names = pass_through_names(passed.names, [field.name for field in own])
    schema = pa.schema([*own, *(pa.field(name, passed.field(n).type) for n, name in enumerate(names))])
    stem = "rejected" if kind.rejected else "shard"
    place = "rejected" if kind.rejected else f"data/{kind.bucket}" if kind.bucket else "data"
    written = []
    waiting = list(files)
    with ExitStack() as stack:

        def open_next() -> tuple[OutputFile, ShardWriter]:
            number, file = waiting.pop(0)
            path = folder / f"{stem}-{number:05d}{_SUFFIXES[config.format]}"
            return file, stack.enter_context(ShardWriter(path, schema))

        def close(file: OutputFile, writer: ShardWriter) -> None:
            writer.close()
            name = writer.path.name
            if writer.rows != file.rows:
                raise RunError(f"{name}: {writer.rows} rows were written where {file.rows} were planned; please report")
            written.append({"path": f"{place}/{name}", "name": name, "rows": writer.rows, "turn": file.turn})

        file, writer = open_next()
        for unit, row, table, chosen in _documents(job, files):
            job.progress.tell()
            start = 0
            while True:
                end = len(chosen) if file.stop[0] != unit else min(max(file.stop[1] - row, start), len(chosen))
                part = table.slice(start, end - start).filter(pa.array(chosen[start:end]))
                if part.num_rows:
                    try:
                        writer.write(_named(part, len(own), schema))
                    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as error:
                        raise columns_do_not_fit(job.units[unit].source, error) from error
                start = end
                if (unit, row + end) < file.stop or not waiting:
                    break
                close(file, writer)
                file, writer = open_next()
        close(file, writer)
    return {"files": written}


def histograms_of(job: Job) -> Histograms:
    """Empty histograms of a run: by its slices and columns of labels, and of its further scores."""
    slices = [*slice_names(job.config.slices), *(name for name, kind in job.scores.items() if kind == "text")]
    return Histograms(slices, [name for name, kind in job.scores.items() if kind == "float"])


def check_texts(job: Job) -> None:
    """Refuse to decide anew where texts are needed that neither the run nor an unchanged input has.

    Raises:
        InputError: an input is not there.
        RunError: a text is needed that the input alone does not give, or an input is not what it was.
    """
    needed: Counter[str] = Counter()
    for unit in range(len(job.units)):
        copies = decisions(job, unit).copies
        needed += missing_texts(job, unit, np.ones(len(copies), np.bool_) if job.config.output.rejected else copies > 0)
    check_inputs(job, needed)


def _named(table: pa.Table, own: int, schema: pa.Schema) -> pa.Table:
    """The table with its pass-through columns renamed as in the schema."""
    names = pass_through_names(table.column_names[own:], schema.names[:own])
    if names != schema.names[own:]:
        raise KeyError(f"columns {names} where {schema.names[own:]} were expected")
    return table.rename_columns([*table.column_names[:own], *names]).select(schema.names)


def _documents(job: Job, files: tuple[tuple[int, OutputFile], ...]) -> Iterator[tuple[int, int, pa.Table, Bool]]:
    """(input unit, row of the batch's first document in it, batch as a table, bool[n] those of the files)."""
    first, last = files[0][1], files[-1][1]
    if not last.rows:
        return
    own = [*OWN_FIELDS, *added_fields(job.config, job.scores), *(REJECTED_FIELDS if first.rejected else [])]
    for unit in range(first.first[0], last.stop[0] + 1):
        decided = decisions(job, unit)
        chosen = decided.copies == 0 if first.rejected else decided.copies > first.turn
        if first.bucket is not None and decided.bucket is not None:
            chosen &= pc.fill_null(pc.equal(decided.bucket, first.bucket), False).to_numpy(zero_copy_only=False)
        if unit == first.first[0]:
            chosen[: first.first[1]] = False
        if unit == last.stop[0]:
            chosen[last.stop[1] :] = False
        if not chosen.any():
            continue
        about = _about(job, unit, decided)
        for row, batch in _texts(job, unit, decided.verdicts.id, chosen):
            found = about.slice(row, len(batch)).append_column("text", batch.text)
            found = found.append_column("source", pa.repeat(pa.scalar(batch.source), len(batch)))
            found = found.select([field.name for field in own])
            arrays = [*found.columns, *batch.columns.values()]
            table = pa.Table.from_arrays(arrays, names=[*found.column_names, *batch.columns])
            yield unit, row, table, chosen[row : row + len(batch)]


def _texts(job: Job, unit: int, ids: pa.Array, chosen: Bool) -> Iterator[tuple[int, Batch]]:
    """(first row, batch of consecutive rows with their texts) wherever rows of an input unit are chosen."""
    if job.run is not None:
        yield from adopted_texts(job, unit, ids, chosen, column_schema(job))
        return
    yield from read_texts(job, unit, np.flatnonzero(chosen))


def _about(job: Job, unit: int, decided: Decisions, columns: tuple[str, ...] = ()) -> pa.Table:
    """Everything but text and source that shards and side files say of the documents of an input unit."""
    names = ["position", "score", "language", "language_score", "tokens", *job.scores, *columns]
    found = decided.verdicts
    own = read_rows(job, unit, names)
    table = {name: own[name] for name in names} | {
        "id": found.id,
        "duplicate_of": found.duplicate_of,
        "similarity": found.similarity,
        "reason": found.reason,
        "cluster_size": pa.array(found.cluster_size, mask=found.exact_cluster < 0),
        "copies": pa.array(decided.copies.astype(np.int32)),
    }
    if decided.bucket is not None:
        table["bucket"] = decided.bucket
    return pa.table(table)


def _write_attributes(job: Job, part: int, folder: Path) -> dict[str, Any]:
    slices = dict(zip(job.config.slices, slice_names(job.config.slices), strict=True))
    fields = [*ATTRIBUTE_FIELDS, *added_fields(job.config, job.scores)]
    fields += [pa.field(name, pa.string()) for name in slices.values()]
    schema = pa.schema(fields)
    histograms = histograms_of(job)
    accounts: dict[str, Counter[str | None]] = {}
    renamed: Counter[str] = Counter()
    bounds = first_rows(job)
    begin, end = part * ATTRIBUTE_ROWS, min((part + 1) * ATTRIBUTE_ROWS, int(bounds[-1]))
    name = f"attributes-{part:05d}.parquet"
    with ShardWriter(folder / name, schema, PLAIN_ATTRIBUTES) as writer:
        first = int(np.searchsorted(bounds, begin, side="right")) - 1
        for unit in range(first, len(job.units)):
            if bounds[unit] >= end:
                break
            start, stop = max(begin - int(bounds[unit]), 0), min(end, int(bounds[unit + 1])) - int(bounds[unit])
            source = job.units[unit].source
            decided = decisions(job, unit)
            table = _attributes(job, unit, decided, slices).slice(start, stop - start).select(schema.names)
            histograms.add(table)
            counts = pc.value_counts(table["reason"])
            account = accounts.setdefault(source, Counter())
            account.update({entry["values"]: entry["counts"] for entry in counts.to_pylist()})
            renamed[source] += int(decided.verdicts.renamed[start:stop].sum())
            writer.write(table)
    file = {
        "path": f"attributes/{name}",
        "name": name,
        "rows": writer.rows,
        "sources": {
            source: {
                "kept": account.pop(None, 0),
                "removed": dict(sorted(account.items(), key=str)),
                "renamed": renamed[source],
            }
            for source, account in accounts.items()
        },
    }
    return {
        "files": [file],
        "histograms": {"total": histograms.total.to_json(), "slices": histograms.to_json(),
                       "scores": histograms.scores_to_json()},
    }  # fmt: skip


def _attributes(job: Job, unit: int, decided: Decisions, slices: dict[str, str]) -> pa.Table:
    own = ("url", "bytes", "exact_hash", *(SLICE + name for name in slices))
    table = _about(job, unit, decided, own)
    found = decided.verdicts
    missing = found.exact_cluster < 0
    url = table["url"].combine_chunks()
    columns = dict(zip(table.column_names, table.columns, strict=True)) | {
        "source": pa.repeat(pa.scalar(job.units[unit].source), table.num_rows),
        "host": hosts(url),
        "exact_cluster": pa.array(found.exact_cluster, mask=missing),
        "near_cluster": pa.array(found.near_cluster, mask=missing),
        "keep": pa.array(decided.copies > 0),
    }
    for column, name in slices.items():
        columns[name] = columns.pop(SLICE + column)
    return pa.table(columns)
