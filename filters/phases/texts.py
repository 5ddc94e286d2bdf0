"""The texts of an input unit a second time: read again where that is cheap, else from a copy kept in the work folder.

Text of local files of Parquet, and of JSON lines and WET that are not compressed, is never copied: whoever needs it
reads the input again, and holds each text against the checksum in the rows file. What took work to come by (files
behind an address, compressed ones, main text of WARC pages, documentation of packages, rows streamed by `datasets`,
text that a heuristic edited) is kept once, in `text.arrow` of the phase `attributes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.config.filter import FilterConfig
from filters.errors import InputError
from filters.phases.phase import Job
from filters.phases.rows import ATTRIBUTES, read_rows, text_checksums
from filters.read.batch import Batch
from filters.read.unit import Reading, Unit
from filters.storage.remote import is_local

TEXT = "text.arrow"
READ_AGAIN = ("parquet", "jsonl", "wet")
COMPRESSED = (".gz", ".zst", ".bz2")
EDITING = ("c4_quality",)
"""Heuristics that change the text of what they keep."""


def keeps_text(config: FilterConfig, unit: Unit) -> bool:
    """Whether the texts of this unit are kept in the work folder, because reading it again is dear."""
    dear = unit.kind not in READ_AGAIN or not is_local(unit.address) or unit.address.endswith(COMPRESSED)
    return dear or any(heuristic.name in EDITING for heuristic in config.heuristics)


@contextmanager
def text_file(path: Path, *, rejected: bool) -> Iterator[Callable[[Batch], None]]:
    """Write text.arrow: appends text and pass-through columns of the batches it is called with, all steps done.

    Each batch is an Arrow stream of its own after its length, for pass-through columns may change type.

    Args:
        path: of the file.
        rejected: keep the text of removed documents too.
    """
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=1))
    with path.open("wb") as file:

        def write(batch: Batch) -> None:
            text = batch.text if rejected else pc.if_else(pa.array(batch.alive), batch.text, "")
            arrays = [text, *batch.columns.values()]
            arrays = [array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array for array in arrays]
            rows = pa.RecordBatch.from_arrays(arrays, names=["text", *batch.columns])
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
                writer.write_batch(rows)
            file.write(len(sink.getvalue()).to_bytes(8, "little"))
            file.write(sink.getvalue())

        yield write


def read_texts(job: Job, unit: int, wanted: npt.NDArray[np.int64] | None = None) -> Iterator[tuple[int, Batch]]:
    """The documents of an input unit with their texts and pass-through columns, exactly the rows of its rows file.

    Only `source`, `position`, `text` and `columns` of the batches are set; `text` may be empty where the document was
    removed before resolve and its text is not wanted.

    Args:
        job: of the run.
        unit: of the input.
        wanted: int64[m], ascending, the rows that are asked for: batches without any are left out. None: all.

    Yields:
        (row of the first document, batch).

    Raises:
        DamagedError: a file of the phase `attributes` is missing or damaged.
        InputError: the input is not what it was when its attributes were computed.
    """
    rows = read_rows(job, unit, ["position", "checksum"])
    positions = rows["position"].to_numpy()
    checksums = rows["checksum"].to_numpy()
    kept = keeps_text(job.config, job.units[unit])
    wanted = np.arange(len(positions)) if wanted is None else wanted
    if not len(wanted):
        return
    done = 0
    for row, batch in _kept_texts(job, unit, positions) if kept else _texts_again(job, unit, positions, wanted[0]):
        end = row + len(batch)
        begin, behind = np.searchsorted(wanted, [row, end]).tolist()
        if begin > done:
            break
        if begin == behind:
            continue
        same = np.array_equal(batch.position, positions[row:end])
        if not same or not (kept or np.array_equal(text_checksums(batch.text), checksums[row:end])):
            raise _changed(job.units[unit], f"between positions {positions[row]:,} and {positions[end - 1]:,}")
        yield row, batch
        done = behind
        if done == len(wanted):
            return
    raise _changed(job.units[unit], f"behind {wanted[done]:,} of {len(positions):,} documents")


def _texts_again(job: Job, unit: int, positions: npt.NDArray[np.int64], first_row: int) -> Iterator[tuple[int, Batch]]:
    """The batches with their first rows, from that on which has `first_row`, or from further ahead."""
    from filters.read.units import read_unit

    reading = Reading()
    about = job.units[unit]
    if about.start is not None and about.offset is None:
        about = replace(about, start=int(positions[first_row]))
    for batch in read_unit(about, job.config.reads[about.input], reading):
        if not len(batch):
            continue
        reading.check()  # now: whoever asks may not come back for the next one
        # Steps after the reader may have quarantined records. Positions ascend within a unit.
        first, last = np.searchsorted(positions, [batch.position[0], batch.position[-1] + 1])
        present = np.isin(batch.position, positions[first:last])
        if not present.all():
            mask = pa.array(present)
            batch.position, batch.text = batch.position[present], batch.text.filter(mask)
            batch.columns = {name: column.filter(mask) for name, column in batch.columns.items()}
        if len(batch.position):
            yield int(first), batch


def _kept_texts(job: Job, unit: int, positions: npt.NDArray[np.int64]) -> Iterator[tuple[int, Batch]]:
    row = 0
    source = job.units[unit].source
    with pa.memory_map(str(job.file(ATTRIBUTES, unit, TEXT))) as file:
        while header := file.read(8):
            end = file.tell() + int.from_bytes(header, "little")
            with pa.ipc.open_stream(file) as reader:
                record_batch = reader.read_next_batch()
            file.seek(end)
            n = record_batch.num_rows
            columns = dict(zip(record_batch.schema.names[1:], record_batch.columns[1:], strict=True))
            if n:
                yield row, Batch(
                    source, positions[row : row + n], pa.nulls(n, pa.string()), record_batch.column(0),
                    np.full(n, None, dtype=object), columns,
                )  # fmt: skip
            row += n


def _changed(unit: Unit, where: str) -> InputError:
    return InputError(
        f"{unit.source}: this input is not what it was when its attributes were computed ({where}). Nothing was "
        "published. Remedy: restore it and run again, or start afresh with --force-new"
    )
