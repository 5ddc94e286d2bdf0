"""The ordered half of a run: unique ids, first-come deduplication, the keep rule, and the files they end in.

One task, all units in input order. Everything here depends on the order of documents alone, which is why the output is
the same for any number of workers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from datatrove.pipeline.base import PipelineStep

from filters.config import DedupConfig, OutputConfig, QuarantineConfig
from filters.dedup.stream import StreamingDedup
from filters.errors import InputError, RunError
from filters.inspect.histogram import Histogram
from filters.kernels.index import HashIndex
from filters.pipeline.blocks import Batches
from filters.pipeline.ledger import Ledger
from filters.pipeline.publish import publishing
from filters.pipeline.shards import ShardWriter
from filters.pipeline.spool import read_spool, spool_path
from filters.read.batch import Batch

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

ATTRIBUTE_FIELDS = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("position", pa.int64(), nullable=False),
    pa.field("url", pa.string()),
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
"""Columns of the side files: a row for every input document, kept or not.

bytes: of UTF-8 text; tokens: an estimate, see `filters.kernels.words.token_estimate`; *_cluster: number of the first
document of the cluster, counted over the documents that reached deduplication; duplicate_of: id of the survivor, null
where the document is its own; reason: null where kept.
"""
ATTRIBUTE_ROWS = 1_000_000
"""Rows in a side file."""


class ReadSpool(PipelineStep):
    """Batches of all units, in input order, as their spool files come in; a file that was read is deleted."""

    type = "FINESIEVE"
    name = "Collect"

    def __init__(self, folder: Path, ready: Iterable[int]) -> None:
        super().__init__()
        self.folder = folder
        self.ready = ready

    def run(self, data: Batches | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield batches unit by unit."""
        for unit in self.ready:
            path = spool_path(self.folder, unit)
            yield from read_spool(path)
            path.unlink()


