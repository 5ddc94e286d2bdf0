"""Phase `join`: a unit of it finds, in one hash range, which documents of the whole run share a key, or an id.

Entries are joined in memory as long as they fit; where they do not, they are spilled to disk in smaller ranges, and
those again where one is still too large. A range that is too large because all its entries have one key (a page of
which there are millions of copies) is streamed: its first document is joined to all others as they come by.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from filters.arrays import Bool, Int64, UInt64
from filters.dedup.bands import BYTES_PER_ENTRY, KINDS, as_damage, partitions, reading_bands
from filters.dedup.earlier_runs import EarlierRun, open_earlier
from filters.kernels import GOLDEN
from filters.kernels.pairs import stars
from filters.phases.blocks import Columns, Outbox, Table, firsts, height, join_tables, position, read_flushes
from filters.phases.phase import Job
from filters.phases.rows import first_rows

JOIN = "join"
_FAN_OUT = 256
_CHUNK = 1 << 16
_LEVEL = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)


@dataclass(frozen=True, eq=False)
class Places:
    """Places of documents: files of earlier runs' shingles first, then the units of the input.

    Documents of earlier runs have negative numbers, in the order of `dedup.against` and of their rows, so that they
    come before all others.

    Attributes:
        bounds: int64[places + 1], number of the first document of each place, and behind the last.
        earlier: the earlier runs.
        parts: (earlier run, number of the file in it) of the first places.
    """

    bounds: Int64
    earlier: tuple[EarlierRun, ...]
    parts: tuple[tuple[int, int], ...]

    def of(self, documents: Int64) -> Int64:
        """int64[n]: the place of each document."""
        return position(self.bounds, documents, behind=True) - 1

    def first_of(self, number: int) -> int:
        """The number of the first document of an earlier run."""
        return -sum(run.rows for run in self.earlier[number:])


@functools.lru_cache(maxsize=4)
def places(job: Job) -> Places:
    """Places of the documents of a job whose phase `attributes` is done.

    Raises:
        RunError: an earlier run cannot be read, or was made with other options.
    """
    where = Places(first_rows(job), tuple(open_earlier(job.config.dedup)), ())
    parts = tuple((number, part) for number, run in enumerate(where.earlier) for part in range(len(run.starts)))
    before = [where.first_of(number) + where.earlier[number].starts[part] for number, part in parts]
    return Places(np.concatenate([np.array(before, np.int64), where.bounds]), where.earlier, parts)


def place_count(job: Job) -> int:
    """How many places there are."""
    return len(places(job).bounds) - 1


@dataclass(frozen=True)
class Mail:
    """A file of addressed rows that every unit of a phase writes.

    Attributes:
        phase: name of the phase.
        name: of the file.
        columns: of the rows.
        senders: how many units the phase has.
        addresses: how many units of later phases are written to.
    """

    phase: str
    name: str
    columns: Columns
    senders: Callable[[Job], int] = partitions
    addresses: Callable[[Job], int] = partitions

    def outbox(self, job: Job, folder: Path, *, flush: bool = True) -> Outbox:
        """Write the file into the folder of a unit."""
        return Outbox(folder / self.name, self.columns, self.addresses(job), flush=flush)

    def letters(self, job: Job, address: int, senders: Iterable[int] | None = None) -> Iterator[Table]:
        """What the senders (None: all) wrote to an address, in their order; no table is empty.

        Raises:
            DamagedError: what is read is missing or damaged.
        """
        for unit in range(self.senders(job)) if senders is None else senders:
            path = job.folder(self.phase, unit) / self.name  # each block has a checksum: no look at the entry
            with as_damage(self.phase, unit):
                flushes = read_flushes(path, self.columns, address, self.addresses(job))
                yield from (rows for rows in flushes if height(rows))

    def table(self, job: Job, address: int, senders: Iterable[int] | None = None) -> Table:
        """All `letters` in one table."""
        return join_tables(self.letters(job, address, senders), self.columns)


NEAR = Mail(JOIN, "near.bin", {"document": "<i8", "first": "<i8", "key": "<u8", "size": "<i8"}, addresses=place_count)
"""A document that shares a band key with others; the first of these; the key; how many documents have it."""
EXACT = Mail(JOIN, "exact.bin", {"document": "<i8", "first": "<i8"}, addresses=place_count)
"""A document whose normalised text others have too; the first of these."""
NAMES = Mail(JOIN, "names.bin", {"document": "<i8", "suffix": "<i8"}, addresses=place_count)
"""A document whose id others have too, and the number that makes it unique."""


class Join:
    """Writes `NEAR`, `EXACT` and `NAMES` to the places of documents that share a key with others.

    Facts: entries and rows found, by kind; renamed.
    """

    name = JOIN

    def units(self, job: Job) -> int:
        """The hash ranges."""
        return partitions(job)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Join one hash range."""
        where, counts, memory = places(job), _counts(job, unit), job.config.dedup.memory
        first, last = _key_range(unit, partitions(job))
        entries, pairs = {}, {}
        for kind, mail in (("near", NEAR), ("exact", EXACT)):
            total = int(counts[kind].sum()) + sum(run.count(kind, first, last) for run in where.earlier)
            chunks = itertools.chain(_earlier_chunks(where, kind, first, last), _chunks(job, unit, counts, kind))
            entries[kind], pairs[kind] = total, 0
            with mail.outbox(job, folder) as box:
                for chunk in join(chunks, total, memory, folder):
                    if where.earlier:
                        chunk = chunk[_met_by_new(chunk)]
                    pairs[kind] += len(chunk)
                    # A key has one first document, which gets a row of its own.
                    lead = chunk[np.unique(chunk[:, 2], return_index=True)[1]]
                    lead[:, 1] = lead[:, 0]
                    columns = np.ascontiguousarray(np.concatenate([lead, chunk]).T)
                    rows = dict(zip(("first", "document", "key", "size"), columns, strict=True))
                    rows["key"] = rows["key"].view(np.uint64)
                    box.add(where.of(rows["document"]), **{name: rows[name] for name in mail.columns})
        same = np.concatenate([np.empty((0, 2), np.int64), *self._same_ids(job, unit, counts, folder)])
        documents, numbers = suffixes(same)
        with NAMES.outbox(job, folder) as box:
            box.add(where.of(documents), document=documents, suffix=numbers)
        return {"entries": entries, "pairs": pairs, "renamed": len(documents)}

    def _same_ids(self, job: Job, unit: int, counts: dict[str, Int64], folder: Path) -> Iterator[Int64]:
        """Pairs as `suffixes` takes them: all documents of the range that share their id with another."""
        taken = ((keys, -rows) for keys, rows in _chunks(job, unit, counts, "suffix", numbered=False))
        chunks = itertools.chain(_chunks(job, unit, counts, "id"), taken)
        total = int(counts["id"].sum() + counts["suffix"].sum())
        return (chunk[:, :2] for chunk in join(chunks, total, job.config.dedup.memory, folder))


