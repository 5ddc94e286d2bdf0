"""True Jaccard similarity of candidate pairs, where `dedup.near.verify` asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from filters.kernels.arrays import Int64
from filters.pipeline.joins import NEAR, pairs_of
from filters.pipeline.phases import Job


def near_pairs(job: Job) -> Callable[[], Iterator[Int64]]:
    """Chunks of the pairs that make near clusters, int64[m, 2]."""
    return pairs_of(job, NEAR)
