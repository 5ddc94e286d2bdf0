"""Upsampling: how many times a document is written, by the size of its cluster or by its score."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import xxhash

from filters.arrays import Float32, Int64
from filters.config.filter import RepeatConfig


def copies(config: RepeatConfig, sizes: Int64, scores: Float32, ids: pa.Array) -> Int64:
    """int64[n]: times to write each document, from 1 to `config.max`.

    Where the curve gives a fraction, 1.3 say, 30 % of the documents are written twice and 70 % once: those whose id
    has a hash (xxh3-64 over the range of uint64) below the fraction. So it depends on a document's id alone.

    Args:
        config: the curve and the cap.
        sizes: int64[n], documents in the cluster.
        scores: float32[n].
        ids: string[n], unique.
    """
    place = (sizes if config.by == "cluster_size" else scores).astype(np.float64)
    times = place
    if config.curve:
        points = np.array(config.curve, np.float64)
        times = np.interp(place, points[:, 0], points[:, 1])
    times = np.clip(times, 1, config.max)
    whole = np.floor(times)
    drawn = times > whole
    whole[drawn] += _uniform(ids.filter(pa.array(drawn))) < (times - whole)[drawn]
    return whole.astype(np.int64)


def _uniform(ids: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(i.encode()) / 2**64 for i in ids.to_pylist()), np.float64, len(ids))
