"""WARC responses and WET conversions (ISO 28500; gzip or zstd per record, gzip as a whole, or plain).

The records are delimited here and not by an existing reader because those lose records silently: FastWARC hands out a
record cut short by the end of the file as if it were whole, and cannot go on after a damaged one.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from filters.config.filter import InputConfig
from filters.errors import InputError
from filters.read.batch import BATCH_BYTES, BATCH_ROWS, Batch, Quarantined, batch_of_rows, quarantined, text_reason
from filters.read.decompress import DamagedError, MemberStream
from filters.read.http import Response, header_lines, parse_response
from filters.read.unit import ARC_REFUSED, Reading, Unit, open_unit

MAX_HEADER_BYTES = 256 << 10
MAGIC = b"WARC/"
_ARC = b"filedesc://"
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_RECORD_START = re.compile(rb"(?<=\n)WARC/[01]\.")
_DOCUMENT_TYPE = {"warc": "response", "wet": "conversion"}


@dataclass(frozen=True, slots=True)
class WarcRecord:
    """A whole record.

    Attributes:
        position: byte of the stored file where its compressed member begins, plus the decompressed bytes before it in
            that member (none where each record has its own).
        headers: WARC headers by lower-case name; the first one of a name counts.
        block: its content.
    """

    position: int
    headers: dict[str, str]
    block: bytes


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A stretch of the file that is no whole record."""

    position: int
    cause: str
    first_bytes: bytes


def read_warc(unit: Unit, config: InputConfig, reading: Reading | None = None) -> Iterator[Batch]:
    """Batches of HTML responses (kind warc: payloads in `html`, to be extracted) or of conversions (kind wet: text).

    Columns `url` and `date` are WARC-Target-URI and WARC-Date, the id is WARC-Record-ID. Other types of record are
    counted in `skipped`.

    Raises:
        InputError: the file cannot be opened, is an ARC, or a remote file stays unreachable.
    """
    with open_unit(unit, config, reading) as file:
        stream = MemberStream(file, unit.address)
        records = RecordStream(stream, _DOCUMENT_TYPE[unit.kind], config.max_document_bytes)
        rows = _Rows()
        consumed = delimited = skipped = 0
        for record in itertools.chain(records, (None,)):
            if record is not None:
                rows.add(record, unit, config)
            if rows.full or (record is None and (rows.rows or rows.bad or records.skipped > skipped)):
                batch = rows.batch(unit, config)
                batch.records, delimited = records.delimited - delimited, records.delimited
                batch.skipped, skipped = records.skipped - skipped, records.skipped
                batch.input_bytes, consumed = stream.consumed - consumed, stream.consumed
                rows = _Rows()
                yield batch


