"""Splits that do not leak: pages of one host and near copies of a page stay on the same side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from filters.arrays import Int64

Fold = tuple[Int64, Int64]

# 20 bands of 5 rows: 5-word shingle sets of Jaccard similarity .5 are found with probability .47, .7 with .98, .8 with
# 1 - 4e-4. A false pair only makes a group larger, so the bands lean towards finding too many.
_SHINGLE, _BANDS, _ROWS = 5, 20, 5


def near_pairs(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (first, other) of texts that share a MinHash band, so that they are nearly the same text."""
    from filters.kernels.minhash import band_keys
    from filters.kernels.packed import PackedText
    from filters.kernels.words import word_hashes

    keys, valid = band_keys(
        word_hashes(PackedText.from_strings(texts)), shingle=_SHINGLE, bands=_BANDS, rows=_ROWS, seed=1
    )
    rows = np.flatnonzero(valid)
    pairs: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        _, first, inverse = np.unique(keys[rows, band], return_index=True, return_inverse=True)
        other = rows[first[inverse]]
        pairs.update((int(a), int(b)) for a, b in zip(other, rows, strict=True) if a != b)
    return sorted(pairs)


def connected(count: int, pairs: Iterable[tuple[int, int]]) -> Int64:
    """int64[count]: number of the connected component of each of `count` nodes, in order of first member."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return np.unique([root(node) for node in range(count)], return_inverse=True)[1].astype(np.int64)


def group_folds(groups: Int64, positive: npt.NDArray[np.bool_], folds: int, random_state: int) -> list[Fold]:
    """Split rows into `folds` parts of whole groups with about the same number of rows and of positives each.

    Groups are shuffled, then dealt from the largest to the smallest to the part that has the fewest rows (groups with
    a positive member: the fewest positives).

    Args:
        groups: int64[n].
        positive: bool[n].
        folds: number of parts, at least 2.
        random_state: seed of the shuffle.

    Returns:
        (training rows, test rows) of each part, sorted.

    Raises:
        ValueError: fewer groups than parts.
    """
    names, inverse = np.unique(groups, return_inverse=True)
    if len(names) < folds:
        raise ValueError(f"{len(names)} groups cannot fill {folds} folds")
    size = np.bincount(inverse)
    positives = np.bincount(inverse, positive.astype(np.float64))
    order = np.random.default_rng(random_state).permutation(len(names))
    order = order[np.lexsort((-size[order], -positives[order]))]
    part = np.empty(len(names), dtype=np.int64)
    held = np.zeros((folds, 2))
    for group in order:
        # Positives first: they are scarce, and their groups come first in `order`.
        choice = np.lexsort((held[:, 1], held[:, 0]))[0] if positives[group] else np.argmin(held[:, 1])
        part[group] = choice
        held[choice] += (positives[group], size[group])
    fold = part[inverse]
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(folds)]
