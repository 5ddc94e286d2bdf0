"""The ordered half of a run, its files: shards, rejected documents, attributes and quarantine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datatrove.pipeline.base import PipelineStep

from filters.config import OutputConfig
from filters.errors import InputError
from filters.inspect.hosts import hosts
from filters.inspect.summary import Histograms
from filters.pipeline.blocks import Batches
from filters.pipeline.shards import ShardWriter
from filters.publish import publishing
from filters.read.batch import Batch, Quarantined

OWN_FIELDS = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("text", pa.large_string(), nullable=False),
    pa.field("score", pa.float32()),
    pa.field("language", pa.string()),
    pa.field("language_score", pa.float32()),
    pa.field("tokens", pa.int32()),
    pa.field("source", pa.string(), nullable=False),
    pa.field("position", pa.int64(), nullable=False),
]
"""Columns of every shard, before the pass-through columns."""

REJECTED_FIELDS = [pa.field("reason", pa.string()), pa.field("duplicate_of", pa.string())]
"""Columns that rejected documents have beside those."""

ATTRIBUTE_FIELDS = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("position", pa.int64(), nullable=False),
    pa.field("url", pa.string()),
    pa.field("host", pa.string()),
    pa.field("bytes", pa.int64(), nullable=False),
    pa.field("tokens", pa.int32()),
    pa.field("language", pa.string()),
    pa.field("language_score", pa.float32()),
    pa.field("score", pa.float32()),
    pa.field("exact_hash", pa.binary(16)),
    pa.field("exact_cluster", pa.int64()),
    pa.field("near_cluster", pa.int64()),
    pa.field("duplicate_of", pa.string()),
    pa.field("keep", pa.bool_(), nullable=False),
    pa.field("reason", pa.string()),
]
"""Columns of the side files, before the columns of `input.slices`: a row for every input document, kept or not.

