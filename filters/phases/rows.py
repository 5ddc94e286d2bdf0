"""What is known of each document: columns of shards and side files, and `rows.arrow` of the phase `attributes`.

That phase writes for every input unit `rows.arrow` (a record batch for each batch the reader gave), `bands.bin` (what
documents are joined by, see `filters.dedup.bands`), `quarantine.jsonl`, and, where the input cannot be read a second
time at little cost, `text.arrow`.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from filters.config.filter import FilterConfig
from filters.errors import InputError
from filters.kernels.packed import PackedText
from filters.phases.phase import Job
from filters.read.batch import Batch, Quarantined
from filters.scores.rules import Rule, columns_of

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

REJECTED_FIELDS = [
    pa.field("reason", pa.string()),
    pa.field("duplicate_of", pa.string()),
    pa.field("similarity", pa.float64()),
]
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
    pa.field("similarity", pa.float64()),
    pa.field("keep", pa.bool_(), nullable=False),
    pa.field("reason", pa.string()),
]
"""Columns of the side files, before the columns of `input.slices`: a row for every input document, kept or not."""
MEANINGS = {
    "id": "id of the document: the input's, or derived from source and position; unique in the run",
    "text": "text of the document",
    "source": "name of the input file",
    "position": "place in the input file: row (parquet, hub), line from 1 (jsonl), byte offset of the record (warc)",
    "url": "address of the page; null if the input has none",
    "host": "host of the address",
    "bytes": "bytes of UTF-8 text",
    "tokens": "estimated number of tokens",
    "language": "ISO 639-1 code of the identified language; null if languages are not identified",
    "language_score": "probability of the identified language",
    "score": "score of the model; null if the document was removed before it was scored",
    "exact_hash": "xxh3-128 of the text in lower case with white space collapsed",
    "exact_cluster": "number of the first document with the same exact hash",
    "near_cluster": "number of the document that stays, for it and its near copies",
    "duplicate_of": "id of the document that this one is a copy of; null if it is no copy",
    "similarity": "similarity of the two",
    "keep": "whether the document is kept",
    "reason": "why the document was removed; null if it is kept",
    "cluster_size": "number of documents that name the same document that stays, itself included",
    "copies": "how many times the document is written (with output.repeat)",
    "bucket": "level of quality (with output.buckets)",
}
"""What each column means."""
PLAIN_ATTRIBUTES = frozenset({"id", "url", "position", "exact_hash"})
"""Columns of the side files whose values are mostly distinct."""
ATTRIBUTE_ROWS = 1_000_000
"""Rows in a side file."""


def quarantine_line(record: Quarantined) -> str:
    """The line of a record in quarantine.jsonl."""
    line = {
        "source": record.source,
        "position": record.position,
        "cause": record.cause,
        "first_bytes": record.first_bytes.decode("latin-1"),
    }
    return json.dumps(line, ensure_ascii=False) + "\n"


def added_fields(config: FilterConfig) -> list[pa.Field]:
    """Columns of decisions, in shards and side files: they depend on what the config asks for."""
    fields = [pa.field("cluster_size", pa.int32())]
    if config.output.repeat:
        fields.append(pa.field("copies", pa.int32()))
    if config.output.buckets:
        fields.append(pa.field("bucket", pa.string()))
    return fields


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


def exact_column(exact: npt.NDArray[np.uint64], missing: npt.NDArray[np.bool_]) -> pa.Array:
    """binary(16)[n]: exact hashes (uint64[n, 2]); null where they are missing, and `dedup.exact` is off (zeros)."""
    stored = pa.py_buffer(np.ascontiguousarray(exact).tobytes())
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(exact), [None, stored])
    return pc.if_else(pa.array(missing | ~exact.any(axis=1)), pa.scalar(None, pa.binary(16)), column)


def slice_names(slices: Sequence[str]) -> list[str]:
    """Names that the columns of `input.slices` have in the side files."""
    return pass_through_names(slices, (field.name for field in ATTRIBUTE_FIELDS))


def rule_of(config: FilterConfig) -> Rule | None:
    """What `keep.where` and `keep.by` ask for; None where neither is given.

    Raises:
        ConfigError: one of them is no rule, or contradicts `keep.min_score`.
    """
    keep = config.keep
    if keep.where is None and keep.by is None:
        return None
    return _checked(keep.where, keep.by, tuple(slice_names(config.slices)), keep.min_score, config.folder)


@functools.lru_cache(maxsize=16)
def _checked(where: str | None, by: str | None, slices: tuple[str, ...], min_score: float | None, folder: str) -> Rule:
    return Rule(where, by, columns_of(slices), min_score=min_score, folder=folder)


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