def _met_by_new(rows: Int64) -> Bool:
    """bool[n]: rows of keys that a document of this run has; of a key that other chunks have too, all rows."""
    _, inverse, counts = np.unique(rows[:, 2], return_inverse=True, return_counts=True)
    new = np.bincount(inverse, rows[:, 1] >= 0) > 0
    return np.asarray(new[inverse] | (counts[inverse] + 1 != rows[:, 3]))


def _counts(job: Job, partition: int) -> dict[str, Int64]:
    """int64[input units] for each kind: entries in the hash range."""
    counts = {kind: np.zeros(len(job.units), np.int64) for kind in KINDS}
    for unit in range(len(job.units)):
        with reading_bands(job, unit, partition) as reader:
            for kind, found in counts.items():
                found[unit] = reader.count(kind)
    return counts


def _chunks(
    job: Job, partition: int, counts: dict[str, Int64], kind: str, *, numbered: bool = True
) -> Iterator[tuple[UInt64, Int64]]:
    """Entries of all units; rows become numbers of documents, if they are to be numbered."""
    for unit in np.flatnonzero(counts[kind]).tolist():
        start = first_rows(job)[unit] if numbered else 0
        with reading_bands(job, unit, partition) as reader:
            for keys, rows in reader.entries(kind):
                yield keys, rows.astype(np.int64) + start


def _key_range(partition: int, count: int) -> tuple[int, int]:
    """First and last key of a hash range, as `filters.kernels.pairs.scatter` cuts them."""
    first, behind = (-(-(number << 32) // count) << 32 for number in (partition, partition + 1))
    return first, behind - 1


def _earlier_chunks(where: Places, kind: str, first: int, last: int) -> Iterator[tuple[UInt64, Int64]]:
    for number, run in enumerate(where.earlier):
        for keys, rows in run.keys(kind, first, last):
            yield keys, rows + where.first_of(number)


def pairs_joined(job: Job) -> dict[str, int]:
    """Pairs of a document and the first one with the same key, over all keys, by kind."""
    facts = [job.facts(JOIN, unit)["pairs"] for unit in range(partitions(job))]
    return {kind: sum(int(some[kind]) for some in facts) for kind in ("near", "exact")}


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
            keys, documents = np.ascontiguousarray(np.frombuffer(content, np.uint64).reshape(-1, 2).T)
            yield keys, documents.view(np.int64)


def _star_of_one_key(path: Path, size: int) -> Iterator[Int64]:
    first: int | None = None
    for keys, documents in _spilled(path):
        if first is None:
            first = int(documents[0])
        others = documents[documents != first]
        rows = np.empty((len(others), 4), np.int64)
        rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3] = first, others, keys[0].view(np.int64), size
        yield rows


def suffixes(pairs: Int64) -> tuple[Int64, Int64]:
    """Numbers for all but the first of the documents that share an id: "a", "a#2", "a#3", in input order.

    A number is left out where a document was given the id with that suffix by the input.

    Args:
        pairs: int64[m, 2] of (first document with the id, another document with it); or (first document, -k) where the
            input gave some document the id with suffix k. Pairs whose first number is negative are passed over.

    Returns:
        documents, ascending, and their numbers; int64[n] each.
    """
    pairs = pairs[pairs[:, 0] >= 0]
    taken = pairs[pairs[:, 1] < 0]
    pairs = pairs[pairs[:, 1] >= 0]
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    starts = np.flatnonzero(firsts(pairs[:, 0]))
    lengths = np.diff(np.append(starts, len(pairs)))
    numbers = np.arange(len(pairs)) - np.repeat(starts, lengths) + 2
    for first in np.unique(taken[:, 0]).tolist():
        start, stop = np.searchsorted(pairs[:, 0], [first, first + 1]).tolist()
        used = set((-taken[taken[:, 0] == first, 1]).tolist())
        free = (number for number in range(2, stop - start + len(used) + 2) if number not in used)
        numbers[start:stop] = [next(free) for _ in range(stop - start)]
    order = np.argsort(pairs[:, 1], kind="stable")
    return pairs[order, 1], numbers[order]