host: of the url; bytes: of UTF-8 text; tokens: an estimate, see `filters.kernels.tokens`; *_cluster: number of the
first document of the cluster, counted over the documents that reached deduplication; duplicate_of: id of the survivor,
null where the document is its own; reason: null where kept.
"""
PLAIN_ATTRIBUTES = frozenset({"id", "url", "position", "exact_hash"})
"""Columns of the side files whose values are mostly distinct."""
ATTRIBUTE_ROWS = 1_000_000
"""Rows in a side file."""


class WriteQuarantine(PipelineStep):
    """quarantine.jsonl: source, position, cause and first bytes (latin-1: one character a byte) of each record."""

    type = "FINESIEVE"
    name = "Write quarantine"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows = 0

    def run(self, data: Batches, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the batches unchanged; the file appears when all are through."""
        with publishing(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
            for batch in data:
                file.writelines(quarantine_line(record) for record in batch.quarantined)
                self.rows += len(batch.quarantined)
                yield batch


def quarantine_line(record: Quarantined) -> str:
    """The line of a record in quarantine.jsonl."""
    line = {
        "source": record.source,
        "position": record.position,
        "cause": record.cause,
        "first_bytes": record.first_bytes.decode("latin-1"),
    }
    return json.dumps(line, ensure_ascii=False) + "\n"


class WriteAttributes(PipelineStep):
    """Side files in attributes/: a row for every input document.

    Args:
        folder: exists already.
        slices: pass-through columns that are copied into the side files, as strings.

    Attributes:
        histograms: of everything written so far.
    """

    type = "FINESIEVE"
    name = "Write attributes"

    def __init__(self, folder: Path, slices: Sequence[str] = ()) -> None:
        super().__init__()
        self.folder = folder
        self.slices = dict(zip(slices, slice_names(slices), strict=True))
        self.histograms = Histograms(self.slices.values())
        self.files: list[Path] = []

    def run(self, data: Batches, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the batches unchanged.

        Raises:
            InputError: a column of `input.slices` is missing, or its values are no strings, numbers or booleans.
        """
        fields = [*ATTRIBUTE_FIELDS, *(pa.field(name, pa.string()) for name in self.slices.values())]
        writer = ShardWriter(self.folder, "attributes", pa.schema(fields), ATTRIBUTE_ROWS, plain=PLAIN_ATTRIBUTES)
        self.files = writer.files
        with writer:
            for batch in data:
                with self.track_time("batch"):
                    table = _attributes_table(batch)
                    for column, name in self.slices.items():
                        table = table.append_column(name, slice_column(batch, column))
                    self.histograms.add(table)
                    # Rows wait for their row group: copied, so that they do not hold whole spool files in the meantime.
                    table = table.take(pa.array(np.arange(len(batch))))
                    writer.write(table, pa.array(np.ones(len(batch), dtype=np.int64)))
                yield batch


class WriteShards(PipelineStep):
    """Shards of kept documents, or of removed ones with their reasons.

    Args:
        folder: exists already.
        config: format and size.
        rejected: write the documents that were removed instead of those kept.
    """

    type = "FINESIEVE"
    name = "Write shards"

    def __init__(self, folder: Path, config: OutputConfig, *, rejected: bool = False) -> None:
        super().__init__()
        self.folder, self.config, self.rejected = folder, config, rejected
        self.files: list[Path] = []
        self._fields = [
            *OWN_FIELDS,
            *(REJECTED_FIELDS * rejected),
        ]

    def run(self, data: Batches, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the batches unchanged.

        Raises:
            InputError: a pass-through column has another type than in the files before it.
        """
        batches = iter(data)
        waiting: list[Batch] = []
        for batch in batches:
            waiting.append(batch)
            if len(batch):
                break
        schema = pa.schema([*self._fields, *_pass_through_fields(waiting[-1] if waiting else None, self._fields)])
        writer = ShardWriter(self.folder, "rejected" if self.rejected else "shard", schema, self.config.shard_size,
                             self.config.format)  # fmt: skip
        self.files = writer.files
        with writer:
            for batch in chain(waiting, batches):
                with self.track_time("batch"):
                    self._write(writer, batch)
                yield batch

    def _write(self, writer: ShardWriter, batch: Batch) -> None:
        chosen = ~batch.alive if self.rejected else batch.alive
        if not chosen.any():
            return
        try:
            table = _shard_table(batch, writer.schema, len(self._fields)).filter(pa.array(chosen))
            writer.write(table, pa.array(batch.text_bytes[chosen]))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as error:
            raise columns_do_not_fit(batch.source, error) from error


def columns_do_not_fit(source: str, error: Exception) -> InputError:
    """The error of an input file whose pass-through columns are not those of the first one."""
    return InputError(
        f"{source}: its pass-through columns do not fit those of the files before it: {error}. "
        "Remedy: leave that column out of input.columns, or filter these files in a run of their own"
    )


def pass_through_names(columns: Iterable[str], own: Iterable[str]) -> list[str]:
    """Names of pass-through columns in a shard; one that is taken already gets the prefix "input_"."""
    taken = set(own)
    names = []
    for name in columns:
        while name in taken:
            name = f"input_{name}"
        taken.add(name)
        names.append(name)
    return names


def slice_names(slices: Sequence[str]) -> list[str]:
    """Names that the columns of `input.slices` have in the side files."""
    return pass_through_names(slices, (field.name for field in ATTRIBUTE_FIELDS))


def slice_column(batch: Batch, column: str) -> pa.Array:
    """string[n]: a column of `input.slices`.

    Raises:
        InputError: it is missing, or its values are no strings, numbers or booleans.
    """
    if not len(batch):  # which may come without columns
        return pa.array([], pa.string())
    try:
        return batch.columns[column].cast(pa.string())
    except (KeyError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{batch.source}: column {column!r} cannot be sliced by: {error}. Remedy: name columns of strings, numbers "
            "or booleans in input.slices"
        ) from error


def _pass_through_fields(batch: Batch | None, own: list[pa.Field]) -> list[pa.Field]:
    if batch is None:
        return []
    names = pass_through_names(batch.columns, (field.name for field in own))
    return [
        pa.field(name, pa.string() if pa.types.is_null(array.type) else array.type)
        for name, array in zip(names, batch.columns.values(), strict=True)
    ]


def _found(batch: Batch) -> dict[str, pa.Array]:
    """What the steps found, as Arrow columns; null where a document did not get that far."""
    found, n = batch.attributes, len(batch)
    score = found["score"]
    fingerprinted = found["exact_cluster"] >= 0
    return {
        "id": batch.id,
        "source": pa.repeat(pa.scalar(batch.source), n),
        "position": pa.array(batch.position),
        "score": pa.array(score, mask=np.isnan(score)),
        "language": pa.array(found["language"], pa.string()) if "language" in found else pa.nulls(n, pa.string()),
        "language_score": pa.array(
            found["language_score"],
            mask=pc.is_null(pa.array(found["language"], pa.string())).to_numpy(zero_copy_only=False),
        )
        if "language" in found
        else pa.nulls(n, pa.float32()),
        "tokens": pa.array(found["tokens"], mask=~fingerprinted),
        "duplicate_of": pa.array(found["duplicate_of"], pa.string()),
        "reason": pa.array(batch.reason, pa.string()),
    }


def _attributes_table(batch: Batch) -> pa.Table:
    found, n = batch.attributes, len(batch)
    url = batch.columns["url"].cast(pa.string()) if "url" in batch.columns else pa.nulls(n, pa.string())
    missing = found["exact_cluster"] < 0
    return pa.table(
        _found(batch)
        | {
            "url": url,
            "host": hosts(url),
            "bytes": pa.array(batch.text_bytes),
            "exact_hash": exact_column(found["exact"], missing),
            "exact_cluster": pa.array(found["exact_cluster"], mask=missing),
            "near_cluster": pa.array(found["near_cluster"], mask=missing),
            "keep": pa.array(batch.alive),
        }
    )


def exact_column(exact: npt.NDArray[np.uint64], missing: npt.NDArray[np.bool_]) -> pa.Array:
    """binary(16)[n]: exact hashes (uint64[n, 2]); null where they are missing, and `dedup.exact` is off (zeros)."""
    stored = pa.py_buffer(np.ascontiguousarray(exact).tobytes())
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(exact), [None, stored])
    return pc.if_else(pa.array(missing | ~exact.any(axis=1)), pa.scalar(None, pa.binary(16)), column)


def _shard_table(batch: Batch, schema: pa.Schema, own: int) -> pa.Table:
    names = pass_through_names(batch.columns, schema.names[:own])
    if names != schema.names[own:]:
        raise KeyError(f"columns {names} where {schema.names[own:]} were expected")
    columns = _found(batch) | {"text": batch.text} | dict(zip(names, batch.columns.values(), strict=True))
    return pa.table({name: columns[name] for name in schema.names})
