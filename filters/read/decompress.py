"""Stored bytes to decompressed bytes: member by member, bounded in memory, whole up to the byte where damage begins."""

from __future__ import annotations

import bz2
import contextlib
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal

import zstandard

Compression = Literal["none", "gzip", "bz2", "zstd", "xz"]

READ_SIZE = 1 << 18
"""Bytes read from the file at once."""
GZIP_PIECE = 1 << 15
"""Compressed bytes given to zlib at once."""
GZIP_OUTPUT = 4 << 20
"""Decompressed bytes taken from zlib at once: a piece can become a thousand times its size."""
BZ2_PIECE = 256
"""Compressed bytes given to bz2 at once: an error loses what the same call had decompressed before it."""
BZ2_OUTPUT = 1 << 20
XZ_MEMORY = 256 << 20
"""Bytes that decompressing xz may take: four times what its highest level asks for."""
HISTORY = 4 << 20
"""Stored bytes of the current member kept to search for the next one when it is damaged."""
ZSTD_WINDOW = 1 << 31
"""Largest window accepted (zstd --long=31, as published dumps use it); a frame that asks for more is corrupt."""
ZSTD_DICTIONARY = 64 << 20
"""Largest dictionary taken from a file; those of ArchiveTeam are about 1 MB."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_DICTIONARY_MAGIC = b"\x37\xa4\x30\xec"

_MAGIC: dict[Compression, re.Pattern[bytes]] = {
    "gzip": re.compile(rb"\x1f\x8b\x08[\x00-\x1f]"),
    "bz2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
}
_MAGIC_BYTES = 10
_SUFFIXES: dict[str, Compression] = {
    ".gz": "gzip", ".bgz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".zstd": "zstd", ".xz": "xz"
}  # fmt: skip


Damage = Literal["truncated", "corrupt", "missing_dictionary"]


class DamagedError(Exception):
    """The stored bytes cannot be decompressed further.

    Attributes:
        cause: "truncated" when the file ends inside a member, "missing_dictionary" when the member was compressed with
            a zstd dictionary that the file does not hold, else "corrupt".
        offset: byte of the stored file where decompression stopped.
        detail: what the decompressor said.
        first_bytes: the stored bytes at the start of the damaged member, where they are still known.
    """

    def __init__(self, cause: Damage, offset: int, detail: str, first_bytes: bytes) -> None:
        super().__init__(f"{cause}: {detail} at byte {offset}")
        self.cause = cause
        self.offset = offset
        self.detail = detail
        self.first_bytes = first_bytes


class MemberStream:
    """Decompressed bytes of a file, which may consist of several compressed members (one per record in a WARC).

    Attributes:
        name: the file's, for messages.
        compression: found by magic bytes; the name's suffix only tells a damaged header from an uncompressed file.
        member_offset: byte of the stored file where the member of the last `read` begins.
        consumed: stored bytes decompressed so far.
        produced: decompressed bytes so far.
        zstd, dictionary: the decompressor of zstd frames, and the id of the dictionary that the file gave it (0: none).
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._file = file
        self._raw = b""
        self._raw_at = 0
        self._cursor = 0
        self._ended = False
        self._member: Iterator[bytes] | None = None
        self._history = bytearray()
        self._history_at = 0
        self.zstd = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        self.dictionary = 0
        self.member_offset = self.produced = 0
        self.compression: Compression = self._detect(name)

    @property
    def consumed(self) -> int:
        """Number of stored bytes that have been read."""
        return self._raw_at + self._cursor

    def read(self) -> bytes:
        """The next piece (b"" at the end); a piece never spans two members.

        Raises:
            DamagedError: after everything before the damage has been returned.
        """
        if self.compression == "none":
            self._require(1)
            data = self._take(READ_SIZE)
            self.produced += len(data)
            return data
        while self._member is not None or self._next_member():
            if data := self.rest_of_member():
                return data
        return b""

    def rest_of_member(self) -> bytes:
        """The next piece of the current member; b"" once it has ended whole, its checksum verified.

        Raises:
            DamagedError: as `read`.
        """
        data = next(filter(None, self._member or ()), b"")
        if not data:
            self._member = None
        self.produced += len(data)
        return data

    def recover(self, content: bytes = b"") -> bool:
        """After damage: go to the next member after the start of the damaged one; False if there is none.

        Args:
            content: what a member's decompressed bytes must start with (looked at in gzip members), so that bytes
                that look like a header by accident are passed over.
        """
        if self.compression == "none":
            return False
        self._member = None
        self._raw = bytes(self._history) + self._raw[self._cursor :]
        self._raw_at, self._cursor = self._history_at, 0
        self._history.clear()
        if self._raw_at == self.member_offset:
            self._cursor = 1
        magic = _MAGIC[self.compression]
        while True:
            match = magic.search(self._raw, self._cursor)
            if match is None:
                self._cursor = max(self._cursor, len(self._raw) - _MAGIC_BYTES)
                if not self._require(_MAGIC_BYTES + 1):
                    self._cursor = len(self._raw)
                    return False
                continue
            self._cursor = match.start()
            self._require(2048)
            if self.compression != "gzip" or self._starts_with(content):
                return True
            self._cursor += 1

    def _starts_with(self, content: bytes) -> bool:
        try:
            start = zlib.decompressobj(31).decompress(self._raw[self._cursor : self._cursor + 2048], len(content))
        except zlib.error:
            return False
        return start.startswith(content)

    def _detect(self, name: str) -> Compression:
        self._require(_MAGIC_BYTES)
        for compression, magic in _MAGIC.items():
            if magic.match(self._raw):
                return compression
        for suffix, compression in _SUFFIXES.items():
            # A text that was decompressed on its way keeps its old name; anything else has a damaged header.
            if name.lower().endswith(suffix) and re.search(rb"[\x00-\x08\x0e-\x1f]", self._raw[:512]):
                return compression
        return "none"

    def _next_member(self) -> bool:
        while self._require(1) and self.compression in ("gzip", "xz") and self._raw[self._cursor] == 0:
            self._take(1)  # zero padding between members, as tar writes it, and xz in fours
        self._history.clear()
        self._history_at = self.member_offset = self.consumed
        if not self._require(1):
            return False
        self._require(18)
        if not _MAGIC[self.compression].match(self._raw, self._cursor):
            raise self.damaged("corrupt", f"no {self.compression} member starts here")
        self._member = _DECODERS[self.compression](self)
        return True

    def _require(self, size: int) -> bool:
        """Have `size` bytes after the cursor; False if the file ends before."""
        while len(self._raw) - self._cursor < size and not self._ended:
            data = self._file.read(READ_SIZE)
            if not data:
                self._ended = True
                break
            self._raw_at += self._cursor
            self._raw = self._raw[self._cursor :] + data
            self._cursor = 0
        return len(self._raw) - self._cursor >= size

    def _take(self, size: int) -> bytes:
        data = self._raw[self._cursor : self._cursor + size]
        self._cursor += len(data)
        return data

    # What decoders use of the stream.

    def take(self, size: int) -> bytes:
        """At most `size` stored bytes (at least one) of the current member.

        Raises:
            DamagedError: the file ends here.
        """
        if not self._require(1):
            raise self.damaged("truncated", "the file ends inside a compressed member")
        data = self._take(size)
        self._history += data
        if len(self._history) > 2 * HISTORY:
            drop = len(self._history) - HISTORY
            del self._history[:drop]
            self._history_at += drop
        return data

    def take_exactly(self, size: int) -> bytes:
        """The next `size` stored bytes."""
        parts = []
        while size:
            parts.append(self.take(size))
            size -= len(parts[-1])
        return b"".join(parts)

    def peek(self, size: int) -> bytes:
        """At most `size` stored bytes, which the next read returns again."""
        self._require(size)
        return self._raw[self._cursor : self._cursor + size]

    def put_back(self, size: int) -> None:
        """Return the last `size` bytes of the last `take`."""
        if size:
            self._cursor -= size
            del self._history[-size:]

    def damaged(self, cause: Damage, detail: str) -> DamagedError:
        """The error of a member that is damaged at the byte reached."""
        first = bytes(self._history[:256]) if self._history_at == self.member_offset else b""
        return DamagedError(cause, self.consumed, detail, first or self.peek(256))


