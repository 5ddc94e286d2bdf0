"""Batches from rows: the part that JSON lines, data-set streams and installed documentation have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from filters.config.filter import InputConfig
from filters.read.batch import FIRST_BYTES, Batch, Quarantined
from filters.read.ids import given_ids
from filters.read.json_values import json_text

BATCH_ROWS = 1_000
BATCH_BYTES = 32 << 20
"""A batch ends with the record that brings its text to this many bytes."""

NO_TEXT = frozenset({"missing_text", "empty_text", "blank_line"})
"""Reasons of documents that a reader found no text in."""


def pass_through(config: InputConfig) -> tuple[str, ...]:
    """Columns to copy: those of the config, and `url`, which heuristics and reports look at."""
    return config.columns if "url" in config.columns else (*config.columns, "url")


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
