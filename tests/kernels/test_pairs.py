"""Joins and decisions in graphs, against plain Python."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from filters.arrays import Int64, UInt64
from filters.kernels.pairs import KEPT, REMOVED, UNDECIDED, decide, mark, marked, scatter, stars

Row = tuple[int, int, int, int]


def partition_of(keys: UInt64, partitions: int) -> Int64:
    """int64[n]: the hash range of each key."""
    return np.array([(key >> 32) * partitions >> 32 for key in keys.tolist()], np.int64)


def star_rows(keys: UInt64, documents: Int64) -> set[Row]:
    """(first document, later one, key as int64, documents with the key), for documents that have no key twice."""
    groups: dict[int, list[int]] = defaultdict(list)
    for key, document in zip(keys.tolist(), documents.tolist(), strict=True):
        groups[key].append(document)
    return {
        (some[0], other, int(np.uint64(key).view(np.int64)), len(some))
        for key, some in groups.items()
        for other in some[1:]
    }


def entries(seed: int, count: int, distinct: int, per_document: int = 3) -> tuple[UInt64, Int64]:
    draw = np.random.default_rng(seed)
    pool = draw.integers(0, 2**64, distinct, np.uint64)
    keys = draw.choice(pool, count)
    documents = np.arange(count) // per_document
    _, once = np.unique(np.stack([keys, documents.astype(np.uint64)], axis=1), axis=0, return_index=True)
    return keys[np.sort(once)], documents[np.sort(once)]


@pytest.mark.parametrize(("count", "distinct"), [(0, 1), (1, 1), (2, 1), (50_000, 1), (50_000, 300), (50_000, 10**6)])
def test_stars_are_those_of_a_dictionary(count: int, distinct: int) -> None:
    keys, documents = entries(count + distinct, count, distinct)
    found = [tuple(pair) for chunk in stars(keys, documents) for pair in chunk.tolist()]
    assert set(found) == star_rows(keys, documents)


def test_keys_that_crowd_one_bucket_make_its_table_grow() -> None:
    """All keys share their low half, by which buckets are chosen; a few share the high half's low bits too."""
    keys = np.arange(30_000, dtype=np.uint64) // np.uint64(2) << np.uint64(32 + 10)
    documents = np.arange(30_000)
    found = np.concatenate(list(stars(keys, documents)))
    assert sorted(found[:, [0, 1, 3]].tolist()) == [[n, n + 1, 2] for n in range(0, 30_000, 2)]


@pytest.mark.parametrize("partitions", [1, 2, 7, 64])
def test_scatter_keeps_the_order_within_a_range(partitions: int) -> None:
    keys, documents = entries(1, 10_000, 10**6)
    new_keys, rows, offsets = scatter(keys, documents.astype(np.uint32), partitions)
    assert offsets[0] == 0
    assert offsets[-1] == len(keys)
    for number in range(partitions):
        chosen = partition_of(keys, partitions) == number
        cut = slice(offsets[number], offsets[number + 1])
        assert new_keys[cut].tolist() == keys[chosen].tolist()
        assert rows[cut].tolist() == documents[chosen].tolist()


def test_the_ends_of_the_key_space_fall_into_the_end_ranges() -> None:
    assert partition_of(np.array([0, 2**64 - 1, 2**63], np.uint64), 6).tolist() == [0, 5, 3]


def test_bitmaps() -> None:
    draw = np.random.default_rng(2)
    for total in (1, 64, 65, 5000):
        documents = np.unique(draw.integers(0, total, total // 3 + 1))
        words = np.zeros(-(-total // 64), np.uint64)
        mark(words, documents)
        assert np.flatnonzero(marked(words, np.arange(total))).tolist() == documents.tolist()


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