class RecordStream:
    """Iterates over the records of one type, and over what cannot be read, in file order.

    Raises:
        InputError: while iterating, if the file is an ARC.

    Attributes:
        delimited: records of that type and unreadable stretches so far.
        skipped: whole records of other types so far.
    """

    def __init__(self, stream: MemberStream, record_type: str, max_bytes: int) -> None:
        self.delimited = 0
        self.skipped = 0
        self._stream = stream
        self._type = record_type
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._at = 0  # decompressed bytes before the buffer
        self._members: deque[tuple[int, int]] = deque()  # (decompressed, stored) offset where a member begins
        self._ended = False

    def __iter__(self) -> Iterator[WarcRecord | BadRecord]:
        while True:
            position, first_bytes = self._position(), b""
            try:
                if not self._skip_newlines():
                    return
                position, first_bytes = self._position(), bytes(self._buffer[:256])
                found = self._next(position)
            except DamagedError as damage:
                found = BadRecord(
                    position if first_bytes else self._stream.member_offset,
                    f"{damage.cause}: {damage.detail} at byte {damage.offset:,}",
                    first_bytes or damage.first_bytes,
                )
                self._drop(len(self._buffer))
                if not self._stream.recover(MAGIC):
                    self._ended = True
                    found = BadRecord(
                        found.position, f"{found.cause}; how many records follow is unknown", found.first_bytes
                    )
            if found is None:
                self.skipped += 1
            else:
                self.delimited += 1
                yield found

    def _next(self, position: int) -> WarcRecord | BadRecord | None:
        """The record at the start of the buffer; None for one of another type."""
        start = bytes(self._buffer[:256])
        header = self._header()
        if isinstance(header, str):
            self._resynchronise()
            return BadRecord(position, header, start)
        headers, begin = header
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or len(length) > 18:
            self._resynchronise()
            return BadRecord(position, f"corrupt: Content-Length is {length!r:.40}", start)
        wanted = headers.get("warc-type", "").lower() == self._type
        size = int(length)
        if not wanted or size > self._max_bytes:
            self._drop(begin)
            cause = self._pass_over(size)
            if cause is None and wanted:
                cause = f"too_large: record of {size:,} bytes (input.max_document_bytes)"
            return None if cause is None else BadRecord(position, cause, start)
        end = begin + size
        while len(self._buffer) < end:
            if self._member_inside(end) is not None or not self._fill():
                break
        cut = self._member_inside(end)
        if cut is not None:
            self._drop(cut)
            return BadRecord(
                position, f"corrupt: its compressed member ends before its Content-Length of {size:,} bytes", start
            )
        if len(self._buffer) < end:
            cause = f"truncated: the file ends inside a record of {size:,} bytes"
            self._resynchronise()
            return BadRecord(position, cause, start)
        # The checksum of the record's own compressed member comes after its block: read up to it.
        while len(self._buffer) < end + len("\r\n\r\n") + 1 and (data := self._stream.rest_of_member()):
            self._buffer += data
        block = bytes(self._buffer[begin:end])
        self._drop(end)
        # Only gzip and bz2 always carry checksums of their own.
        unchecked = self._stream.compression in ("none", "zstd")
        if unchecked and not _digest_agrees(headers.get("warc-block-digest", ""), block):
            return BadRecord(position, "corrupt: the content does not match WARC-Block-Digest", start)
        return WarcRecord(position, headers, block)

    def _header(self) -> tuple[dict[str, str], int] | str:
        """Headers and where the block begins in the buffer, or why there is no record here."""
        searched = 0
        while True:
            if not MAGIC.startswith(self._buffer[: len(MAGIC)]) and not self._buffer.startswith(MAGIC):
                if self._at == 0 and self._buffer.startswith(_ARC):
                    raise InputError(f"{self._stream.name}: {ARC_REFUSED}")
                return "corrupt: no WARC record begins here"
            match = _HEADER_END.search(self._buffer, searched)
            if match is not None:
                return parse_headers(bytes(self._buffer[: match.start()])), match.end()
            searched = max(0, len(self._buffer) - 3)
            if len(self._buffer) > MAX_HEADER_BYTES:
                return f"corrupt: record header of more than {MAX_HEADER_BYTES:,} bytes"
            if not self._fill():
                return "truncated: the file ends inside a record header"

    def _pass_over(self, size: int) -> str | None:
        """Drop a block of `size` bytes; what is wrong with it, if anything."""
        while size:
            cut = self._member_inside(size)
            if cut is not None:
                self._drop(cut)
                return "corrupt: its compressed member ends before its Content-Length"
            step = min(size, len(self._buffer))
            self._drop(step)
            size -= step
            if size and not self._fill():
                return "truncated: the file ends inside a record"
        return None

    def _resynchronise(self) -> None:
        """Drop what is at the start of the buffer up to the next thing that looks like a record."""
        drop = 1
        while True:
            match = _RECORD_START.search(self._buffer, drop)
            cut = self._member_inside(len(self._buffer), drop)
            found = [offset for offset in (match.start() if match else None, cut) if offset is not None]
            if found:
                self._drop(min(found))
                return
            drop = max(drop, len(self._buffer) - 16)
            if len(self._buffer) > 1 << 20:
                self._drop(drop)
                drop = 0
            if not self._fill():
                self._drop(len(self._buffer))
                return

    def _member_inside(self, end: int, begin: int = 1) -> int | None:
        """Place in buffer[begin:end] where a compressed member begins with a record, or None."""
        for at, _ in self._members:
            offset = at - self._at
            if begin <= offset < end and self._buffer.startswith(MAGIC, offset):
                return offset
        return None

    def _skip_newlines(self) -> bool:
        while True:
            content = self._buffer.lstrip(b"\r\n")
            if content:
                self._drop(len(self._buffer) - len(content))
                return True
            self._drop(len(self._buffer))
            if not self._fill():
                return False

    def _fill(self) -> bool:
        data = b"" if self._ended else self._stream.read()
        if not data:
            self._ended = True
            return False
        if not self._members or self._members[-1][1] != self._stream.member_offset:
            self._members.append((self._at + len(self._buffer), self._stream.member_offset))
        self._buffer += data
        return True

    def _drop(self, size: int) -> None:
        del self._buffer[:size]
        self._at += size
        while len(self._members) > 1 and self._members[1][0] <= self._at:
            self._members.popleft()

    def _position(self) -> int:
        if not self._members:
            return 0
        at, stored = self._members[0]
        return stored + self._at - at


