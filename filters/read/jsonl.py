"""JSON lines (plain, gzip, zstd, bz2, xz): one object per line, each line decoded by itself."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import orjson

from filters.config.filter import InputConfig
from filters.errors import InputError
from filters.read.batch import (
    BATCH_BYTES,
    BATCH_ROWS,
    FIRST_BYTES,
    Batch,
    Quarantined,
    batch_of_records,
    pass_through,
    quarantined,
)
from filters.read.columns import loads_exactly, may_be_rounded
from filters.read.decompress import READ_SIZE, DamagedError, MemberStream
from filters.read.unit import BYTES_PER_UNIT, Reading, Unit, open_input, open_unit
from filters.storage.remote import is_local

BOM = b"\xef\xbb\xbf"
SPLIT_FILES = 256
"""A file with less than this part of the input's bytes is not split: files are many enough, and need not be counted."""
_COUNTED = 1 << 20
"""Bytes whose lines are counted at once: they stay in the processor's cache."""
_LOOKED_AT = 3
"""Files of an input whose first lines are looked at for their keys."""
_KEYS = 20


class _Range:
    """The bytes of a unit that is a range of a plain file's lines."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        file.seek(offset)
        self._file, self._size, self.consumed, self.produced = file, size, 0, 0

    def read(self) -> bytes:
        data = self._file.read(min(READ_SIZE, self._size - self.consumed))
        self.consumed += len(data)
        self.produced = self.consumed
        return data


def line_stream(file: BinaryIO, unit: Unit) -> MemberStream | _Range:
    """The bytes of a unit's lines, decompressed."""
    if unit.offset is None:
        return MemberStream(file, unit.address)
    return _Range(file, unit.offset, unit.size or 0)


