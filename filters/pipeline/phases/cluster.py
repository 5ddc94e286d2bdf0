"""Phase `cluster` of a global run: connected components of all pairs, sent to the input units of their documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from filters.dedup.blocks import BlockWriter
from filters.dedup.components import Clusters, Nodes
from filters.kernels.arrays import Int64
from filters.pipeline.phases.bands import partitions, reading_blocks
from filters.pipeline.phases.joins import EXACT, HITS, JOIN, NAMES, pairs_of
from filters.pipeline.phases.phase import Job
from filters.pipeline.phases.rows import first_rows
from filters.pipeline.phases.verification import near_pairs

CLUSTER = "cluster"
NODES, RENAMED = "nodes.bin", "names.bin"
_NODES = ["<i8", "<i8", "<i8", "<i8", "<i8", "|u1", "<i8"]
_NAMES = ["<i8", "<i8"]


class Cluster:
    """nodes.bin: a block for each input unit, with its documents that have a duplicate. names.bin: likewise, with those
    whose id gets a suffix.

    Facts: nodes, clusters (near clusters of two documents or more), renamed.
    """

    name = CLUSTER

    def units(self, job: Job) -> int:
        """One: any two documents of the run may turn out to be in one cluster."""
        return 1

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Merge all pairs, and write what follows for each input unit."""
        bounds = first_rows(job)
        clusters = Clusters(int(bounds[-1]), pairs_of(job, EXACT), near_pairs(job), pairs_of(job, HITS))
        found = 0
        with BlockWriter(folder / NODES, _NODES) as blocks:
            for first, nodes in zip(bounds[:-1], clusters.nodes(bounds), strict=True):
                one = np.array([first])
                blocks.write(one, nodes.document, nodes.exact, nodes.near, nodes.size, nodes.copied, nodes.earlier)
                found += int(((nodes.near == nodes.document) & (nodes.size > 1)).sum())
        names = np.concatenate([np.empty((0, 2), np.int64), *pairs_of(job, NAMES)()])
        names = names[np.argsort(names[:, 0], kind="stable")]
        cuts = np.searchsorted(names[:, 0], bounds).tolist()
        with BlockWriter(folder / RENAMED, _NAMES) as blocks:
            for number in range(len(job.units)):
                some = names[cuts[number] : cuts[number + 1]]
                blocks.write(some[:, 0], some[:, 1])
        return {"nodes": clusters.count, "clusters": found, "renamed": len(names)}


def read_nodes(job: Job, unit: int) -> tuple[int, Nodes]:
    """(running number of the first document of an input unit, its documents that have a duplicate).

    Raises:
        DamagedError: what is read is missing or damaged.
    """
    with reading_blocks(job, CLUSTER, 0, NODES, _NODES) as reader:
        first, document, exact, near, size, copied, earlier = reader.arrays(unit)
    return int(first[0]), Nodes(document, exact, near, size, copied.astype(np.bool_), earlier)


def read_names(job: Job, unit: int) -> tuple[Int64, Int64]:
    """(documents, suffixes of their ids), int64[n] each, of an input unit.

    Raises:
        DamagedError: what is read is missing or damaged.
    """
    with reading_blocks(job, CLUSTER, 0, RENAMED, _NAMES) as reader:
        documents, numbers = reader.arrays(unit)
    return documents, numbers


def pairs_joined(job: Job) -> dict[str, int]:
    """Pairs that the phase `join` found, by kind."""
    facts = [job.facts(JOIN, unit)["pairs"] for unit in range(partitions(job))]
    return {kind: sum(int(some[kind]) for some in facts) for kind in ("near", "exact")}
