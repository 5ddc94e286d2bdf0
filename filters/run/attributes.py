"""Phase `attributes`: everything that is known of a document by itself."""

from __future__ import annotations

import base64
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa

from filters.dedup.bands import open_bands
from filters.phases.phase import Job
from filters.phases.rows import ATTRIBUTES, ROWS, quarantine_line, rows_file
from filters.phases.texts import TEXT, keeps_text, text_file
from filters.read.batch import NO_TEXT, Batch
from filters.read.unit import Reading
from filters.run.crashes import killers
from filters.run.steps import unit_batches, unit_steps

QUARANTINE = "quarantine.jsonl"


class Attributes:
    """Read, extract, identify the language, apply heuristics, fingerprint, score: a unit of it is a unit of the input.

    Facts of a unit: rows, without_text (those that the reader found no text in, by reason), records, skipped,
    quarantined (by cause), reading (stamp and digest of a local input file),
    columns (of the first batch with documents:
    their serialised schema in base64, None without documents).
    """

    name = ATTRIBUTES

    def __init__(self) -> None:
        self._mine = threading.local()

    def units(self, job: Job) -> int:
        """The units of the input."""
        return len(job.units)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Write rows, bands, quarantine and perhaps texts of an input unit."""
        rows = records = skipped = 0
        causes: Counter[str] = Counter()
        without: Counter[str] = Counter()
        reading: Reading | None = None
        schema: pa.Schema | None = None
        with ExitStack() as stack:
            write_rows = stack.enter_context(rows_file(folder / ROWS, job.config.slices, job.scores))
            enter_bands = stack.enter_context(open_bands(job, folder))
            quarantine = stack.enter_context((folder / QUARANTINE).open("w", encoding="utf-8"))
            write_texts = None
            if keeps_text(job.config, job.units[unit]):
                write_texts = stack.enter_context(text_file(folder / TEXT, rejected=job.config.output.rejected))
            for batch in self._batches(job, unit):
                job.progress.tell(batch.records, batch.input_bytes)
                write_rows(batch)
                enter_bands(batch)
                quarantine.writelines(quarantine_line(record) for record in batch.quarantined)
                causes.update(record.cause.partition(":")[0] for record in batch.quarantined)
                if write_texts is not None:
                    write_texts(batch)
                if schema is None and len(batch):
                    schema = pa.schema([(name, column.type) for name, column in batch.columns.items()])
                without.update(reason for reason in batch.reason.tolist() if reason in NO_TEXT)
                rows += len(batch)
                records += batch.records
                skipped += batch.skipped
                reading = batch.reading or reading
        return {
            "rows": rows,
            "without_text": dict(sorted(without.items())),
            "records": records,
            "skipped": skipped,
            "quarantined": dict(sorted(causes.items())),
            "reading": None if reading is None else [reading.stamp, reading.digest],
            "columns": None if schema is None else base64.b64encode(schema.serialize()).decode(),
        }

    def _batches(self, job: Job, unit: int) -> Iterable[Batch]:
        """A thread keeps its steps, and what they have loaded, from unit to unit."""
        if getattr(self._mine, "job", None) is not job:
            self._mine.job, self._mine.steps = job, unit_steps(job.config, job.units, job.loaded)
        return unit_batches(self._mine.steps, unit, len(job.units), killers(job, unit))


def readings(job: Job, units: Iterable[int]) -> dict[str, list[Reading]]:
    """What these units read of local input files, by source; of those that are done."""
    found: dict[str, list[Reading]] = {}
    for unit in units:
        entry = job.entry(ATTRIBUTES, unit)
        if entry is not None and entry["facts"]["reading"] is not None:
            found.setdefault(job.units[unit].source, []).append(Reading(*entry["facts"]["reading"]))
    return found


def column_schema(job: Job) -> pa.Schema:
    """Pass-through columns of the run: those of its first document."""
    for unit in range(len(job.units)):
        columns = job.facts(ATTRIBUTES, unit)["columns"]
        if columns is not None:
            return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(columns)))
    return pa.schema([])
