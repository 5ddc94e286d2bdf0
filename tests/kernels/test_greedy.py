"""Decisions in graphs are those of a reader who goes from best to worst."""

from __future__ import annotations

import numpy as np
import pytest

from filters.kernels.greedy import KEPT, REMOVED, UNDECIDED, decide


@pytest.mark.parametrize("seed", range(20))
def test_all_is_decided_as_a_sequential_reader_would(seed: int) -> None:
    draw = np.random.default_rng(seed)
    nodes = int(draw.integers(1, 300))
    rank = draw.permutation(nodes)
    pairs = draw.integers(0, nodes, (int(draw.integers(0, 4 * nodes)), 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    better = np.where(rank[pairs[:, 0]] < rank[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    worse = pairs.sum(axis=1) - better
    expected = np.full(nodes, KEPT, np.uint8)
    for node in np.argsort(rank, kind="stable").tolist():
        if expected[node] == KEPT:
            expected[worse[better == node]] = REMOVED
    status = np.zeros(nodes, np.uint8)
    decide(better, worse, np.ones(nodes, np.bool_), status)
    assert status.tolist() == expected.tolist()
    # Closed nodes stay as they are, and what depends on them is left open, but nothing is decided otherwise.
    here = draw.random(nodes) < 0.7
    status = np.zeros(nodes, np.uint8)
    decide(better, worse, here, status)
    assert (status[~here] == UNDECIDED).all()
    decided = status != UNDECIDED
    assert (status[decided] == expected[decided]).all()
    known = np.where(here, 0, expected).astype(np.uint8)
    decide(better, worse, here, known)
    assert known.tolist() == expected.tolist()


def test_a_chain_of_a_million_is_decided_at_once() -> None:
    nodes = 1_000_000
    order = np.random.default_rng(0).permutation(nodes)
    status = np.zeros(nodes, np.uint8)
    decide(order[:-1], order[1:], np.ones(nodes, np.bool_), status)
    assert (status[order[::2]] == KEPT).all()
    assert (status[order[1::2]] == REMOVED).all()