def units_of_lines(file: Unit, config: InputConfig, total: int) -> list[Unit]:
    """The units of a file; one where it is not split: it is small, remote, or compressed.

    Lines are numbered from 1, so a unit knows the numbers of its lines only if those before it were counted: a file
    that is split is read once.

    Args:
        file: of lines.
        config: of its input.
        total: bytes of the whole input.

    Raises:
        InputError: the file cannot be opened.
    """
    if not is_local(file.address) or (file.size or 0) <= max(BYTES_PER_UNIT, total // SPLIT_FILES):
        return [file]
    units: list[Unit] = []
    with open_input(file.address, config) as stored:
        if MemberStream(stored, file.address).compression != "none":
            return [file]
        stored.seek(0)
        begin = at = 0  # of the unit, of the data
        first = line = 1  # of the unit, at the data
        ended = True
        while data := stored.read(_COUNTED):
            done = 0
            while (cut := data.find(b"\n", max(begin + BYTES_PER_UNIT - 1 - at, done)) + 1) > 0:
                line += data.count(b"\n", done, cut)
                units.append(replace(file, start=first, stop=line, offset=begin, size=at + cut - begin))
                first, begin, done = line, at + cut, cut
            line += data.count(b"\n", done)
            at += len(data)
            ended = data.endswith(b"\n")
    if at > begin:
        units.append(replace(file, start=first, stop=line + (not ended), offset=begin, size=at - begin))
    return units or [file]


def read_jsonl(unit: Unit, config: InputConfig, reading: Reading | None = None) -> Iterator[Batch]:
    """Batches of a JSON lines file, or of a range of its lines; positions are line numbers from 1.

    A line is a record, without a byte order mark before it. Blank lines and lines without text are documents with a
    reason; a line that is no JSON object (RFC 8259 in UTF-8: no NaN, no lone surrogate), whose text is no string, or
    that is longer than `max_document_bytes`, is quarantined. Where decompression fails, the lines before are kept and
    all that follows is one quarantined record, because what it holds is unknown.

    Raises:
        InputError: the file cannot be opened, or a remote file stays unreachable.
    """
    with open_unit(unit, config, reading) as file:
        stream = line_stream(file, unit)
        consumed = 0
        for lines in line_groups(stream, config.max_document_bytes, unit.start or 1):
            batch = _parse(unit.source, lines, config)
            batch.input_bytes = stream.consumed - consumed
            consumed = stream.consumed
            yield batch


@dataclass(slots=True)
class _Lines:
    """Consecutive lines: whole ones, and b"" in place of those in `bad` (row -> cause, first bytes)."""

    first: int
    lines: list[bytes] = field(default_factory=list)
    bad: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    size: int = 0

    def add(self, line: bytes) -> None:
        self.lines.append(line)
        self.size += len(line)

    def reject(self, cause: str, first_bytes: bytes) -> None:
        self.bad[len(self.lines)] = cause, first_bytes
        self.lines.append(b"")


def line_groups(stream: MemberStream | _Range, limit: int, first: int = 1) -> Iterator[_Lines]:
    """Lines of a file, in groups of about a batch; a line longer than `limit` bytes is marked instead.

    Args:
        stream: of the lines.
        limit: bytes of a line.
        first: number of the first line.
    """
    group = _Lines(first)
    parts: list[bytes] = []  # of the line that is not complete yet; the first bytes of one that is too large
    size = 0

    def end_line() -> None:
        nonlocal parts, size
        if size > limit:
            group.reject(f"too_large: a line of more than {limit:,} bytes (input.max_document_bytes)", parts[0])
        else:
            group.add(parts[0] if len(parts) == 1 else b"".join(parts))
        parts, size = [], 0

    try:
        while data := stream.read():
            pieces = data.split(b"\n")
            for number, piece in enumerate(pieces, 1):
                if size <= limit and piece:
                    size += len(piece)
                    parts.append(piece)
                    if size > limit:
                        parts = [b"".join(parts)[:FIRST_BYTES]]
                if number == len(pieces):
                    break
                end_line()
                if len(group.lines) >= BATCH_ROWS or group.size >= BATCH_BYTES:
                    yield group
                    group = _Lines(group.first + len(group.lines))
        if parts:
            end_line()
    except DamagedError as damage:
        group.reject(
            f"{damage.cause}: {damage.detail} at byte {damage.offset:,}; how many records follow is unknown",
            b"".join(parts) or damage.first_bytes,
        )
    if group.lines:
        yield group


def _parse(source: str, group: _Lines, config: InputConfig) -> Batch:
    key, lines = config.text_key, group.lines
    positions: Sequence[int] = range(group.first, group.first + len(lines))
    rejected: list[Quarantined] = []
    try:  # all lines at once, as almost always can be done
        rows: list[dict[str, Any]] = [] if group.bad else [orjson.loads(line) for line in lines]
        whole = not group.bad and {type(row.get(key)) for row in rows} <= {str, type(None)}
    except (ValueError, AttributeError):  # a line that is no JSON, or no object
        whole = False
    if not whole:
        rows, kept = [], []
        for position, stored in zip(positions, lines, strict=True):
            line = stored.removeprefix(BOM)
            found = group.bad.get(position - group.first) or _object(line, key)
            if isinstance(found, dict):
                rows.append(found)
                kept.append((position, line))
            else:
                rejected.append(quarantined(source, position, *found))
        positions, lines = [position for position, _ in kept], [line for _, line in kept]
    _read_rounded_again(rows, lines, [name for name in (config.id_key, *pass_through(config)) if name is not None])
    batch = batch_of_records(source, positions, rows, config)
    if not whole:
        batch.reason[[not line.strip() for line in lines]] = "blank_line"
    batch.quarantined = rejected
    batch.records = len(group.lines)
    return batch


def _object(line: bytes, key: str) -> dict[str, Any] | tuple[str, bytes]:
    """The object of a line ({} of a blank one), or why it is no record and its bytes."""
    if not line.strip():
        return {}
    try:
        row = orjson.loads(line)
    except ValueError as error:
        try:
            line.decode()
        except UnicodeDecodeError as invalid:
            return f"invalid_utf8: byte 0x{line[invalid.start]:02x} at {invalid.start}", line
        return f"bad_json: {error}", line
    if not isinstance(row, dict):
        return f"not_an_object: the line is a JSON {type(row).__name__}", line
    text = row.get(key)
    if not isinstance(text, str | None):
        return f"text_not_a_string: {key!r} is a JSON {type(text).__name__}", line
    return row


def _read_rounded_again(rows: list[dict[str, Any]], lines: Sequence[bytes], names: Sequence[str]) -> None:
    """Replace each row in one of whose columns `names` orjson may have rounded an integer, in place."""
    for name in names:
        values = [row.get(name) for row in rows]
        if not {float, dict, list}.isdisjoint(map(type, values)):
            for place, value in enumerate(values):
                if may_be_rounded(value):
                    with suppress(RecursionError):  # what lies that deep becomes null anyway
                        rows[place] = loads_exactly(lines[place])


def keys_seen(unit: Unit, config: InputConfig) -> tuple[Counter[str], bool]:
    """Keys of the objects in the first lines of a file, with how many have each; and whether it has no more lines."""
    keys: Counter[str] = Counter()
    with open_input(unit.address, config) as file:
        groups = line_groups(MemberStream(file, unit.address), config.max_document_bytes)
        for line in next(groups, _Lines(1)).lines:
            with suppress(ValueError):
                row = orjson.loads(line)
                keys.update([*row] if isinstance(row, dict) else ())
        return keys, next(groups, None) is None


def check_keys(units: Sequence[Unit], inputs: Sequence[InputConfig], notice: Callable[[str], None]) -> None:
    """See that each JSON lines input has the keys `id_key` and `columns` in some of its first records.

    Args:
        units: of all inputs.
        inputs: their configs.
        notice: told of keys that the first records of the first files lack.

    Raises:
        InputError: these are all records that there are.
    """
    for place, config in enumerate(inputs):
        files = [unit for unit in units if unit.input == place and unit.kind == "jsonl" and unit.is_first]
        # Every document has a `url`, null where its record has none.
        wanted = [name for name in (config.id_key, *config.columns) if name not in (None, "url")]
        keys: Counter[str] = Counter()
        everything = len(files) <= _LOOKED_AT
        for unit in files[:_LOOKED_AT] if wanted else ():
            found, whole = keys_seen(unit, config)
            keys += found
            everything = everything and whole
            if keys.keys() >= set(wanted):
                break
        for name in wanted if keys else ():
            if name in keys:
                continue
            close = difflib.get_close_matches(name, keys, 1)
            message = (
                f"{files[0].source}: {'no record' if everything else 'none of the first records'} of this input has "
                f"the key {name!r}{f'; did you mean {close[0]!r}?' if close else ''} (input.id_key, input.columns); "
                f"they have {listed_keys(keys)}"
            )
            if everything:
                raise InputError(f"{message}. Remedy: set input.id_key and input.columns to keys of the records")
            notice(message)


def listed_keys(keys: Counter[str]) -> str:
    """The most common keys, quoted."""
    names = [repr(key[:60]) for key, _ in keys.most_common(_KEYS)]
    return ", ".join(names) + (f" and {len(keys) - _KEYS:,} more" if len(keys) > _KEYS else "")