class UniqueIds(PipelineStep):
    """Give a document whose id is taken a suffix: "a", "a#2", "a#3". Attribute `renamed` (bool[n])."""

    type = "FINESIEVE"
    name = "Unique ids"

    def __init__(self) -> None:
        super().__init__()
        self._index = HashIndex()
        self._seen = 0
        self._suffix: dict[str, int] = {}

    def run(self, data: Batches, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the batches with unique ids."""
        for batch in data:
            with self.track_time("batch"):
                self._rename(batch)
            yield batch

    def _taken(self, ids: list[str]) -> npt.NDArray[np.bool_]:
        hashes = np.fromiter((xxhash.xxh3_64_intdigest(i.encode()) for i in ids), dtype=np.uint64, count=len(ids))
        numbers = np.arange(self._seen, self._seen + len(ids), dtype=np.int64)
        self._seen += len(ids)
        return np.asarray(self._index.resolve(hashes, np.ones(len(ids), dtype=bool), numbers) >= 0)

    def _rename(self, batch: Batch) -> None:
        ids = batch.id.to_pylist()
        taken = self._taken(ids)
        batch.attributes["renamed"] = taken
        if not taken.any():
            return
        for row in np.flatnonzero(taken).tolist():
            given = ids[row]
            number = self._suffix.get(given, 1) + 1
            while self._taken([f"{given}#{number}"])[0]:
                number += 1
            self._suffix[given] = number
            ids[row] = f"{given}#{number}"
        batch.id = pa.array(ids, type=pa.string())


class Deduplicate(PipelineStep):
    """First come wins: later copies are removed with `exact_duplicate` or `near_duplicate`.

    Attributes `exact_cluster`, `near_cluster` (int64[n], -1 where none) and `duplicate_of` (object[n], survivor's id).
    """

    type = "FINESIEVE"
    name = "Deduplicate"

    def __init__(self, config: DedupConfig) -> None:
        super().__init__()
        self._stream = StreamingDedup(config.exact, config.near)
        self._ids: list[pa.Array] = []
        self._starts: list[int] = [0]

    def run(self, data: Batches, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the batches with duplicates removed."""
        for batch in data:
            with self.track_time("batch"):
                self._resolve(batch)
            yield batch

    def _resolve(self, batch: Batch) -> None:
        alive = batch.alive
        found = batch.attributes
        verdict = self._stream.add(found["exact"], found.get("keys"), found["has_signature"], alive)
        ids = batch.id.filter(pa.array(alive))
        self._ids.append(ids)
        self._starts.append(self._starts[-1] + len(ids))
        exact = alive & (verdict.exact_root != verdict.number)
        near = alive & ~exact & (verdict.near_root != verdict.number)
        survivors = np.full(len(batch), None, dtype=object)
        for row in np.flatnonzero(exact | near).tolist():
            survivors[row] = self._id_of(int(verdict.near_root[row]))
        batch.remove(exact, "exact_duplicate")
        batch.remove(near, "near_duplicate")
        found["exact_cluster"], found["near_cluster"] = verdict.exact_root, verdict.near_root
        found["duplicate_of"] = survivors

    def _id_of(self, number: int) -> str:
        chunk = int(np.searchsorted(self._starts, number, side="right")) - 1
        return str(self._ids[chunk][number - self._starts[chunk]])


class Select(PipelineStep):
    """Remove documents below the threshold with `low_score`; a score equal to it is kept (compared in float32)."""

    type = "FINESIEVE"
    name = "Select"

    def __init__(self, min_score: float) -> None:
        super().__init__()
        self.min_score = np.float32(min_score)

    def run(self, data: Batches, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the batches; what is alive after this step is kept."""
        for batch in data:
            batch.remove(~(batch.attributes["score"] >= self.min_score), "low_score")
            yield batch


class Book(PipelineStep):
    """Enter every batch into the ledger and the histogram, and stop the run when too much is quarantined."""

    type = "FINESIEVE"
    name = "Ledger"

    def __init__(
        self, ledger: Ledger, histogram: Histogram, config: QuarantineConfig, on_batch: Callable[[Batch], None]
    ) -> None:
        super().__init__()
        self.ledger, self.histogram, self.config, self.on_batch = ledger, histogram, config, on_batch
        self._records = self._quarantined = 0

    def run(self, data: Batches, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the batches unchanged.

        Raises:
            RunError: more than the configured share of the records so far is quarantined.
        """
        for batch in data:
            self.ledger.add(batch, renamed=int(batch.attributes["renamed"].sum()))
            scored = ~np.isnan(batch.attributes["score"])
            survives = scored & np.fromiter(
                (reason in (None, "low_score") for reason in batch.reason), dtype=bool, count=len(batch)
            )
            self.histogram.add(
                batch.attributes["score"][survives],
                tokens=batch.attributes["tokens"][survives],
                text_bytes=_text_bytes(batch)[survives],
            )
            self._records += batch.records
            self._quarantined += len(batch.quarantined)
            self.on_batch(batch)
            if self._records >= self.config.grace:
                self._check_share(self._records)
            yield batch
        self._check_share(max(self._records, self.config.grace))

    def _check_share(self, records: int) -> None:
        if self._quarantined > self.config.max_share * records:
            causes = ", ".join(f"{cause} {n:,}" for cause, n in self.ledger.total.quarantined.most_common(3))
            worst = max(self.ledger.accounts.items(), key=lambda item: item[1].quarantined.total())[0]
            raise RunError(
                f"{self._quarantined:,} of {self._records:,} records are quarantined ({causes}; most in {worst}), more "
                f"than quarantine.max_share = {self.config.max_share:g} allows. Nothing was published. Check that "
                "input.kind and the keys fit the files, or raise quarantine.max_share"
            )


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
                self._write(batch, file)
                yield batch

    def _write(self, batch: Batch, file: IO[str]) -> None:
        for record in batch.quarantined:
            line = {
                "source": record.source,
                "position": record.position,
                "cause": record.cause,
                "first_bytes": record.first_bytes.decode("latin-1"),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self.rows += 1


class WriteAttributes(PipelineStep):
    """Side files in attributes/: a row for every input document."""

    type = "FINESIEVE"
    name = "Write attributes"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.files: list[Path] = []

    def run(self, data: Batches, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Yield the batches unchanged."""
        plain = frozenset({"id", "url", "position", "exact_hash"})
        writer = ShardWriter(self.folder, "attributes", pa.schema(ATTRIBUTE_FIELDS), ATTRIBUTE_ROWS, plain=plain)
        self.files = writer.files
        with writer:
            for batch in data:
                with self.track_time("batch"):
                    writer.write(_attributes_table(batch), pa.array(np.ones(len(batch), dtype=np.int64)))
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
            *([pa.field("reason", pa.string()), pa.field("duplicate_of", pa.string())] * rejected),
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
        schema = pa.schema([*self._fields, *pass_through_fields(waiting[-1] if waiting else None, self._fields)])
        writer = ShardWriter(self.folder, "rejected" if self.rejected else "shard", schema, self.config.shard_size,
                             self.config.format)  # fmt: skip
        self.files = writer.files
        with writer:
            for batch in _chain(waiting, batches):
                with self.track_time("batch"):
                    self._write(writer, batch)
                yield batch

    def _write(self, writer: ShardWriter, batch: Batch) -> None:
        chosen = ~batch.alive if self.rejected else batch.alive
        if not chosen.any():
            return
        try:
            table = _shard_table(batch, writer.schema, len(self._fields)).filter(pa.array(chosen))
            writer.write(table, pa.array(_text_bytes(batch)[chosen]))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as error:
            raise InputError(
                f"{batch.source}: its pass-through columns do not fit those of the files before it: {error}. "
                "Remedy: leave that column out of input.columns, or filter these files in a run of their own"
            ) from error


def pass_through_fields(batch: Batch | None, own: list[pa.Field]) -> list[pa.Field]:
    """Fields of a batch's pass-through columns; one whose name finesieve uses itself gets the prefix "input_"."""
    if batch is None:
        return []
    taken = {field.name for field in own}
    return [
        pa.field(
            f"input_{name}" if name in taken else name, pa.string() if pa.types.is_null(array.type) else array.type
        )
        for name, array in batch.columns.items()
    ]


def _chain(first: list[Batch], rest: Iterator[Batch]) -> Iterator[Batch]:
    yield from first
    yield from rest


def _text_bytes(batch: Batch) -> npt.NDArray[np.int64]:
    return np.asarray(pc.binary_length(batch.text).to_numpy(zero_copy_only=False), dtype=np.int64)


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
    missing = found["exact_cluster"] < 0
    exact = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), n, [None, pa.py_buffer(np.ascontiguousarray(found["exact"]).tobytes())]
    )
    return pa.table(
        _found(batch)
        | {
            "url": batch.columns["url"].cast(pa.string()) if "url" in batch.columns else pa.nulls(n, pa.string()),
            "bytes": pa.array(_text_bytes(batch)),
            "exact_hash": pc.if_else(pa.array(missing), pa.scalar(None, pa.binary(16)), exact),
            "exact_cluster": pa.array(found["exact_cluster"], mask=missing),
            "near_cluster": pa.array(found["near_cluster"], mask=missing),
            "keep": pa.array(batch.alive),
        }
    )


def _shard_table(batch: Batch, schema: pa.Schema, own: int) -> pa.Table:
    columns = _found(batch) | {"text": batch.text}
    names = schema.names[own:]
    for name, (given, array) in zip(names, batch.columns.items(), strict=True):
        if name.removeprefix("input_") != given and name != given:
            raise KeyError(f"column {given!r} where {name!r} was expected")
        columns[name] = array
    return pa.table({name: columns[name] for name in schema.names})
