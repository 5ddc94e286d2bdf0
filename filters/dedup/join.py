"""The join of one hash range: which documents of a run share a key, within a set amount of memory.

Entries are joined in memory as long as they fit; where they do not, they are spilled to disk in smaller ranges, and
those again where one is still too large. A range that is too large because all its entries have one key (a page of
which there are millions of copies) is streamed: its first document is joined to all others as they come by.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from filters.arrays import Int64, UInt64
from filters.kernels.mixing import GOLDEN
from filters.kernels.pairs import stars

BYTES_PER_ENTRY = 40
"""Memory an entry takes while it is joined: 16 as read, 16 as scattered, and its share of buckets and pairs."""

_FAN_OUT = 256
_CHUNK = 1 << 16
_LEVEL = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)


def join(chunks: Iterable[tuple[UInt64, Int64]], count: int, memory: int, scratch: Path) -> Iterator[Int64]:
    """The documents that share a key, of a range of entries: chunks of int64[m, 4].

    A row is (first document with the key, later document with it, the key as int64, documents with the key). The set of
    rows depends on the entries alone, their order on `memory` too.

    Args:
        chunks: (keys uint64[k], documents int64[k]), the documents of one key in ascending order over all chunks.
        count: entries in all chunks together.
        memory: bytes to use; at least 2^20.
        scratch: folder for what does not fit.
    """
    limit = memory // BYTES_PER_ENTRY
    if count <= limit:
        yield from stars(*_gathered(chunks, count))
        return
    with tempfile.TemporaryDirectory(prefix="join-", dir=scratch) as folder:
        yield from _split(chunks, count, limit, Path(folder), 0)


def _gathered(chunks: Iterable[tuple[UInt64, Int64]], count: int) -> tuple[UInt64, Int64]:
    keys, documents = np.empty(count, np.uint64), np.empty(count, np.int64)
    place = 0
    for some_keys, some_documents in chunks:
        keys[place : place + len(some_keys)] = some_keys
        documents[place : place + len(some_keys)] = some_documents
        place += len(some_keys)
    if place != count:
        raise ValueError(f"{place} entries where {count} were announced")
    return keys, documents


def _split(chunks: Iterable[tuple[UInt64, Int64]], count: int, limit: int, folder: Path, level: int) -> Iterator[Int64]:
    ranges = min(_FAN_OUT, 2 * -(-count // limit))
    paths = [folder / f"{level}-{number}" for number in range(ranges)]
    counts = np.zeros(ranges, np.int64)
    lowest, highest = np.full(ranges, 2**64 - 1, np.uint64), np.zeros(ranges, np.uint64)
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for all_keys, all_documents in chunks:
            for start in range(0, len(all_keys), _CHUNK):
                keys, documents = all_keys[start : start + _CHUNK], all_documents[start : start + _CHUNK]
                # Each level hashes again: otherwise keys that one level cannot separate stay together at the next.
                mixed = (keys ^ np.uint64(level)) * (GOLDEN if level % 2 else _LEVEL) >> _HALF
                number = (mixed * np.uint64(ranges) >> _HALF).astype(np.uint8)
                order = np.argsort(number, kind="stable")
                records = np.stack([keys[order], documents[order].view(np.uint64)], axis=1)
                here = np.bincount(number, minlength=ranges)
                ends = np.cumsum(here)
                for chosen in np.flatnonzero(here).tolist():
                    part = records[ends[chosen] - here[chosen] : ends[chosen]]
                    files[chosen].write(part.data.cast("B"))
                    lowest[chosen] = min(lowest[chosen], part[:, 0].min())
                    highest[chosen] = max(highest[chosen], part[:, 0].max())
                counts += here
    for chosen, path in enumerate(paths):
        size = int(counts[chosen])
        if size <= limit:
            yield from stars(*_gathered(_spilled(path), size))
        elif lowest[chosen] == highest[chosen]:
            yield from _star_of_one_key(path, size)
        else:
            yield from _split(_spilled(path), size, limit, folder, level + 1)
        path.unlink()


def _spilled(path: Path) -> Iterator[tuple[UInt64, Int64]]:
    with path.open("rb") as file:
        while content := file.read(16 * _CHUNK):
            records = np.frombuffer(content, np.uint64).reshape(-1, 2)
            yield np.ascontiguousarray(records[:, 0]), np.ascontiguousarray(records[:, 1]).view(np.int64)


def _star_of_one_key(path: Path, size: int) -> Iterator[Int64]:
    first: int | None = None
    for keys, documents in _spilled(path):
        if first is None:
            first = int(documents[0])
        others = documents[documents != first]
        rows = np.empty((len(others), 4), np.int64)
        rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3] = first, others, keys[0].view(np.int64), size
        yield rows
