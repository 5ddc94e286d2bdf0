"""The files of an input, the units of work that they are cut into, and how a unit opens its file.

A local file is the same from the plan of a run to its end, or the run ends; its bytes are hashed as it is read. Whether
it is the same is told by its stamp: size, and the times of its last change of content (mtime) and of anything (ctime,
which the kernel sets and no program can set back). All that a unit gives on was read while the file had the stamp that
it had when the run was planned. The digest of a file that is read from its beginning to its end is of the bytes that
passed; that of a file that is read in parts is taken by its first unit, after its records, from the same open file and
under the same stamp. A change within one tick of the file system's clock (4 ms at most on Linux) after the one before
it can be missed by a stamp, but not by a digest.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

import xxhash

from filters.config.filter import InputConfig
from filters.errors import InputError
from filters.storage.remote import ResumingFile, is_local

_PIECE = 4 << 20


def stamp_of(path: str) -> str:
    """The stamp of a local file: bytes, mtime and ctime in nanoseconds.

    Raises:
        OSError: there is no such file.
    """
    return _stamp(os.stat(path))


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


class Reading:
    """What was read of a local file by one unit of a run.

    Attributes:
        stamp: of the file.
        digest: xxh3-128 of all of its bytes, in hexadecimal; None from a unit that begins inside the file.
        file: as long as it is read.

    Stamp and digest are None until the unit has come to its end, and where its input is no local file.
    """

    def __init__(self, stamp: str | None = None, digest: str | None = None) -> None:
        self.stamp, self.digest = stamp, digest
        self.file: LocalFile | None = None

    def check(self) -> None:
        """See that the file did not change since it was opened.

        Raises:
            InputError: it did; names it.
        """
        if self.file is not None:
            self.file.check()


def _opened(path: str, source: str) -> io.FileIO:
    try:
        return io.FileIO(path)  # the caller closes it
    except OSError as error:
        raise InputError(f"{source}: cannot open this input file: {error.strerror or error}") from error


class LocalFile(io.BufferedReader):
    """An input file, opened for one unit. At the end of its context, without an error, what is left of it is hashed.

    Args:
        unit: whose file it is.
        reading: filled in at the end; None: nobody asks for a digest.

    Raises:
        InputError: the file cannot be opened, or is not the one that was planned.
    """

    def __init__(self, unit: Unit, reading: Reading | None) -> None:
        self.unit, self.reading = unit, reading
        super().__init__(_opened(unit.address, unit.source))
        self.stamp = _stamp(os.fstat(self.fileno()))
        if unit.stamp is not None and unit.stamp != self.stamp:
            self.close()
            raise self._changed()
        sequential = unit.kind != "parquet" and unit.is_first
        self._hash = xxhash.xxh3_128() if reading is not None and sequential else None
        if reading is not None:
            reading.file = self

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to another byte: what passes from then on is not all of the file in its order, and is not hashed."""
        before = self.tell()
        after = super().seek(offset, whence)
        if after != before:
            self._hash = None
        return after

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes; b"" at the end."""
        data = super().read(size)
        if self._hash is not None:
            self._hash.update(data)
        return data

    def check(self) -> None:
        """See that the file is the one that was opened, with the same stamp, and still has its name.

        Raises:
            InputError: it is not.
        """
        opened = os.fstat(self.fileno())
        try:
            named = os.stat(self.unit.address)
        except OSError:
            raise self._changed() from None
        if _stamp(opened) != self.stamp or (named.st_dev, named.st_ino) != (opened.st_dev, opened.st_ino):
            raise self._changed()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.closing(self):
            if kind is None and self.reading is not None:
                self._finish(self.reading)

    def _finish(self, reading: Reading) -> None:
        digest = self._hash
        if digest is None and self.unit.is_first:
            digest = xxhash.xxh3_128()
            self.seek(0)
        while digest is not None and (piece := super().read(_PIECE)):
            digest.update(piece)
        self.check()
        reading.stamp, reading.digest = self.stamp, None if digest is None else digest.hexdigest()

    def _changed(self) -> InputError:
        return InputError(
            f"{self.unit.source}: this input file was changed, cut off or replaced while the run was reading its "
            "input. Nothing was published. Remedy: let nobody write there, and run again (what is done of an unchanged "
            "file is kept); if it is meant to be another one, start afresh with --force-new"
        )


def file_digest(path: str) -> str:
    """xxh3-128 of the bytes of a local file, in hexadecimal.

    Twenty times faster than SHA-256, and enough to notice a file that is not the one that was read; it is no defence
    against somebody who wants to replace one unnoticed.

    Raises:
        OSError: it cannot be read.
    """
    digest = xxhash.xxh3_128()
    with Path(path).open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


ROWS_PER_UNIT = 20_000
"""A unit takes Parquet row groups until it has this many rows; a larger row group is a unit by itself."""
BYTES_PER_UNIT = 64 << 20
"""A unit takes lines of a plain local file until it has this many bytes: some 20,000 documents."""
COMPRESSED = ("", ".gz", ".zst", ".zstd", ".bz2", ".xz")
SUFFIXES: dict[str, tuple[str, ...]] = {
    "warc": tuple(".warc" + suffix for suffix in COMPRESSED),
    "wet": tuple(stem + suffix for stem in (".wet", ".warc.wet") for suffix in COMPRESSED),
    "jsonl": tuple(stem + suffix for stem in (".jsonl", ".ndjson", ".json") for suffix in COMPRESSED),
    "parquet": (".parquet", ".pq"),
}
"""What is read of a folder, by kind of input: in any case."""
ARC_REFUSED = (
    "an ARC file, the format before WARC, is not read. Remedy: `warcio recompress FILE.arc.gz FILE.warc.gz` converts it"
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of the input that one worker reads by itself. The partition does not depend on the number of workers.

    While a run is planned, one stands for each file of the input.

    Attributes:
        index: place in the order of the run, from 0.
        kind: the reader: "warc", "wet", "jsonl", "parquet", or "stream" (`datasets` streaming).
        source: name of the file in the ledger: the path as the config's pattern expands it. The units of one file
            share it.
        address: what fsspec opens; the data set for "stream".
        start: position of the unit's first record (see `Batch.position`), or None for the whole file.
        stop: position after that of its last one, or None for the whole file.
        offset: byte of the file where a range of its lines begins, which has `size` bytes; None: no range of lines.
        size: stored bytes, or None if unknown.
        stamp: of a local file when it was planned (see `filters.read.unit`); whoever reads another refuses it.
        columns: types of the pass-through columns (see `filters.read.columns`), where files differ in them.
        input: number of the input it is read with.
    """

    index: int
    kind: str
    source: str
    address: str
    start: int | None = None
    stop: int | None = None
    offset: int | None = None
    size: int | None = None
    stamp: str | None = None
    columns: str | None = None
    input: int = 0

    @property
    def is_first(self) -> bool:
        """Whether no unit before it is of the same file."""
        return not (self.start if self.offset is None else self.offset)