def parse_headers(data: bytes) -> dict[str, str]:
    """Header lines after the first line, by lower-case name; the first one of a name counts."""
    headers: dict[str, str] = {}
    for name, value in header_lines(data.decode("utf-8", "replace")):
        headers.setdefault(name, value)
    return headers


def _digest_agrees(digest: str, block: bytes) -> bool:
    """False if `digest` ("sha1:" and Base32 or hexadecimal) is another one than the block's; others are not judged."""
    algorithm, _, value = digest.partition(":")
    if algorithm.lower() != "sha1" or len(value) not in (32, 40):
        return True
    found = hashlib.sha1(block, usedforsecurity=False)
    encoded = base64.b32encode(found.digest()).decode() if len(value) == 32 else found.hexdigest()
    return value.upper() == encoded.upper()


@dataclass(slots=True)
class _Rows:
    """Documents of the batch under construction: (position, WARC headers, text, reason, payload, its type)."""

    rows: list[tuple[int, dict[str, str], str, str | None, bytes, str]] = field(default_factory=list)
    bad: list[Quarantined] = field(default_factory=list)
    size: int = 0

    @property
    def full(self) -> bool:
        return len(self.rows) + len(self.bad) >= BATCH_ROWS or self.size >= BATCH_BYTES

    def add(self, record: WarcRecord | BadRecord, unit: Unit, config: InputConfig) -> None:
        if isinstance(record, BadRecord):
            self.bad.append(quarantined(unit.source, record.position, record.cause, record.first_bytes))
            return
        response, text = Response(), ""
        if unit.kind == "wet":
            try:
                text = record.block.decode()
                response = Response(reason=text_reason(text))
            except UnicodeDecodeError as error:
                byte = record.block[error.start]
                response = Response(cause=f"invalid_utf8: byte 0x{byte:02x} at {error.start}")
        else:
            response = parse_response(record.headers, record.block, config.max_document_bytes)
        if response.cause is not None:
            self.bad.append(quarantined(unit.source, record.position, response.cause, record.block))
            return
        row = record.position, record.headers, text, response.reason, response.payload, response.content_type
        self.rows.append(row)
        self.size += len(record.block) + len(response.payload)

    def batch(self, unit: Unit, config: InputConfig) -> Batch:
        positions, headers, texts, reasons, payloads, types = zip(*self.rows, strict=True) if self.rows else ((),) * 6
        ids = [of.get("warc-record-id", "").strip("<> ").removeprefix("urn:uuid:") or None for of in headers]
        columns = {
            "url": [of.get("warc-target-uri", "").strip("<> ") or None for of in headers],
            "date": [of.get("warc-date") for of in headers],
        }
        columns |= {name: [of.get(name.lower()) for of in headers] for name in config.columns if name not in columns}
        arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
        batch = batch_of_rows(unit.source, positions, texts, reasons, ids, arrays)
        if unit.kind != "wet":
            batch.html = pa.array(payloads, pa.large_binary())
            batch.content_type = pa.array(types, pa.string())
        batch.quarantined = self.bad
        return batch
