"""Band files: what the documents of an input unit can be joined by, ordered by hash range.

The join of one hash range over a whole run reads its slice of every unit's band file and nothing else. Everything that
is joined is an entry of a 64-bit key and a 32-bit row in the unit, 12 bytes:

    near    a band key of a document's MinHash signature (it contains the number of the band)
    exact   the upper half of the 128-bit hash of the normalised text
    id      xxh3-64 of the id as the input gives it
    suffix  for an id like "a#2": xxh3-64 of "a", and 2 in place of the row; so that no second "a" becomes "a#2"

Two texts that are no copies share 64 bits with probability 5e-20: expect 0.03 false exact joins in a run of a billion
documents.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from filters.arrays import Bool, UInt32, UInt64
from filters.config.filter import DedupConfig
from filters.kernels.pairs import scatter
from filters.phases.blocks import BlockFileError, BlockReader, BlockWriter
from filters.phases.phase import DamagedError, Job
from filters.phases.rows import ATTRIBUTES
from filters.read.batch import Batch

KINDS = ("near", "exact", "id", "suffix")
BANDS = "bands.bin"
"""Name of the file in a unit's folder."""
BYTES_PER_ENTRY = 40
"""Memory an entry takes while it is joined: 16 as read, 16 as scattered, and its share of buckets and pairs."""
MAX_PARTITIONS = 4096
_BYTES_PER_DOCUMENT = 1500
"""Stored bytes of a document, about, where the input is compressed."""
_BYTES_PER_PARTITION = 32 * 2**20
_UNKNOWN = 64
"""Hash ranges where the size of the input is not known."""

_DTYPES = ["<u8", "<u4"] * len(KINDS)
_CHUNK = 4_000_000
"""Entries held before they are written: about 100 MB with their ordered copy."""
_SUFFIXED = re.compile(r"(.*)#([1-9][0-9]{0,8})", re.DOTALL)


@functools.lru_cache(maxsize=4)  # asked for with every band file that is read, and there may be many units
def partitions(job: Job) -> int:
    """Hash ranges of the run: so many that one can be joined in memory, and that a larger input keeps many tasks busy.

    Depends on the input and the config alone. A range that turns out too large all the same is spilled to disk.
    """
    sizes = [unit.size for unit in job.units]
    return partitions_for(job.config.dedup, None if None in sizes else sum(size or 0 for size in sizes))


