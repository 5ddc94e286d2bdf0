"""Phase `attributes`: all that is known of a document by itself; and the search for a document that kills its worker.

The kernel kills a process without a word (out of memory), and so does a crash in native code. The unit is then done
again in smaller and smaller steps until one document is left. The worker leaves a mark before each step, so that its
parent can read how far it came.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from datatrove.pipeline.base import PipelineStep

from filters.dedup.bands import open_bands
from filters.phases.phase import Job
from filters.phases.rows import ATTRIBUTES, ROWS, quarantine_line, rows_file
from filters.phases.texts import TEXT, keeps_text, text_file
from filters.read.batch import NO_TEXT, Batch
from filters.read.unit import Reading
from filters.run.steps import unit_batches, unit_steps
from filters.storage.files import publishing

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


MOST = 100
"""Documents of one unit set aside at most; a unit with more fails."""


def killers(job: Job, unit: int) -> dict[int, str]:
    """Position -> how the worker died, of the documents of an input unit that are to be set aside."""
    try:
        known = json.loads(_list_path(job, unit).read_text())
    except (FileNotFoundError, ValueError):  # a damaged list is made anew: its documents kill again
        return {}
    return {int(position): str(how) for position, how in known.items()}


def add_killer(job: Job, unit: int, position: int, how: str) -> None:
    """Have a document set aside whenever its unit is done from now on."""
    path = _list_path(job, unit)
    path.parent.mkdir(exist_ok=True)
    with publishing(path) as temporary:
        temporary.write_text(json.dumps(killers(job, unit) | {position: how}))


def probe(job: Job, unit: int, *, batch: int | None) -> None:
    """Do what phase `attributes` does with an input unit, keep nothing, and leave a mark before each step.

    Args:
        job: of the run.
        unit: of the input.
        batch: None to mark whole batches; else to mark the documents of that batch, and do no other.
    """
    path = mark_path(job, unit)
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    read, *steps = unit_steps(job.config, job.units)
    for number, whole in enumerate(unit_batches([read], unit, len(job.units), killers(job, unit))):
        if batch is None:
            path.write_text(json.dumps({"batch": number}))
            _push(whole, steps)
        elif number == batch:
            for row in range(len(whole)):
                path.write_text(json.dumps({"position": int(whole.position[row])}))
                _push(_one(whole, row), steps)
            break
    path.unlink(missing_ok=True)


def mark_path(job: Job, unit: int) -> Path:
    """Path of the mark that `probe` leaves: {"batch": number} or {"position": of the document}."""
    return job.work / "killers" / f"{unit:06d}.mark"


def read_mark(job: Job, unit: int) -> dict[str, int]:
    """The last mark; {} if the probe came to its end, or died before the first."""
    try:
        mark: dict[str, int] = json.loads(mark_path(job, unit).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return mark


def _list_path(job: Job, unit: int) -> Path:
    return job.work / "killers" / f"{unit:06d}.json"


def _push(batch: Batch, steps: list[PipelineStep]) -> None:
    batches: Any = [batch]
    for step in steps:
        batches = step.run(batches)
    deque(batches, maxlen=0)


def _one(batch: Batch, row: int) -> Batch:
    rows = slice(row, row + 1)
    return replace(
        batch,
        position=batch.position[rows],
        id=batch.id[rows],
        text=batch.text[rows],
        reason=batch.reason[rows].copy(),
        columns={name: column[rows] for name, column in batch.columns.items()},
        attributes={},
        html=None if batch.html is None else batch.html[rows],
        content_type=None if batch.content_type is None else batch.content_type[rows],
        quarantined=[],
    )