def stored_file(kind: str, source: str, address: str) -> Unit:
    """A file of the input, a local one with its size and its stamp.

    Raises:
        InputError: it cannot be read.
    """
    if not is_local(address):
        return Unit(0, kind, source, address)
    try:
        stamp = stamp_of(address)
        if not os.access(address, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(f"{address}: cannot read this input file: {error.strerror or error}") from error
    return Unit(0, kind, source, address, size=int(stamp.partition(" ")[0]), stamp=stamp)


def open_input(address: str, config: InputConfig) -> BinaryIO:
    """The stored bytes of an input file.

    A remote file survives dropped connections (`ResumingFile`). An outage that outlasts the retries is an error of the
    run, not a quarantined record: the data is not damaged, and a later run can read it.

    Raises:
        InputError: the file does not exist, may not be read, or cannot be reached.
    """
    if is_local(address):
        return io.BufferedReader(_opened(address, address))
    return cast(BinaryIO, ResumingFile(address, config.storage_options, config.retries, config.requests_per_second))


def open_unit(unit: Unit, config: InputConfig, reading: Reading | None = None) -> BinaryIO:
    """The stored bytes of the file that a unit is of: a remote one as of `open_input`, a local one as a `LocalFile`.

    Raises:
        InputError: as `open_input`; or the local file is not the one that was planned.
    """
    return open_input(unit.address, config) if not is_local(unit.address) else LocalFile(unit, reading)