def _gzip(stream: MemberStream) -> Iterator[bytes]:
    inner = zlib.decompressobj(31)
    ended = False
    while not ended:
        piece = inner.unconsumed_tail or stream.take(GZIP_PIECE)
        before = inner.copy()
        try:
            data = inner.decompress(piece, GZIP_OUTPUT)
        except zlib.error:  # the call returned nothing of what the piece holds before the damage
            yield from _salvaged(before, piece, stream)
            return
        ended = inner.eof
        if ended:
            stream.put_back(len(inner.unused_data))
        yield data


def _salvaged(inner: zlib._Decompress, piece: bytes, stream: MemberStream) -> Iterator[bytes]:
    parts = []
    for index in range(len(piece)):
        try:
            parts.append(inner.decompress(piece[index : index + 1]))
        except zlib.error as error:
            stream.put_back(len(piece) - index)
            damage = stream.damaged("corrupt", str(error).partition(": ")[2] or str(error))
            yield b"".join(parts)
            raise damage from error


def _blocks(inner: bz2.BZ2Decompressor | lzma.LZMADecompressor, stream: MemberStream) -> Iterator[bytes]:
    ended = False
    while not ended:
        piece = stream.take(BZ2_PIECE) if inner.needs_input else b""
        try:
            data = inner.decompress(piece, BZ2_OUTPUT)
        except (OSError, ValueError, lzma.LZMAError) as error:
            raise stream.damaged("corrupt", str(error)) from error
        ended = inner.eof
        if ended:
            stream.put_back(len(inner.unused_data))
        yield data


