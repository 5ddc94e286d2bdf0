"""The order in which documents are better than each other: the best of a set of copies stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.arrays import Bool, Float32, Int64, UInt64


def best_first(group: Int64, score: Float32, length: Int64, ids: pa.Array, document: Int64) -> Int64:
    """Order n documents by group, the best of each group first.

    The best is one of an earlier run (its number is negative), then has the highest score, then the longest text, then
    the smallest id (compared as UTF-8), then the smallest number. A score that is not a number is worse than all
    others.

    Returns:
        int64[n]: row numbers.
    """
    score = np.where(np.isnan(score), np.float32(-np.inf), score) + np.float32(0)  # -0 and 0 are the same score
    table = pa.table(
        {"group": group, "new": document >= 0, "score": score, "length": length, "id": ids, "document": document}
    )
    keys = [("group", "ascending"), ("new", "ascending"), ("score", "descending"), ("length", "descending")]
    order = pc.sort_indices(table, sort_keys=[*keys, ("id", "ascending"), ("document", "ascending")])
    return np.asarray(order.to_numpy().astype(np.int64))


def coarse_order(score: Float32, length: Int64, document: Int64) -> UInt64:
    """uint64[n]: lower for a better document; equal where score and length are (lengths are cut at 2^32 - 1)."""
    bits = (np.where(np.isnan(score), np.float32(-np.inf), score) + np.float32(0)).astype(np.float32).view(np.uint32)
    ascending = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    low = np.uint64(2**32 - 1)
    longest = np.minimum(length, 2**32 - 1).astype(np.uint64)
    order = (low - ascending << np.uint64(32)) | (low - longest)
    return np.where(document < 0, np.uint64(0), order)


def position(ascending: npt.NDArray[Any], wanted: npt.NDArray[Any], *, behind: bool = False) -> Int64:
    """int64[n]: where each value belongs in an ascending array, before those that equal it or behind them."""
    return np.searchsorted(ascending, wanted, side="right" if behind else "left").astype(np.int64, copy=False)


def firsts(group: npt.NDArray[Any]) -> Bool:
    """bool[n]: whether a row is the first of its group; `group` is sorted."""
    return np.concatenate([np.ones(min(len(group), 1), np.bool_), group[1:] != group[:-1]])
