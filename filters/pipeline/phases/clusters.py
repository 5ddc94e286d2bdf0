"""Resolve: from the keys of documents to what deduplication over the whole run says of each.

join        a unit for each hash range: documents that share a key (`filters.pipeline.phases.joins`)
cluster     one unit: connected components, sent to the input units of their documents
best        a unit for each input unit: the best document it has of each cluster
survivors   one unit: the best document of each cluster, sent to the input units that have one of the cluster
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from filters.kernels.arrays import Bool, Int32, Int64
from filters.pipeline.phases.cluster import Cluster, read_names, read_nodes
from filters.pipeline.phases.decisions import Verdicts
from filters.pipeline.phases.joins import Join
from filters.pipeline.phases.phase import Job, Phase
from filters.pipeline.phases.rows import read_rows
from filters.pipeline.phases.survivors import Best, Survivors, read_survivors, unique_ids
from filters.pipeline.phases.verification import Candidates, Shingles, Verify

RESOLVE_PHASES: tuple[Phase, ...] = (
    Join(), Candidates(), Shingles(), Verify(), Cluster(), Best(), Survivors(),
)  # fmt: skip


def verdicts(job: Job, unit: int) -> Verdicts:
    """What deduplication says of the documents of an input unit.

    Raises:
        DamagedError: a file of an earlier phase is missing or damaged.
    """
    about = read_rows(job, unit, ["id", "reason"]).combine_chunks()
    n = about.num_rows
    first, nodes = read_nodes(job, unit)
    stays = read_survivors(job, unit)
    rows = nodes.document - first
    numbers = np.arange(first, first + n, dtype=np.int64)
    reason = np.array(about["reason"].to_numpy(zero_copy_only=False), dtype=object)
    alive = np.asarray(about["reason"].is_null().to_numpy())
    exact: Int64 = np.where(alive, numbers, -1)
    near: Int64 = exact.copy()
    size: Int32 = alive.astype(np.int32)
    exact[rows], near[rows], size[rows] = nodes.exact, nodes.near, nodes.size
    survivor = np.full(n, None, dtype=object)
    removed = stays.near != nodes.document
    survivor[rows[removed]] = stays.ids.filter(pa.array(removed)).to_numpy(zero_copy_only=False)
    reason[rows[removed]] = "near_duplicate"
    reason[rows[stays.exact != nodes.document]] = "exact_duplicate"
    reason[rows[nodes.earlier >= 0]] = "in_earlier_run"
    renamed = np.zeros(n, np.bool_)
    renamed[read_names(job, unit)[0] - first] = True
    ids = about["id"].chunk(0) if n else pa.array([], pa.string())
    return Verdicts(
        id=unique_ids(job, unit, ids, numbers),
        renamed=renamed,
        exact_cluster=exact,
        near_cluster=near,
        cluster_size=size,
        duplicate_of=pa.array(survivor, pa.string()),
        reason=pa.array(reason, pa.string()),
    )


def survivors(job: Job, unit: int, alive: Bool) -> tuple[Bool, Int64]:
    """Which documents of an input unit stay, and the sizes of their clusters.

    Args:
        job: of the run.
        unit: of the input.
        alive: bool[n], documents that take part in deduplication.

    Returns:
        bool[n] and int64[n].

    Raises:
        DamagedError: a file of an earlier phase is missing or damaged.
    """
    first, nodes = read_nodes(job, unit)
    rows = nodes.document - first
    stay, size = alive.copy(), alive.astype(np.int64)
    stay[rows] = read_survivors(job, unit).near == nodes.document
    size[rows] = nodes.size
    return stay, size
