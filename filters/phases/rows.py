"""Files of the phase `attributes`: what is known of each document of an input unit by itself, without its text.

For every input unit: `rows.arrow` (a record batch for each batch the reader gave), `bands.*` (the near-duplicate
index entries, see `filters.dedup`), `quarantine.jsonl`, and, where the input cannot be read a second time at little
cost, `text.arrow`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from filters.kernels.packed import PackedText
from filters.phases.columns import exact_column, slice_column
from filters.phases.phase import Job
from filters.read.batch import Batch

ATTRIBUTES = "attributes"
"""Name of the phase."""
ROWS = "rows.arrow"
SLICE = "slice:"

SCHEMA = pa.schema(
    [
        pa.field("position", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("tokens", pa.int32()),
        pa.field("language", pa.string()),
        pa.field("language_score", pa.float32()),
        pa.field("score", pa.float32()),
        pa.field("exact_hash", pa.binary(16)),
        pa.field("has_signature", pa.bool_()),
        pa.field("reason", pa.string()),
        pa.field("checksum", pa.uint64(), nullable=False),
    ]
)
"""Columns of rows.arrow, a row for every document of the unit, in input order.

id: as the input gives it, not yet unique in the run. reason: why the document was removed, null while it is alive;
tokens, score, exact_hash and has_signature are null exactly where it is not alive (exact_hash also where exact
duplicates are not looked for, has_signature where near duplicates are not). checksum: xxh3-64 of the text, by which it
is recognised when the input is read again.
"""


class RowsWriter:
    """Writes rows.arrow. Use as a context manager.

    Args:
        path: of the file.
        slices: pass-through columns that attributes are to be sliced by, kept as strings named `SLICE` + name.
    """

    def __init__(self, path: Path, slices: Sequence[str] = ()) -> None:
        self._slices = slices
        schema = pa.schema([*SCHEMA, *(pa.field(SLICE + name, pa.string()) for name in slices)])
        self._writer = pa.ipc.new_stream(str(path), schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))

    def write(self, batch: Batch) -> None:
        """Append a batch all of whose steps are done.

        Raises:
            InputError: a column of `slices` is missing, or cannot be a string.
        """
        rows = to_rows(batch)
        for name in self._slices:
            rows = rows.append_column(SLICE + name, slice_column(batch, name))
        self._writer.write_batch(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()


def to_rows(batch: Batch) -> pa.RecordBatch:
    """The rows of a batch, with the columns of `SCHEMA`."""
    found, n = batch.attributes, len(batch)
    dead = ~batch.alive
    language = pa.array(found["language"], pa.string()) if "language" in found else pa.nulls(n, pa.string())
    columns = {
        "position": pa.array(batch.position),
        "id": batch.id,
        "url": batch.columns["url"].cast(pa.string()) if "url" in batch.columns else pa.nulls(n, pa.string()),
        "bytes": pa.array(batch.text_bytes),
        "tokens": pa.array(found["tokens"], mask=dead),
        "language": language,
        "language_score": pc.if_else(language.is_valid(), pa.array(found["language_score"]), None)
        if "language" in found
        else pa.nulls(n, pa.float32()),
        "score": pa.array(found["score"], mask=dead),
        "exact_hash": exact_column(found["exact"], dead),
        "has_signature": pa.array(found["has_signature"], mask=dead),
        "reason": pa.array(batch.reason, pa.string()),
        "checksum": pa.array(text_checksums(batch.text)),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def read_rows(job: Job, unit: int, columns: list[str]) -> pa.Table:
    """Some columns of all rows of an input unit, in input order.

    Raises:
        DamagedError: the file is missing or not what its entry says.
    """
    path = job.file(ATTRIBUTES, unit, ROWS)
    with pa.memory_map(str(path)) as source:
        with pa.ipc.open_stream(source) as reader:
            numbers = [reader.schema.get_field_index(name) for name in columns]
        source.seek(0)
        with pa.ipc.open_stream(source, options=pa.ipc.IpcReadOptions(included_fields=numbers)) as reader:
            return reader.read_all().select(columns)


@functools.lru_cache(maxsize=4)  # asked for by most units, and there may be many input units
def first_rows(job: Job) -> npt.NDArray[np.int64]:
    """int64[units + 1]: running number, over the whole run, of the first row of each input unit; last the total.

    A document's number is that of its unit's first row plus its row in the unit.

    Raises:
        DamagedError: the phase `attributes` is not done.
    """
    counts = [int(job.facts(ATTRIBUTES, unit)["rows"]) for unit in range(len(job.units))]
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def text_checksums(text: pa.Array) -> npt.NDArray[np.uint64]:
    """uint64[n]: xxh3-64 of each of n texts (large_string)."""
    packed = PackedText.from_arrow(text)
    view, bounds = packed.data.data, packed.offsets.tolist()
    digest = xxhash.xxh3_64_intdigest
    hashes = (digest(view[start:end]) for start, end in itertools.pairwise(bounds))
    return np.fromiter(hashes, dtype=np.uint64, count=len(text))