def partitions_for(dedup: DedupConfig, stored: int | None) -> int:
    """Hash ranges of a run whose input takes `stored` bytes (None: unknown)."""
    if dedup.partitions is not None:
        return dedup.partitions
    if stored is None:
        return _UNKNOWN
    entries = stored // _BYTES_PER_DOCUMENT * ((dedup.near.bands if dedup.near else 0) + 2)
    by_memory = -(-entries * BYTES_PER_ENTRY // dedup.memory)
    return int(max(1, min(MAX_PARTITIONS, max(by_memory, min(16, stored // _BYTES_PER_PARTITION)))))


class BandWriter(BlockWriter):
    """Writes the band file of one unit, whose documents come in input order. Use as a context manager.

    Args:
        path: does not exist yet.
        partitions: hash ranges, the same for all units of a run.
    """

    def __init__(self, path: Path, partitions: int) -> None:
        if partitions < 1:
            raise ValueError(f"partitions must be at least 1, got {partitions}")
        super().__init__(path, _DTYPES)
        self.partitions = partitions
        self._rows = self._count = 0
        self._pending: dict[str, list[tuple[UInt64, UInt32]]] = {kind: [] for kind in KINDS}

    def add(
        self, ids: pa.Array, alive: Bool, exact: UInt64 | None, keys: UInt64 | None, has_signature: Bool | None
    ) -> None:
        """Enter n documents.

        Args:
            ids: string[n], of all documents.
            alive: bool[n]; others only have an id.
            exact: uint64[n, 2], or None if exact duplicates are not looked for.
            keys: uint64[n, bands], or None if near duplicates are not looked for.
            has_signature: bool[n], given with `keys`.
        """
        rows = np.arange(self._rows, self._rows + len(ids), dtype=np.uint32)
        self._rows += len(ids)
        if self._rows > 2**32 - 1:
            raise ValueError("a unit may have 2^32 - 1 documents at most")
        if keys is not None and has_signature is not None and keys.shape[1]:
            signed = alive & has_signature
            self._enter("near", keys[signed].reshape(-1), np.repeat(rows[signed], keys.shape[1]))
        if exact is not None:
            self._enter("exact", exact[alive, 0], rows[alive])
        self._enter("id", id_hashes(ids), rows)
        self._enter("suffix", *_suffixes(ids))
        if self._count >= _CHUNK:
            self._flush()

    def _enter(self, kind: str, keys: UInt64, rows: UInt32) -> None:
        if len(keys):
            self._pending[kind].append((keys, rows))
            self._count += len(keys)

    def _flush(self) -> None:
        parts = []
        for kind, pending in self._pending.items():
            keys = np.concatenate([np.empty(0, np.uint64), *(keys for keys, _ in pending)])
            rows = np.concatenate([np.empty(0, np.uint32), *(rows for _, rows in pending)])
            parts.append(scatter(keys, rows, self.partitions))
            self._pending[kind] = []
        self._count = 0
        for partition in range(self.partitions):
            arrays: list[npt.NDArray[Any]] = []
            for keys, rows, offsets in parts:
                cut = slice(offsets[partition], offsets[partition + 1])
                arrays += [keys[cut], rows[cut]]
            self.write(*arrays)

    def __exit__(self, kind: type[BaseException] | None, *others: object) -> None:
        if kind is None:
            self._flush()
        super().__exit__(kind, *others)


class BandReader(BlockReader):
    """Reads one hash range of a band file. Use as a context manager.

    Args:
        path: what a `BandWriter` wrote.
        partitions: as given to the writer.
        partition: number of the hash range.

    Raises:
        BlockFileError: the file is damaged, or of another number of partitions.
    """

    def __init__(self, path: Path, partitions: int, partition: int) -> None:
        super().__init__(path, _DTYPES)
        self._of_range = range(partition, len(self), partitions)
        if len(self) % partitions or not len(self):
            self.__exit__()
            raise BlockFileError(f"{path.name} is of another number of hash ranges than {partitions}")

    def count(self, kind: str) -> int:
        """Entries of a kind."""
        return sum(self.lengths(block)[2 * KINDS.index(kind)] for block in self._of_range)

    def entries(self, kind: str) -> Iterator[tuple[UInt64, UInt32]]:
        """(keys, rows) of a kind, in the order of the documents, in one or more chunks.

        Raises:
            BlockFileError: what is read is damaged.
        """
        array = 2 * KINDS.index(kind)
        for block in self._of_range:
            keys, rows = self.arrays(block, [array, array + 1])
            if len(keys):
                yield keys, rows


@contextmanager
def open_bands(job: Job, folder: Path) -> Iterator[Callable[[Batch], None]]:
    """Write the band file of an input unit into `folder`: enters the batches it is called with, all steps done."""
    dedup = job.config.dedup
    with BandWriter(folder / BANDS, partitions(job)) as writer:

        def enter(batch: Batch) -> None:
            found = batch.attributes
            exact, keys = found["exact"] if dedup.exact else None, found["keys"] if dedup.near else None
            writer.add(batch.id, batch.alive, exact, keys, found["has_signature"])

        yield enter


@contextmanager
def reading_bands(job: Job, unit: int, partition: int) -> Iterator[BandReader]:
    """One hash range of an input unit's band file.

    Raises:
        DamagedError: what is read is missing or damaged.
    """
    path = job.file(ATTRIBUTES, unit, BANDS, verify=False)
    with as_damage(ATTRIBUTES, unit), BandReader(path, partitions(job), partition) as reader:
        yield reader


@contextmanager
def reading_blocks(job: Job, phase: str, unit: int, name: str, dtypes: list[str]) -> Iterator[BlockReader]:
    """A block file of a finished unit; each block is checked as it is read.

    Raises:
        DamagedError: what is read is missing or damaged.
    """
    path = job.file(phase, unit, name, verify=False)
    with as_damage(phase, unit), BlockReader(path, dtypes) as reader:
        yield reader


@contextmanager
def as_damage(phase: str, unit: int) -> Iterator[None]:
    """Say which unit is to be done again where a block file of it is damaged."""
    try:
        yield
    except BlockFileError as error:
        raise DamagedError(phase, unit, str(error)) from error


def id_hashes(ids: pa.Array) -> UInt64:
    """uint64[n]: xxh3-64 of each id (string[n])."""
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(i.encode()) for i in ids.to_pylist()), np.uint64, len(ids))


def _suffixes(ids: pa.Array) -> tuple[UInt64, UInt32]:
    """(hash of what is before "#", number behind it) of the ids that look like one with a suffix."""
    likely: Sequence[str] = ids.filter(pc.match_substring_regex(ids, r"#[1-9][0-9]{0,8}$")).to_pylist()
    matches = [match for match in map(_SUFFIXED.fullmatch, likely) if match]
    bases = [xxhash.xxh3_64_intdigest(match[1].encode()) for match in matches]
    return np.array(bases, np.uint64), np.array([int(match[2]) for match in matches], np.uint32)
