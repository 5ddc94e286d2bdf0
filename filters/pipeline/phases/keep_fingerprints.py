"""Phase `fingerprints` of a global run: what later runs need to know of the documents this one keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from filters.dedup.fingerprints import write_keys
from filters.kernels.arrays import Int64, UInt64
from filters.kernels.pairs import marked
from filters.pipeline.phases.bands import partitions, reading_bands
from filters.pipeline.phases.cluster import read_nodes
from filters.pipeline.phases.phase import Job
from filters.pipeline.phases.survivors import read_survivors

FINGERPRINTS = "fingerprints"
SELECT, BITMAP = "select", "kept.bits"
"""The phase that wrote the bitmap of kept documents, and its file: uint64[ceil(documents / 64)]."""


class Fingerprints:
    """near-*.parquet and exact-*.parquet of one hash range, see `filters.dedup.fingerprints`. Facts: their keys."""

    name = FINGERPRINTS

    def units(self, job: Job) -> int:
        """The hash ranges, where fingerprints are to be kept."""
        return partitions(job) * job.config.dedup.keep_fingerprints

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Take the keys of the hash range that stand for a kept document."""
        words = np.fromfile(job.file(SELECT, 0, BITMAP), np.uint64)
        keys: dict[str, list[UInt64]] = {"near": [], "exact": []}
        rows: dict[str, list[Int64]] = {"near": [], "exact": []}
        for number in range(len(job.units)):
            first, nodes = read_nodes(job, number)
            stays = read_survivors(job, number).near
            with reading_bands(job, number, unit) as reader:
                for kind, found in keys.items():
                    for some, places in reader.entries(kind):
                        survivor = places.astype(np.int64) + first
                        place = np.searchsorted(nodes.document, survivor)
                        place[place == len(nodes.document)] = 0
                        if len(nodes.document):
                            survivor = np.where(nodes.document[place] == survivor, stays[place], survivor)
                        chosen = survivor >= 0
                        chosen[chosen] = marked(words, survivor[chosen])
                        found.append(some[chosen])
                        rows[kind].append(survivor[chosen])
        counts = {}
        for kind, found in keys.items():
            path = folder / f"{kind}-{unit:05d}.parquet"
            every = np.concatenate([np.empty(0, np.uint64), *found])
            counts[kind] = write_keys(path, every, np.concatenate([np.empty(0, np.int64), *rows[kind]]))
        return counts
