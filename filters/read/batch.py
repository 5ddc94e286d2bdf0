"""Batches of documents of one source, with the records that could not be read, and how rows become one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from filters.config.filter import InputConfig
from filters.errors import InputError
from filters.read.columns import BigInteger, NotJsonError, json_text
from filters.read.unit import Reading

FIRST_BYTES = 200
"""How many bytes of a quarantined record are kept."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record that could not become a document.

    Attributes:
        source: name of the input file, as in the ledger.
        position: where in the file, in the unit of its kind (see `Batch.position`); -1 if it concerns the file.
        cause: short machine-readable cause, then ": " and details ("invalid_utf8: byte 0xff at 17").
        first_bytes: at most `FIRST_BYTES` of the raw record.
    """

    source: str
    position: int
    cause: str
    first_bytes: bytes


@dataclass(slots=True)
class Batch:
    """Documents of one input file, in input order, as columns of n rows.

    A document that is removed stays in its batch with a reason: every input document gets an attributes row.

    Attributes:
        source: name of the input file, as in the ledger.
        position: int64[n]; row index (parquet, hub), 1-based line number (jsonl), byte offset of the record in the
            file as stored (warc, wet).
        id: string[n]; given by the input, or derived from source and position.
        text: large_string[n]; "" where there is none.
        reason: object[n]; None for a document still alive, else why it was removed ("empty_text").
        columns: pass-through columns (name -> pa.Array of n), including "url" where the input has one.
        attributes: what later steps add (name -> numpy array with n rows).
        html: large_binary[n] of raw payloads still to be extracted (warc only), else None.
        content_type: string[n], media type and charset ("text/html; charset=gbk") where `html` is set.
        quarantined: records between the previous batch and the end of this one that did not become documents.
        skipped: records that are no documents by their kind (WARC requests, metadata), counted beside the ledger.
        records: how many records the reader took from the file for this batch, counted as they are delimited and
            independently of the above: records == n + len(quarantined), or the run fails.
        input_bytes: bytes of the stored file consumed for this batch, for progress.
        reading: what was read of a local input file: of the last batch of a unit, which has no documents.
    """

    source: str
    position: npt.NDArray[np.int64]
    id: pa.Array
    text: pa.Array
    reason: npt.NDArray[np.object_]
    columns: dict[str, pa.Array] = field(default_factory=dict)
    attributes: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    html: pa.Array | None = None
    content_type: pa.Array | None = None
    quarantined: list[Quarantined] = field(default_factory=list)
    skipped: int = 0
    records: int = 0
    input_bytes: int = 0
    reading: Reading | None = None

    def __len__(self) -> int:
        return len(self.position)

    @property
    def alive(self) -> npt.NDArray[np.bool_]:
        """bool[n]: documents no step has removed yet."""
        found: npt.NDArray[np.bool_] = np.equal(self.reason, np.array([None]))  # six times as fast as a loop
        return found

    @property
    def text_bytes(self) -> npt.NDArray[np.int64]:
        """int64[n]: bytes of UTF-8 text of each document."""
        return np.asarray(pc.binary_length(self.text).to_numpy(zero_copy_only=False), dtype=np.int64)

    def remove(self, where: npt.NDArray[np.bool_], reason: str | Sequence[str]) -> None:
        """Give the documents that are alive and selected by `where` (bool[n]) a reason; the first reason stays."""
        selected = where & self.alive
        if isinstance(reason, str):
            self.reason[selected] = reason
        else:
            self.reason[selected] = np.asarray(reason, dtype=object)[selected]

    def quarantine(self, rows: Sequence[int], causes: Sequence[str], first_bytes: Sequence[bytes]) -> None:
        """Take `rows` out of the batch into `quarantined` (a step could not process them)."""
        self.quarantined += [
            Quarantined(self.source, int(self.position[row]), cause, raw[:FIRST_BYTES])
            for row, cause, raw in zip(rows, causes, first_bytes, strict=True)
        ]
        keep = np.ones(len(self), dtype=bool)
        keep[list(rows)] = False
        mask = pa.array(keep)
        self.position = self.position[keep]
        self.id, self.text = self.id.filter(mask), self.text.filter(mask)
        self.reason = self.reason[keep]
        self.columns = {name: column.filter(mask) for name, column in self.columns.items()}
        self.attributes = {name: values[keep] for name, values in self.attributes.items()}
        if self.html is not None:
            self.html = self.html.filter(mask)
        if self.content_type is not None:
            self.content_type = self.content_type.filter(mask)


def derived_ids(source: str, positions: Iterable[int]) -> list[str]:
    """xxh3-128 of source and position, as 32 hexadecimal digits: the same in every run over the same input."""
    prefix = source.encode("utf-8", "surrogateescape") + b"\0"
    digest = xxhash.xxh3_128_hexdigest
    return [digest(prefix + b"%d" % position) for position in positions]


def given_ids(source: str, positions: Sequence[int], values: Sequence[object]) -> list[str]:
    """Ids as the input gives them (`str()` of numbers), derived where there is none or it is NaN (as pandas has
    a missing one), a list or an object."""
    numbers = (int, float, BigInteger)
    ids = [
        value if type(value) is str else str(value) if isinstance(value, numbers) and value == value else ""
        for value in values
    ]
    missing = [row for row, value in enumerate(ids) if not value]
    for row, value in zip(missing, derived_ids(source, [positions[row] for row in missing]), strict=True):
        ids[row] = value
    return ids


BATCH_ROWS = 1_000
BATCH_BYTES = 32 << 20
"""A batch ends with the record that brings its text to this many bytes."""

NO_TEXT = frozenset({"missing_text", "empty_text", "blank_line"})
"""Reasons of documents that a reader found no text in."""


def pass_through(config: InputConfig) -> tuple[str, ...]:
    """Columns to copy: those of the config, and `url`, which heuristics and reports look at."""
    return config.columns if "url" in config.columns else (*config.columns, "url")


def require_columns(source: str, names: Sequence[str], config: InputConfig) -> list[str]:
    """The columns that a config wants of a table: text, id, pass-through columns.

    Raises:
        InputError: the table, with columns `names`, lacks one of them.
    """
    wanted = [config.text_key, *([config.id_key] if config.id_key else []), *config.columns]
    if missing := [name for name in dict.fromkeys(wanted) if name not in names]:
        raise InputError(
            f"{source}: no column {', '.join(map(repr, missing))}; the file has {', '.join(names)}. "
            "Set input.text_key, input.id_key and input.columns to columns it has"
        )
    return wanted


def text_reason(text: str | None) -> str | None:
    """Why a document has no text, or None if it has some."""
    if text is None:
        return "missing_text"
    return "empty_text" if not text or text.isspace() else None


def string_column(values: Sequence[object]) -> pa.Array:
    """string[n]: strings as they are, other values as JSON text, so that the type does not depend on the rows;
    null where a value is nested deeper than 254 levels.

    Raises:
        NotJsonError: a value is of a type that JSON has no form for.
    """
    if not set(map(type, values)) <= {str, type(None)}:
        values = [value if value is None or isinstance(value, str) else json_text(value) for value in values]
    return pa.array(values, pa.string())


def batch_of_rows(
    source: str,
    positions: Sequence[int],
    texts: Sequence[str | None],
    reasons: Sequence[str | None],
    ids: Sequence[object],
    columns: dict[str, pa.Array],
) -> Batch:
    """A batch of n documents; `ids` may hold None and values that are no strings."""
    reason = np.empty(len(positions), dtype=object)
    reason[:] = reasons
    return Batch(
        source=source,
        position=np.asarray(positions, dtype=np.int64),
        id=pa.array(given_ids(source, positions, ids), pa.string()),
        text=pa.array([text or "" for text in texts], pa.large_string()),
        reason=reason,
        columns=columns,
    )


def batch_of_records(
    source: str, positions: Sequence[int], records: Sequence[dict[str, Any]], config: InputConfig
) -> Batch:
    """A batch of n records, whose text is a string or None.

    Raises:
        InputError: a pass-through column holds a value that JSON has no form for.
    """
    texts = [record.get(config.text_key) for record in records]
    columns = {}
    for name in pass_through(config):
        try:
            columns[name] = string_column([record.get(name) for record in records])
        except NotJsonError as error:
            raise InputError(f"{source}: column {name!r}: {error}. Remedy: leave it out of input.columns") from error
    ids = [None] * len(records) if config.id_key is None else [record.get(config.id_key) for record in records]
    return batch_of_rows(source, positions, texts, [text_reason(text) for text in texts], ids, columns)


def quarantined_only(source: str, records: Sequence[Quarantined]) -> Batch:
    """A batch without documents."""
    batch = batch_of_rows(source, (), (), (), (), {})
    batch.quarantined = list(records)
    batch.records = len(records)
    return batch


def quarantined(source: str, position: int, cause: str, raw: bytes) -> Quarantined:
    """A quarantined record with at most `FIRST_BYTES` of its raw bytes."""
    return Quarantined(source, position, cause, bytes(raw[:FIRST_BYTES]))


def slices(sizes: Sequence[int]) -> Iterator[slice]:
    """Cut rows into runs of at most `BATCH_ROWS` rows and about `BATCH_BYTES` bytes."""
    start = total = 0
    for row, size in enumerate(sizes):
        total += size
        if total >= BATCH_BYTES or row + 1 - start == BATCH_ROWS:
            yield slice(start, row + 1)
            start, total = row + 1, 0
    if start < len(sizes):
        yield slice(start, len(sizes))
