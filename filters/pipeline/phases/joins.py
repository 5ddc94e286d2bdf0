"""Phase `join` of a global run: a unit of it finds, in one hash range, which documents of the whole run share a key."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from filters.dedup.blocks import BlockWriter
from filters.dedup.fingerprints import EarlierRun, offsets, open_earlier
from filters.dedup.join import join
from filters.dedup.names import suffixes
from filters.kernels.arrays import Int64, UInt64
from filters.pipeline.phases.bands import partitions, reading_bands, reading_blocks
from filters.pipeline.phases.phase import Job
from filters.pipeline.phases.rows import first_rows

JOIN = "join"
NEAR, EXACT, HITS, NAMES = "near.bin", "exact.bin", "hits.bin", "names.bin"
_DTYPES = ["<i8", "<i8"]
_EARLIER = -(2**62)
"""Added to the number of a document of an earlier run, so that it comes before all of this one."""


class Join:
    """Pairs of documents that share a key, as (first document with it, later document).

    near.bin, exact.bin: pairs of running numbers. hits.bin: (document, number over all earlier runs). names.bin:
    (document, suffix of its id).
    """

    name = JOIN

    def units(self, job: Job) -> int:
        """The hash ranges."""
        return partitions(job)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Join one hash range."""
        firsts = first_rows(job)
        counts = _counts(job, unit)
        earlier = open_earlier(job.config.dedup)
        entries, pairs = {}, {}
        with BlockWriter(folder / HITS, _DTYPES) as hits:
            for kind, name in (("near", NEAR), ("exact", EXACT)):
                keys = _key_range(unit, partitions(job))
                total = int(counts[kind].sum()) + sum(run.count(kind, *keys) for run in earlier)
                chunks = itertools.chain(
                    _earlier_chunks(earlier, kind, *keys), _chunks(job, unit, firsts, counts, kind)
                )

                pairs[kind] = 0
                with BlockWriter(folder / name, _DTYPES) as found:
                    for chunk in join(chunks, total, job.config.dedup.memory, folder):
                        within = _set_apart(chunk, hits)
                        found.write(within[:, 0], within[:, 1])
                        pairs[kind] += len(within)
                entries[kind] = total
        documents, numbers = suffixes(self._same_ids(job, unit, firsts, counts, folder))
        with BlockWriter(folder / NAMES, _DTYPES) as names:
            names.write(documents, numbers)
        return {"entries": entries, "pairs": pairs, "renamed": len(documents)}

    def _same_ids(self, job: Job, unit: int, firsts: Int64, counts: dict[str, Int64], folder: Path) -> Int64:
        """Pairs as `suffixes` takes them. Holds all documents of the range that share their id with another."""

        def chunks() -> Iterator[tuple[UInt64, Int64]]:
            yield from _chunks(job, unit, firsts, counts, "id")
            for number in np.flatnonzero(counts["suffix"]).tolist():
                with reading_bands(job, number, unit) as reader:
                    for keys, taken in reader.entries("suffix"):
                        yield keys, -taken.astype(np.int64)

        total = int(counts["id"].sum() + counts["suffix"].sum())
        found = list(join(chunks(), total, job.config.dedup.memory, folder))
        return np.concatenate([np.empty((0, 2), np.int64), *found])


def _counts(job: Job, partition: int) -> dict[str, Int64]:
    """int64[input units] for each kind: entries in the hash range."""
    counts = {kind: np.zeros(len(job.units), np.int64) for kind in ("near", "exact", "id", "suffix")}
    for unit in range(len(job.units)):
        with reading_bands(job, unit, partition) as reader:
            for kind, found in counts.items():
                found[unit] = reader.count(kind)
    return counts


def _chunks(
    job: Job, partition: int, firsts: Int64, counts: dict[str, Int64], kind: str
) -> Iterator[tuple[UInt64, Int64]]:
    for unit in np.flatnonzero(counts[kind]).tolist():
        with reading_bands(job, unit, partition) as reader:
            for keys, rows in reader.entries(kind):
                yield keys, rows.astype(np.int64) + firsts[unit]


def _key_range(partition: int, count: int) -> tuple[int, int]:
    """First and last key of a hash range, as `filters.kernels.pairs.scatter` cuts them."""
    first, behind = (-(-(number << 32) // count) << 32 for number in (partition, partition + 1))
    return first, behind - 1


def _earlier_chunks(runs: list[EarlierRun], kind: str, first: int, last: int) -> Iterator[tuple[UInt64, Int64]]:
    starts = offsets(runs)
    for number, run in enumerate(runs):
        for keys, rows in run.keys(kind, first, last):
            yield keys, rows + (starts[number] + _EARLIER)


def _set_apart(pairs: Int64, hits: BlockWriter) -> Int64:
    """Write the pairs with a document of an earlier run to `hits`; return those within this run.

    Documents of this run that share a key with the same earlier one are joined to each other.
    """
    old = pairs[:, 0] < 0
    if not old.any():
        return pairs
    found = pairs[old & (pairs[:, 1] >= 0)]
    hits.write(found[:, 1], found[:, 0] - _EARLIER)
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    starts = np.flatnonzero(np.concatenate([np.ones(min(len(found), 1), bool), found[1:, 0] != found[:-1, 0]]))
    centres = np.repeat(found[starts, 1], np.diff(np.append(starts, len(found))))
    among = np.stack([centres, found[:, 1]], axis=1)
    return np.concatenate([pairs[~old], among[among[:, 0] != among[:, 1]]])


def pairs_of(job: Job, name: str) -> Callable[[], Iterator[Int64]]:
    """Chunks of the pairs in a file of the phase, int64[m, 2], over all hash ranges; may be called many times.

    Raises:
        DamagedError: a file is missing or damaged.
    """

    def read() -> Iterator[Int64]:
        for unit in range(partitions(job)):
            with reading_blocks(job, JOIN, unit, name, _DTYPES) as reader:
                for block in range(len(reader)):
                    yield np.stack(reader.arrays(block), axis=1)

    return read
