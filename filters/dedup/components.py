"""Clusters: connected components over the documents that have any duplicate, and the best document of each.

A document without duplicates costs one bit. A node, which is a document with at least one duplicate, costs 4 bytes in
each of the two union-finds (exact and near), and 13 more while the clusters are written out: 21 bytes and its share of
the bitmap.

Near duplicates are transitive, as in datatrove: where a resembles b and b resembles c, the three are one cluster even
if a and c have no band in common. Exact duplicates are part of the cluster of any of their copies.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.kernels.arrays import Bool, Float32, Int64, UInt64
from filters.kernels.pairs import flatten, has_others, mark, members, ranks, roots_of, sizes_of, smallest_by_root, unite

Pairs = Callable[[], Iterable[Int64]]
"""Yields chunks of pairs, int64[m, 2]; called once for each pass."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """A stretch of nodes, ascending by document.

    Attributes:
        document: int64[n], running number of the document in the run.
        exact: int64[n], number of the first document with the same normalised text.
        near: int64[n], number of the first document of the cluster.
        size: int64[n], documents in the cluster.
        copied: bool[n], whether another document has the same normalised text.
        earlier: int64[n], number of the document of an earlier run that the cluster is a copy of; -1 if there is none.
    """

    document: Int64
    exact: Int64
    near: Int64
    size: Int64
    copied: Bool
    earlier: Int64


class Clusters:
    """Merges pairs of documents. The result depends on the set of pairs alone, not on their order.

    Args:
        documents: in the run.
        exact: pairs with the same normalised text.
        near: pairs that share a band key.
        hits: pairs (document, number of a document of an earlier run).
    """

    def __init__(self, documents: int, exact: Pairs, near: Pairs, hits: Pairs) -> None:
        self._words: UInt64 = np.zeros(-(-documents // 64), np.uint64)
        for pairs in exact(), near():
            for chunk in pairs:
                mark(self._words, chunk.reshape(-1))
        for chunk in hits():
            mark(self._words, np.ascontiguousarray(chunk[:, 0]))
        self._blocks: Int64 = ranks(self._words)
        self.count = int(self._blocks[-1])
        kind = np.uint32 if self.count <= 2**32 else np.int64
        self._exact: npt.NDArray[np.integer] = np.arange(self.count, dtype=kind)
        for chunk in exact():
            unite(self._exact, self._words, self._blocks, chunk)
        self._near = self._exact.copy()
        for chunk in near():
            unite(self._near, self._words, self._blocks, chunk)
        flatten(self._exact)
        flatten(self._near)
        self._earlier = hits

    @property
    def nbytes(self) -> int:
        """Bytes held, without what `nodes` needs for itself."""
        return self._words.nbytes + self._blocks.nbytes + self._exact.nbytes + self._near.nbytes

    def roots(self, pairs: Int64) -> Int64:
        """int64[n]: the first document of the cluster of each pair, int64[n, 2], of those that were merged."""
        one = np.ascontiguousarray(pairs[:, 0])
        return np.asarray(self._documents[roots_of(self._near, self._words, self._blocks, one)])

    @functools.cached_property
    def _documents(self) -> Int64:
        return np.asarray(members(self._words, self.count))

    def nodes(self, bounds: Int64) -> Iterator[Nodes]:
        """The nodes of each stretch of documents bounds[i] <= number < bounds[i + 1].

        Args:
            bounds: int64[m + 1], ascending.
        """
        documents = self._documents
        sizes, copied = sizes_of(self._near), has_others(self._exact)
        hits = list(self._earlier())
        roots, earliest = smallest_by_root(self._near, self._words, self._blocks, hits)
        cuts = np.searchsorted(documents, bounds).tolist()
        for start, stop in itertools.pairwise(cuts):
            near = self._near[start:stop].astype(np.int64)
            place = np.minimum(np.searchsorted(roots, near), max(len(roots) - 1, 0))
            earlier = np.full(len(near), -1, np.int64)
            if len(roots):
                earlier = np.where(roots[place] == near, earliest[place], -1)
            yield Nodes(
                documents[start:stop],
                documents[self._exact[start:stop]],
                documents[near],
                sizes[near].astype(np.int64),
                copied[self._exact[start:stop]],
                earlier,
            )


def best_first(group: Int64, score: Float32, length: Int64, ids: pa.Array, document: Int64) -> Int64:
    """Order n documents by group, the best of each group first.

    The best has the highest score, then the longest text, then the smallest id (compared as UTF-8), then the smallest
    number. A score that is not a number is worse than all others.

    Returns:
        int64[n]: row numbers.
    """
    score = np.where(np.isnan(score), np.float32(-np.inf), score) + np.float32(0)  # -0 and 0 are the same score
    table = pa.table({"group": group, "score": score, "length": length, "id": ids, "document": document})
    keys = [("group", "ascending"), ("score", "descending"), ("length", "descending"), ("id", "ascending")]
    return np.asarray(pc.sort_indices(table, sort_keys=[*keys, ("document", "ascending")]).to_numpy().astype(np.int64))


def firsts(group: Int64) -> Bool:
    """bool[n]: whether a row is the first of its group; `group` is sorted."""
    return np.concatenate([np.ones(min(len(group), 1), np.bool_), group[1:] != group[:-1]])
