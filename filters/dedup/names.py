"""Ids that are unique in a whole run: which of the documents with one id gets which suffix."""

from __future__ import annotations

import numpy as np

from filters.arrays import Int64


def suffixes(pairs: Int64) -> tuple[Int64, Int64]:
    """Numbers for all but the first of the documents that share an id: "a", "a#2", "a#3", in input order.

    A number is left out where a document was given the id with that suffix by the input.

    Args:
        pairs: int64[m, 2] of (first document with the id, another document with it); or (first document, -k) where the
            input gave some document the id with suffix k. Pairs whose first number is negative are passed over.

    Returns:
        documents, ascending, and their numbers; int64[n] each.
    """
    pairs = pairs[pairs[:, 0] >= 0]
    taken = pairs[pairs[:, 1] < 0]
    pairs = pairs[pairs[:, 1] >= 0]
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    starts = np.flatnonzero(np.concatenate([np.ones(min(len(pairs), 1), bool), pairs[1:, 0] != pairs[:-1, 0]]))
    lengths = np.diff(np.append(starts, len(pairs)))
    numbers = np.arange(len(pairs)) - np.repeat(starts, lengths) + 2
    for first in np.unique(taken[:, 0]).tolist():
        start, stop = np.searchsorted(pairs[:, 0], [first, first + 1]).tolist()
        used = set((-taken[taken[:, 0] == first, 1]).tolist())
        free = (number for number in range(2, stop - start + len(used) + 2) if number not in used)
        numbers[start:stop] = [next(free) for _ in range(stop - start)]
    order = np.argsort(pairs[:, 1], kind="stable")
    return pairs[order, 1], numbers[order]
