"""Phases `fingerprints` and `sets`: what later runs need to know of the documents this one keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from filters.arrays import Int64, UInt64
from filters.dedup.bands import partitions, reading_bands
from filters.dedup.fingerprints import write_keys, write_sets
from filters.dedup.near import shingles_of
from filters.kernels.packed import PackedText
from filters.kernels.pairs import marked
from filters.kernels.ragged import Ragged
from filters.phases.phase import Job
from filters.phases.rows import first_rows
from filters.phases.texts import read_texts

FINGERPRINTS, SETS = "fingerprints", "sets"
SELECT, BITMAP = "select", "kept.bits"
"""The phase that wrote the bitmap of kept documents, and its file: uint64[ceil(documents / 64)]."""


class Fingerprints:
    """near-*.parquet and exact-*.parquet of one hash range, see `filters.dedup.fingerprints`.

    Facts: files (name -> keys in it).
    """

    name = FINGERPRINTS

    def units(self, job: Job) -> int:
        """The hash ranges, where fingerprints are to be kept."""
        return partitions(job) * job.config.dedup.keep_fingerprints

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Take the keys of the hash range that kept documents have."""
        words, bounds = _kept(job), first_rows(job)
        keys: dict[str, list[UInt64]] = {"near": [], "exact": []}
        rows: dict[str, list[Int64]] = {"near": [], "exact": []}
        for number in range(len(job.units)):
            with reading_bands(job, number, unit) as reader:
                for kind, found in keys.items():
                    for some, places in reader.entries(kind):
                        documents = places.astype(np.int64) + bounds[number]
                        chosen = marked(words, documents)
                        found.append(some[chosen])
                        rows[kind].append(documents[chosen])
        counts = {}
        for kind, found in keys.items():
            path = folder / f"{kind}-{unit:05d}.parquet"
            every = np.concatenate([np.empty(0, np.uint64), *found])
            counts[path.name] = write_keys(path, every, np.concatenate([np.empty(0, np.int64), *rows[kind]]))
        return {"files": counts}


class KeptSets:
    """sets-N.parquet of an input unit, see `filters.dedup.fingerprints`. Facts: files (name -> documents in it)."""

    name = SETS

    def units(self, job: Job) -> int:
        """The units of the input, where fingerprints of near copies are to be kept."""
        return len(job.units) * (job.config.dedup.keep_fingerprints and job.config.dedup.near is not None)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Read the texts of an input unit once more, if any of its documents is kept."""
        first, stop = first_rows(job)[unit : unit + 2].tolist()
        path = folder / f"sets-{first:012d}.parquet"
        documents = np.arange(first, stop)
        count = write_sets(path, _sets(job, unit, documents[marked(_kept(job), documents)]))
        return {"files": {path.name: count}}


def _kept(job: Job) -> UInt64:
    return np.fromfile(job.file(SELECT, 0, BITMAP), np.uint64)


def _sets(job: Job, unit: int, kept: Int64) -> Iterator[tuple[Int64, Ragged]]:
    near = job.config.dedup.near
    assert near is not None
    first = int(first_rows(job)[unit])
    for row, batch in read_texts(job, unit, kept - first):
        start, stop = np.searchsorted(kept, [first + row, first + row + len(batch)]).tolist()
        texts = PackedText.from_arrow(batch.text.take(pa.array(kept[start:stop] - first - row)))
        yield kept[start:stop], shingles_of(texts, near)
