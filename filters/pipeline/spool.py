"""One unit's batches on their way from a worker to the run's ordered half: an Arrow IPC file, published whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datatrove.pipeline.base import PipelineStep

from filters.publish import publishing
from filters.read.batch import Batch, Quarantined
from filters.read.local import Reading

COLUMN, ATTRIBUTE = "column:", "attribute:"


def spool_path(folder: Path, unit: int) -> Path:
    """Where the batches of unit number `unit` lie."""
    return folder / f"unit-{unit:06d}.arrow"


class WriteSpool(PipelineStep):
    """Write this rank's batches to the spool; the file appears under its name only when it is whole.

    Each batch is an Arrow stream of its own behind its length (uint64, little endian), for pass-through columns of
    schemaless inputs may change type from batch to batch.
    """

    type = "FINESIEVE"
    name = "Spool"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Iterable[Batch], rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Write all batches; yield nothing."""
        with publishing(spool_path(self.folder, rank), sync=False) as temporary, temporary.open("wb") as file:
            for batch in data:
                with self.track_time("batch"):
                    buffer = _serialized(batch)
                    file.write(len(buffer).to_bytes(8, "little"))
                    file.write(buffer)
        yield from ()


def read_spool(path: Path) -> Iterator[Batch]:
    """The batches of one unit, in order; their text is memory-mapped."""
    with pa.memory_map(str(path)) as source:
        while header := source.read(8):
            end = source.tell() + int.from_bytes(header, "little")
            with pa.ipc.open_stream(source) as reader:
                yield _from_arrow(reader.read_next_batch())
            source.seek(end)


def handed_over(batch: Batch) -> Batch:
    """The batch as `read_spool` would give it: the ordered half sees the same, whether a file lies between or not."""
    with pa.ipc.open_stream(_serialized(batch)) as reader:
        return _from_arrow(reader.read_next_batch())


def _serialized(batch: Batch) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    record_batch = _to_arrow(batch)
    with pa.ipc.new_stream(sink, record_batch.schema) as writer:
        writer.write_batch(record_batch)
    return sink.getvalue()


def _to_arrow(batch: Batch) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {
        "position": pa.array(batch.position),
        "id": batch.id,
        "text": batch.text,
        "reason": pa.array(batch.reason, type=pa.string()),
    }
    columns |= {COLUMN + name: values for name, values in batch.columns.items()}
    columns |= {ATTRIBUTE + name: _attribute_to_arrow(values) for name, values in batch.attributes.items()}
    rest = {
        "source": batch.source,
        "records": batch.records,
        "skipped": batch.skipped,
        "input_bytes": batch.input_bytes,
        "reading": None if batch.reading is None else [batch.reading.stamp, batch.reading.digest],
        "quarantined": [asdict(q) | {"first_bytes": q.first_bytes.decode("latin-1")} for q in batch.quarantined],
    }
    arrays = [values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values for values in columns.values()]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns)).replace_schema_metadata({"rest": json.dumps(rest)})


def _attribute_to_arrow(values: np.ndarray[Any, Any]) -> pa.Array:
    if values.dtype == object:
        return pa.array(values, type=pa.string())
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])
    return pa.array(values)


def _attribute_to_numpy(values: pa.Array) -> np.ndarray[Any, Any]:
    if pa.types.is_fixed_size_list(values.type):
        flat: np.ndarray[Any, Any] = values.flatten().to_numpy()
        return flat.reshape(len(values), values.type.list_size)
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _from_arrow(record_batch: pa.RecordBatch) -> Batch:
    columns = dict(zip(record_batch.schema.names, record_batch.columns, strict=True))
    rest = json.loads(record_batch.schema.metadata[b"rest"])
    quarantined = [
        Quarantined(q["source"], q["position"], q["cause"], q["first_bytes"].encode("latin-1"))
        for q in rest.pop("quarantined")
    ]
    reading = rest.pop("reading")
    return Batch(
        reading=None if reading is None else Reading(*reading),
        position=columns["position"].to_numpy(),
        id=columns["id"],
        text=columns["text"],
        reason=columns["reason"].to_numpy(zero_copy_only=False),
        columns={name.removeprefix(COLUMN): array for name, array in columns.items() if name.startswith(COLUMN)},
        attributes={
            name.removeprefix(ATTRIBUTE): _attribute_to_numpy(array)
            for name, array in columns.items()
            if name.startswith(ATTRIBUTE)
        },
        quarantined=quarantined,
        **rest,
    )
