"""Decisions that follow in a graph whose edges lead from better to worse documents, each document's from its own."""

from __future__ import annotations

import numba
import numpy as np

from filters.arrays import Bool, Int64, UInt8

UNDECIDED, KEPT, REMOVED = 0, 1, 2


def decide(better: Int64, worse: Int64, open_: Bool, status: UInt8) -> None:
    """Decide every open node of which the edges and the nodes that are decided already leave no doubt, in place.

    A node is removed if a better neighbour is kept, and kept if all its better neighbours are removed. Each edge is
    looked at twice at most, however long the chains are.

    Args:
        better, worse: int64[edges], nodes at the ends of each edge. There are no cycles.
        open_: bool[nodes], nodes that may be decided; all edges towards them from undecided nodes must be given.
        status: uint8[nodes], what is known before and after.
    """
    bounds = np.zeros(len(status) + 1, np.int64)
    np.cumsum(np.bincount(better, minlength=len(status)), out=bounds[1:])
    targets = np.ascontiguousarray(worse[np.argsort(better, kind="stable")])
    _decide(bounds, targets, open_, status)


@numba.njit(nogil=True, cache=True)
def _decide(bounds, targets, open_, status):  # type: ignore[no-untyped-def]
    nodes = len(status)
    waits = np.zeros(nodes, np.int64)
    for target in targets:
        waits[target] += 1
    stack = np.empty(nodes, np.int64)
    top = 0
    for node in range(nodes):
        if status[node] == UNDECIDED and open_[node] and waits[node] == 0:
            status[node] = KEPT
        if status[node] != UNDECIDED:
            stack[top] = node
            top += 1
    while top:
        top -= 1
        node = stack[top]
        for place in range(bounds[node], bounds[node + 1]):
            target = targets[place]
            if status[target] != UNDECIDED or not open_[target]:
                continue
            waits[target] -= 1
            if status[node] == KEPT:
                status[target] = REMOVED
            elif waits[target] == 0:
                status[target] = KEPT
            else:
                continue
            stack[top] = target
            top += 1
