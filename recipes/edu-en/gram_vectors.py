"""Vectors of grams (tokens and pairs of them) that add up to an encoder's view of a page.

Ridge regression from the tf-idf vector of a page's grams to the leading principal components of what the encoder's
layers hold of that page: the encoder taught to a table, without a label (Hinton et al. 2015 distil a model's outputs;
Romero et al. 2015 its hidden layers). Solved in the dual, so its cost grows with the cube of the number of pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

from filters.arrays import Float32, Int64, UInt64
from filters.kernels.packed import PackedText
from filters.kernels.static import pair_hashes, static_tokens


@dataclass(frozen=True)
class Grams:
    """The grams of n texts.

    Attributes:
        keys: uint64[v], single tokens first, both parts from the most to the least frequent.
        singles: how many of them are single tokens.
        idf: float32[v], of values float16 holds exactly.
        matrix: float32[n, v], sparse: (1 + ln count) * idf of each text, divided by its length.
    """

    keys: UInt64
    singles: int
    idf: Float32
    matrix: Any


def count_grams(texts: list[str], singles: int, pairs: int, min_df: int) -> Grams:
    """Count the grams that most texts have.

    Args:
        texts: n texts.
        singles: single tokens at most.
        pairs: pairs at most.
        min_df: leave out what fewer texts have.
    """
    tokens = static_tokens(PackedText.from_strings(texts))
    row = np.repeat(np.arange(len(texts)), np.diff(tokens.offsets))
    inside = row[1:] == row[:-1]
    neighbours = pair_hashes(tokens.hashes[:-1], tokens.hashes[1:])[inside]
    one, two = _counts(row, tokens.hashes, len(texts)), _counts(row[1:][inside], neighbours, len(texts))
    first = _most(*one, min_df, singles, np.empty(0, np.uint64))
    second = _most(*two, min_df, pairs, one[0][first])
    keys = np.r_[one[0][first], two[0][second]]
    counts = sparse.hstack([one[1][:, first], two[1][:, second]], format="csr")
    frequency = np.bincount(counts.indices, minlength=len(keys))
    idf = (np.log((1 + len(texts)) / (1 + frequency)) + 1).astype(np.float16).astype(np.float32)
    counts.data = (1 + np.log(counts.data)) * idf[counts.indices]
    length = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
    counts.data /= np.repeat(np.maximum(length, 1e-6), np.diff(counts.indptr))
    return Grams(keys, len(first), idf, counts.astype(np.float32))


def _counts(row: Int64, hashes: UInt64, texts: int) -> tuple[UInt64, Any]:
    keys, column = np.unique(hashes, return_inverse=True)
    matrix = sparse.coo_array((np.ones(len(row)), (row, column)), shape=(texts, len(keys))).tocsr()
    matrix.sum_duplicates()
    return keys, matrix


def _most(keys: UInt64, counts: Any, least: int, room: int, taken: UInt64) -> Int64:
    """Columns of the keys that most texts have, most frequent first, so that those stay together in the cache."""
    frequency = np.bincount(counts.indices, minlength=len(keys))
    frequency[np.isin(keys, taken) | (keys == 0)] = 0
    order = np.lexsort((keys, -frequency))
    chosen: Int64 = order[frequency[order] >= max(least, 1)][:room]
    return chosen


def gram_vectors(grams: Grams, targets: Float32, l2: float, groups: Int64, folds: int) -> tuple[Float32, Float32]:
    """Fit the vectors, and say what they would predict of pages they have not seen.

    Args:
        grams: of n texts.
        targets: float32[n, d].
        l2: the penalty; rows of the matrix have length 1.
        groups: int64[n]; texts that are not to see each other's targets.
        folds: parts of the cross-fitting.

    Returns:
        (vectors float32[v, d]; predictions float32[n, d] of each text by vectors fitted without its group).
    """
    x = grams.matrix
    kernel = np.asarray((x @ x.T).todense(), np.float32)
    fold = groups % folds
    predicted = np.zeros_like(targets)
    for number in range(folds):
        rows, others = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if len(rows) and len(others):
            mean = targets[rows].mean(axis=0)
            dual = _solve(kernel[np.ix_(rows, rows)], targets[rows] - mean, l2)
            predicted[others] = kernel[np.ix_(others, rows)] @ dual
    dual = _solve(kernel, targets - targets.mean(axis=0), l2)
    return np.asarray(x.T @ dual, np.float32), predicted


def _solve(kernel: Float32, targets: Float32, l2: float) -> Float32:
    kernel[np.diag_indices(len(kernel))] += np.float32(l2)
    factor = cho_factor(kernel, lower=True, overwrite_a=True, check_finite=False)
    return np.asarray(cho_solve(factor, targets, check_finite=False), np.float32)
