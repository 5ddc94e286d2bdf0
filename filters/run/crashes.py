"""Finds the document that kills its worker: does the unit again in smaller and smaller steps.

The kernel kills a process without a word (out of memory), and so does a crash in native code. A worker that looks for
the document leaves a mark before each step, so that its parent can read how far it came.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from filters.phases.phase import Job
from filters.read.batch import Batch
from filters.run.steps import unit_batches, unit_steps
from filters.storage.publish import publishing

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
