"""Band files in the work folder: how many hash ranges a run has, and how they are written and read."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filters.config.filter import DedupConfig
from filters.dedup.band_file import BANDS, BandReader, BandWriter
from filters.dedup.join import BYTES_PER_ENTRY
from filters.phases.blocks import BlockFileError, BlockReader
from filters.phases.phase import DamagedError, Job
from filters.phases.rows import ATTRIBUTES
from filters.read.batch import Batch

MAX_PARTITIONS = 4096
_BYTES_PER_DOCUMENT = 1500
"""Stored bytes of a document, about, where the input is compressed."""
_BYTES_PER_PARTITION = 32 * 2**20
_UNKNOWN = 64


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


class UnitBands:
    """The band file of an input unit, as batches enter it."""

    def __init__(self, writer: BandWriter, dedup: DedupConfig) -> None:
        self._writer, self._dedup = writer, dedup

    def add(self, batch: Batch) -> None:
        """Enter a batch all of whose steps are done."""
        found = batch.attributes
        self._writer.add(
            batch.id,
            batch.alive,
            found["exact"] if self._dedup.exact else None,
            found["keys"] if self._dedup.near else None,
            found["has_signature"],
        )


@contextmanager
def open_bands(job: Job, folder: Path) -> Iterator[UnitBands]:
    """The band file of an input unit, to be written into `folder`."""
    with BandWriter(folder / BANDS, partitions(job)) as writer:
        yield UnitBands(writer, job.config.dedup)


@contextmanager
def reading_bands(job: Job, unit: int, partition: int) -> Iterator[BandReader]:
    """One hash range of an input unit's band file.

    Raises:
        DamagedError: what is read is missing or damaged.
    """
    path = job.file(ATTRIBUTES, unit, BANDS, verify=False)
    with _as_damage(ATTRIBUTES, unit), BandReader(path, partitions(job), partition) as reader:
        yield reader


@contextmanager
def reading_blocks(job: Job, phase: str, unit: int, name: str, dtypes: list[str]) -> Iterator[BlockReader]:
    """A block file of a finished unit; each block is checked as it is read.

    Raises:
        DamagedError: what is read is missing or damaged.
    """
    path = job.file(phase, unit, name, verify=False)
    with _as_damage(phase, unit), BlockReader(path, dtypes) as reader:
        yield reader


@contextmanager
def _as_damage(phase: str, unit: int) -> Iterator[None]:
    try:
        yield
    except BlockFileError as error:
        raise DamagedError(phase, unit, str(error)) from error
