"""What is known of each document: columns of shards and side files, and `rows.arrow` of the phase `attributes`.

That phase writes for every input unit `rows.arrow` (a record batch for each batch the reader gave), `bands.bin` (what
documents are joined by, see `filters.dedup.bands`), `quarantine.jsonl`, and, where the input cannot be read a second
time at little cost, `text.arrow`.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

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
from filters.scores.rules import Kind, Rule, columns_of

_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "id": (pa.string(), "id of the document: the input's, or derived from source and position; unique in the run"),
    "text": (pa.large_string(), "text of the document"),
    "source": (pa.string(), "name of the input file"),
    "position": (
        pa.int64(),
        "place in the input file: row (parquet, hub), line from 1 (jsonl), byte offset of the record (warc)",
    ),
    "url": (pa.string(), "address of the page; null if the input has none"),
    "host": (pa.string(), "host of the address"),
    "bytes": (pa.int64(), "bytes of UTF-8 text"),
    "tokens": (pa.int32(), "estimated number of tokens"),
    "language": (pa.string(), "ISO 639-1 code of the identified language; null if languages are not identified"),
    "language_score": (pa.float32(), "probability of the identified language"),
    "score": (pa.float32(), "score of the model; null if the document was removed before it was scored"),
    "exact_hash": (pa.binary(16), "xxh3-128 of the text in lower case with white space collapsed"),
    "exact_cluster": (pa.int64(), "number of the first document with the same exact hash"),
    "near_cluster": (pa.int64(), "number of the document that stays, for it and its near copies"),
    "duplicate_of": (pa.string(), "id of the document that this one is a copy of; null if it is no copy"),
    "similarity": (pa.float64(), "similarity of the two"),
    "keep": (pa.bool_(), "whether the document is kept"),
    "reason": (pa.string(), "why the document was removed; null if it is kept"),
    "cluster_size": (pa.int32(), "number of documents that name the same document that stays, itself included"),
    "copies": (pa.int32(), "how many times the document is written (with output.repeat)"),
    "bucket": (pa.string(), "level of quality (with output.buckets)"),
}
"""Type and meaning of every column."""
_REQUIRED = frozenset({"id", "text", "source", "position", "bytes", "keep"})
"""Columns without nulls."""


def _fields(names: str) -> list[pa.Field]:
    return [pa.field(name, _COLUMNS[name][0], nullable=name not in _REQUIRED) for name in names.split()]


MEANINGS = {name: meaning for name, (_, meaning) in _COLUMNS.items()}
OWN_FIELDS = _fields("id text score language language_score tokens source position")
"""Columns of every shard, before the pass-through columns."""
REJECTED_FIELDS = _fields("reason duplicate_of similarity")
"""Columns that rejected documents have beside those."""
ATTRIBUTE_FIELDS = _fields(
    "id source position url host bytes tokens language language_score score exact_hash exact_cluster near_cluster "
    "duplicate_of similarity keep reason"
)
"""Columns of the side files, before the columns of `input.slices`: a row for every input document, kept or not."""
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


def score_fields(scores: Mapping[str, Kind]) -> list[pa.Field]:
    """Columns of `scores` of a config."""
    return [pa.field(name, pa.string() if kind == "text" else pa.float32()) for name, kind in scores.items()]


def added_fields(config: FilterConfig, scores: Mapping[str, Kind]) -> list[pa.Field]:
    """Columns of shards and side files that depend on what the config asks for: scores, and decisions."""
    output = config.output
    decided = _fields("cluster_size" + " copies" * bool(output.repeat) + " bucket" * bool(output.buckets))
    return score_fields(scores) + decided


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


def rule_of(config: FilterConfig, scores: Mapping[str, Kind]) -> Rule | None:
    """What `keep.where` and `keep.by` ask for; None where neither is given.

    Args:
        config: of the run.
        scores: columns of its `scores`.

    Raises:
        ConfigError: one of them is no rule, or contradicts `keep.min_score`.
    """
    keep = config.keep
    if keep.where is None and keep.by is None:
        return None
    columns = columns_of(slice_names(config.slices), scores)
    return _checked(keep.where, keep.by, tuple(columns.items()), keep.min_score, config.folder)


@functools.lru_cache(maxsize=16)
def _checked(
    where: str | None, by: str | None, columns: tuple[tuple[str, Kind], ...], min_score: float | None, folder: str
) -> Rule:
    return Rule(where, by, dict(columns), min_score=min_score, folder=folder)


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
ADDED = "added"
"""Name of the phase that scores the documents of a finished run with more models; its rows.arrow has their columns."""
SLICE = "slice:"

SCHEMA = pa.schema(
    [
        *_fields("position id url bytes tokens language language_score score exact_hash reason"),
        pa.field("has_signature", pa.bool_()),
        pa.field("checksum", pa.uint64(), nullable=False),
    ]
)
"""Columns of rows.arrow, a row for every document of the unit, in input order.