def _zstd(stream: MemberStream) -> Iterator[bytes]:
    """Feeds zstd block by block (RFC 8878, 3.1.1.2): a block is at most 128 KiB, and all before a bad one is whole."""
    start = stream.peek(18)
    if start[1:4] == b"\x2a\x4d\x18":
        _pass_over(stream, start)
        return
    try:
        frame = zstandard.get_frame_parameters(start)
        size = zstandard.frame_header_size(start)
    except zstandard.ZstdError as error:
        cut = len(start) < 18 and "memory" not in str(error)  # which a window beyond any limit is refused for
        raise stream.damaged("truncated" if cut else "corrupt", str(error)) from error
    if frame.dict_id not in (0, stream.dictionary):
        raise stream.damaged(
            "missing_dictionary",
            f"compressed with the zstd dictionary {frame.dict_id}, which this file does not hold whole. Remedy: "
            "decompress it with `zstd -D`, or put that dictionary into a skippable frame (0x184D2A5D) at the start of "
            "the file",
        )
    inner = stream.zstd.decompressobj()

    def feed(data: bytes) -> bytes:
        try:
            return bytes(inner.decompress(data))
        except zstandard.ZstdError as error:
            raise stream.damaged("corrupt", str(error).rpartition(": ")[2]) from error

    yield feed(stream.take_exactly(size))
    last = 0
    while not last:
        header = stream.take_exactly(3)
        value = int.from_bytes(header, "little")
        last, kind, size = value & 1, (value >> 1) & 3, value >> 3
        if kind == 3 or size > 1 << 17:
            raise stream.damaged("corrupt", "not a zstd block")
        yield feed(header + stream.take_exactly(1 if kind == 1 else size))
    if frame.has_checksum:
        yield feed(stream.take_exactly(4))


def _pass_over(stream: MemberStream, start: bytes) -> None:
    """A skippable frame, which may hold the dictionary of the frames after it, itself compressed or not (the draft
    of .warc.zst, iipc/warc-specifications#69)."""
    stream.take_exactly(8)
    size = int.from_bytes(start[4:8], "little")
    magic = start[8:12]
    if start[0] == 0x5D and magic in (_ZSTD_MAGIC, _DICTIONARY_MAGIC) and size <= ZSTD_DICTIONARY:
        content = stream.take_exactly(size)
        with contextlib.suppress(zstandard.ZstdError):  # damaged: each frame that needs it says so
            if magic == _ZSTD_MAGIC:
                inner = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
                content = inner.stream_reader(content).read(ZSTD_DICTIONARY)
            found = zstandard.ZstdCompressionDict(content, dict_type=zstandard.DICT_TYPE_FULLDICT)
            decompressor = zstandard.ZstdDecompressor(dict_data=found, max_window_size=ZSTD_WINDOW)
            decompressor.decompressobj()  # which loads the dictionary
            stream.zstd, stream.dictionary = decompressor, found.dict_id()
        return
    while size:
        size -= len(stream.take(min(size, READ_SIZE)))


_DECODERS: dict[Compression, Callable[[MemberStream], Iterator[bytes]]] = {
    "gzip": _gzip,
    "bz2": lambda stream: _blocks(bz2.BZ2Decompressor(), stream),
    "xz": lambda stream: _blocks(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY), stream),
    "zstd": _zstd,
}
"""The decompressed pieces of the member that begins here, by compression."""
