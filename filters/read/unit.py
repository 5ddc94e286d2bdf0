"""Files of an input, and the units of work that they are cut into."""

from __future__ import annotations

from dataclasses import dataclass

from filters.errors import InputError
from filters.read.local import stamp_of
from filters.storage.remote import is_local

ROWS_PER_UNIT = 20_000
"""A unit takes Parquet row groups until it has this many rows; a larger row group is a unit by itself."""
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

    Attributes:
        index: place in the order of the run, from 0.
        kind: the reader: "warc", "wet", "jsonl", "parquet", or "stream" (`datasets` streaming).
        source: name of the file in the ledger: the path as the config's pattern expands it. The units of one file
            share it.
        address: what fsspec opens; the data set for "stream".
        start: first row of the unit, or None for the whole file.
        stop: the row after the last one, or None for the whole file.
        size: stored bytes, or None if unknown.
        stamp: of a local file when it was planned (see `filters.read.local`); whoever reads another refuses it.
        columns: types of the pass-through columns (see `filters.read.columns`), where files differ in them.
        input: number of the input it is read with.
    """

    index: int
    kind: str
    source: str
    address: str
    start: int | None = None
    stop: int | None = None
    size: int | None = None
    stamp: str | None = None
    columns: str | None = None
    input: int = 0


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of the input: its kind, its name in the ledger, its address, its stored bytes where known, its stamp."""

    kind: str
    source: str
    address: str
    size: int | None
    stamp: str | None = None


def local_stamp(address: str) -> str | None:
    """The stamp of a local file, None of a remote one.

    Raises:
        InputError: it cannot be read.
    """
    if not is_local(address):
        return None
    try:
        return stamp_of(address)
    except OSError as error:
        raise InputError(f"{address}: cannot read this input file: {error.strerror or error}") from error
