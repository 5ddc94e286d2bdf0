"""JSON lines (plain, gzip, zstd, bz2, xz): one object per line, each line decoded by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from filters.config.filter import InputConfig
from filters.read.batch import (
    BATCH_BYTES,
    BATCH_ROWS,
    FIRST_BYTES,
    Batch,
    Quarantined,
    batch_of_rows,
    pass_through,
    quarantined,
    string_column,
    text_reason,
)
from filters.read.columns import loads_exactly, may_be_rounded
from filters.read.decompress import DamagedError, MemberStream
from filters.read.unit import Reading, Unit, open_unit

BOM = b"\xef\xbb\xbf"


def read_jsonl(unit: Unit, config: InputConfig, reading: Reading | None = None) -> Iterator[Batch]:
    """Batches of a JSON lines file; positions are line numbers from 1.

    A line is a record, without a byte order mark before it. Blank lines and lines without text are documents with a
    reason; a line that is no JSON object (RFC 8259 in UTF-8: no NaN, no lone surrogate), whose text is no string, or
    that is longer than `max_document_bytes`, is quarantined. Where decompression fails, the lines before are kept and
    all that follows is one quarantined record, because what it holds is unknown.

    Raises:
        InputError: the file cannot be opened, or a remote file stays unreachable.
    """
    with open_unit(unit, config, reading) as file:
        stream = MemberStream(file, unit.address)
        consumed = 0
        for lines in line_groups(stream, config.max_document_bytes):
            batch = _parse(unit.source, lines, config)
            batch.input_bytes = stream.consumed - consumed
            consumed = stream.consumed
            yield batch


@dataclass(slots=True)
class _Lines:
    """Consecutive lines: whole ones, and marks (row, cause, first bytes) in place of those that could not be read."""

    first: int
    lines: list[bytes] = field(default_factory=list)
    bad: list[tuple[int, str, bytes]] = field(default_factory=list)
    size: int = 0
    records: int = 0

    @property
    def full(self) -> bool:
        return self.records >= BATCH_ROWS or self.size >= BATCH_BYTES

    def add(self, line: bytes) -> None:
        self.lines.append(line)
        self.size += len(line)
        self.records += 1

    def reject(self, cause: str, first_bytes: bytes) -> None:
        self.bad.append((self.first + self.records, cause, first_bytes))
        self.lines.append(b"")
        self.records += 1


def line_groups(stream: MemberStream, limit: int) -> Iterator[_Lines]:
    """Lines of a file, in groups of about a batch; a line longer than `limit` bytes is marked instead."""
    group = _Lines(1)
    parts: list[bytes] = []  # of the line that is not complete yet
    size = 0
    too_large = False
    damage: DamagedError | None = None
    while True:
        try:
            data = stream.read()
        except DamagedError as error:
            damage = error
            break
        if not data:
            break
        pieces = data.split(b"\n")
        for index, piece in enumerate(pieces):
            size += len(piece)
            if size > limit and not too_large:
                too_large = True
                parts = [(b"".join(parts) + piece)[:FIRST_BYTES]]
            elif not too_large and piece:
                parts.append(piece)
            if index == len(pieces) - 1:
                break
            if too_large:
                group.reject(f"too_large: a line of more than {limit:,} bytes (input.max_document_bytes)", parts[0])
            else:
                group.add(parts[0] if len(parts) == 1 else b"".join(parts))
            parts, size, too_large = [], 0, False
            if group.full:
                yield group
                group = _Lines(group.first + group.records)
    line = b"".join(parts)
    if damage is not None:
        group.reject(
            f"{damage.cause}: {damage.detail} at byte {damage.offset:,}; how many records follow is unknown",
            line or damage.first_bytes,
        )
    elif too_large:
        group.reject(f"too_large: a line of more than {limit:,} bytes (input.max_document_bytes)", line)
    elif line:
        group.add(line)
    if group.records:
        yield group


def _parse(source: str, group: _Lines, config: InputConfig) -> Batch:
    loads, key = orjson.loads, config.text_key
    positions: list[int] = list(range(group.first, group.first + group.records))
    reasons: list[str | None]
    rejected: list[Quarantined] = []
    whole = not group.bad
    if whole:
        try:
            rows: list[dict[str, Any]] = [loads(line) for line in group.lines]
            texts = [row.get(key) for row in rows]
            reasons = [text_reason(text) for text in texts]
            _read_rounded_again(rows, group.lines, config)
        except (ValueError, AttributeError):  # a line that is no object, or what text_reason makes of no string
            whole = False
        else:
            whole = set(map(type, texts)) <= {str, type(None)}
    if not whole:
        rows, texts, positions, reasons, rejected = _parse_one_by_one(source, group, config)
    id_key = config.id_key
    batch = batch_of_rows(
        source,
        positions,
        texts,
        reasons,
        [None] * len(rows) if id_key is None else [row.get(id_key) for row in rows],
        {name: string_column([row.get(name) for row in rows]) for name in pass_through(config)},
    )
    batch.quarantined = rejected
    batch.records = group.records
    return batch


def _read_rounded_again(rows: list[dict[str, Any]], lines: list[bytes], config: InputConfig) -> None:
    """Replace each row of whose id or pass-through columns orjson may have rounded an integer, in place."""
    names = pass_through(config)
    for name in names if config.id_key is None else (config.id_key, *names):
        values = [row.get(name) for row in rows]
        if not {float, dict, list}.isdisjoint(map(type, values)):
            for place, value in enumerate(values):
                if may_be_rounded(value):
                    with suppress(RecursionError):  # what lies that deep becomes null anyway
                        rows[place] = loads_exactly(lines[place])


def _parse_one_by_one(
    source: str, group: _Lines, config: InputConfig
) -> tuple[list[dict[str, Any]], list[str | None], list[int], list[str | None], list[Quarantined]]:
    bad = {position: (cause, first_bytes) for position, cause, first_bytes in group.bad}
    key = config.text_key
    rows: list[dict[str, Any]] = []
    texts: list[str | None] = []
    positions: list[int] = []
    reasons: list[str | None] = []
    rejected: list[Quarantined] = []
    for position, stored in enumerate(group.lines, group.first):
        if position in bad:
            rejected.append(quarantined(source, position, *bad[position]))
            continue
        line = stored.removeprefix(BOM)
        row: Any = {}
        reason = None
        if not line.strip():
            reason = "blank_line"
        else:
            try:
                row = orjson.loads(line)
            except ValueError as error:
                rejected.append(quarantined(source, position, _cause(line, error), line))
                continue
            if not isinstance(row, dict):
                cause = f"not_an_object: the line is a JSON {type(row).__name__}"
                rejected.append(quarantined(source, position, cause, line))
                continue
        text = row.get(key)
        if text is not None and not isinstance(text, str):
            cause = f"text_not_a_string: {key!r} is a JSON {type(text).__name__}"
            rejected.append(quarantined(source, position, cause, line))
            continue
        again = [row]
        _read_rounded_again(again, [line], config)
        rows += again
        texts.append(text)
        positions.append(position)
        reasons.append(reason or text_reason(text))
    return rows, texts, positions, reasons, rejected


def _cause(line: bytes, error: ValueError) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as invalid:
        return f"invalid_utf8: byte 0x{line[invalid.start]:02x} at {invalid.start}"
    return f"bad_json: {error}"