id: as the input gives it, not yet unique in the run. reason: why the document was removed, null while it is alive;
tokens, score, exact_hash and has_signature are null exactly where it is not alive (exact_hash also where exact
duplicates are not looked for, has_signature where near duplicates are not). checksum: xxh3-64 of the text, by which it
is recognised when the input is read again.
"""


def rows_schema(slices: Sequence[str], scores: Mapping[str, Kind]) -> pa.Schema:
    """Columns of rows.arrow in a run with more scores, and with slices."""
    return pa.schema([*SCHEMA, *score_fields(scores), *(pa.field(SLICE + name, pa.string()) for name in slices)])


@contextmanager
def rows_file(path: Path, slices: Sequence[str], scores: Mapping[str, Kind]) -> Iterator[Callable[[Batch], None]]:
    """Write rows.arrow: appends the batches it is called with, all of whose steps are done.

    Args:
        path: of the file.
        slices: pass-through columns that attributes are to be sliced by, kept as strings named `SLICE` + name.
        scores: columns of the config's `scores`.

    Raises:
        InputError: a column of `slices` is missing, or cannot be a string.
    """
    schema = rows_schema(slices, scores)
    with pa.ipc.new_stream(str(path), schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:

        def write(batch: Batch) -> None:
            columns, alive = _columns_of(batch), pa.array(batch.alive)
            for field in score_fields(scores):
                columns[field.name] = pc.if_else(alive, pa.array(batch.attributes[field.name], field.type), None)
            columns |= {SLICE + name: slice_column(batch, name) for name in slices}
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=schema))

        yield write


def _columns_of(batch: Batch) -> dict[str, pa.Array]:
    """The columns of `SCHEMA`."""
    found, n = batch.attributes, len(batch)
    dead = ~batch.alive
    language, language_score = pa.nulls(n, pa.string()), pa.nulls(n, pa.float32())
    if "language" in found:
        language = pa.array(found["language"], pa.string())
        language_score = pc.if_else(language.is_valid(), pa.array(found["language_score"]), None)
    return {
        "position": pa.array(batch.position),
        "id": batch.id,
        "url": batch.columns["url"].cast(pa.string()) if "url" in batch.columns else pa.nulls(n, pa.string()),
        "bytes": pa.array(batch.text_bytes),
        "tokens": pa.array(found["tokens"], mask=dead),
        "language": language,
        "language_score": language_score,
        "score": pa.array(found["score"], mask=dead),
        "exact_hash": exact_column(found["exact"], dead),
        "has_signature": pa.array(found["has_signature"], mask=dead),
        "reason": pa.array(batch.reason, pa.string()),
        "checksum": pa.array(text_checksums(batch.text)),
    }


def read_rows(job: Job, unit: int, columns: list[str]) -> pa.Table:
    """Some columns of all rows of an input unit, in input order.

    Raises:
        DamagedError: the file is missing or not what its entry says.
    """
    added = [name for name in columns if name in job.added]
    if not added:
        return _read(job.file(ATTRIBUTES, unit, ROWS), columns)
    found = _read(job.file(ATTRIBUTES, unit, ROWS), [name for name in columns if name not in added])
    for name, column in zip(added, _read(job.file(ADDED, unit, ROWS), added).columns, strict=True):
        found = found.append_column(name, column)
    return found.select(columns)


def _read(path: Path, columns: list[str]) -> pa.Table:
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
