"""Equal keys found without sorting, clusters merged in bitmaps and flat arrays: all against plain Python."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from filters.kernels.arrays import Int64, UInt64
from filters.kernels.pairs import (
    flatten,
    has_others,
    mark,
    marked,
    members,
    partition_of,
    ranks,
    roots_of,
    scatter,
    sizes_of,
    smallest_by_root,
    stars,
    unite,
)


def star_pairs(keys: UInt64, documents: Int64) -> set[tuple[int, int]]:
    first: dict[int, int] = {}
    pairs = set()
    for key, document in zip(keys.tolist(), documents.tolist(), strict=True):
        if first.setdefault(key, document) != document:
            pairs.add((first[key], document))
    return pairs


def entries(seed: int, count: int, distinct: int, per_document: int = 3) -> tuple[UInt64, Int64]:
    draw = np.random.default_rng(seed)
    pool = draw.integers(0, 2**64, distinct, np.uint64)
    return draw.choice(pool, count), np.arange(count) // per_document


@pytest.mark.parametrize(("count", "distinct"), [(0, 1), (1, 1), (2, 1), (50_000, 1), (50_000, 300), (50_000, 10**6)])
def test_stars_are_those_of_a_dictionary(count: int, distinct: int) -> None:
    keys, documents = entries(count + distinct, count, distinct)
    found = [tuple(pair) for chunk in stars(keys, documents) for pair in chunk.tolist()]
    assert set(found) == star_pairs(keys, documents)


def test_keys_that_crowd_one_bucket_make_its_table_grow() -> None:
    """All keys share their low half, by which buckets are chosen; a few share the high half's low bits too."""
    keys = np.arange(30_000, dtype=np.uint64) // np.uint64(2) << np.uint64(32 + 10)
    documents = np.arange(30_000)
    found = np.concatenate(list(stars(keys, documents)))
    assert sorted(found.tolist()) == [[n, n + 1] for n in range(0, 30_000, 2)]


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
        blocks = ranks(words)
        assert blocks[-1] == len(documents)
        assert members(words, len(documents)).tolist() == documents.tolist()
        assert roots_of(np.arange(len(documents)), words, blocks, documents).tolist() == list(range(len(documents)))


@pytest.mark.parametrize("kind", [np.uint32, np.int64])
def test_sets_are_merged_into_that_of_the_smallest(kind: type[np.uint32] | type[np.int64]) -> None:
    draw = np.random.default_rng(3)
    pairs = draw.integers(0, 4000, (1500, 2))
    group = {n: {n} for n in range(4000)}
    for one, other in pairs.tolist():
        if group[one] is not group[other]:
            merged = group[one] | group[other]
            group |= dict.fromkeys(merged, merged)
    words = np.zeros(63, np.uint64)
    mark(words, pairs.reshape(-1))
    blocks = ranks(words)
    documents = members(words, int(blocks[-1]))
    parents = np.arange(len(documents), dtype=kind)
    unite(parents, words, blocks, pairs)
    flatten(parents)
    assert documents[parents].tolist() == [min(group[d]) for d in documents.tolist()]
    sizes = sizes_of(parents)
    roots = documents[parents] == documents
    assert sizes[roots].tolist() == [len(group[d]) for d in documents[roots].tolist()]
    assert has_others(parents)[roots].tolist() == [len(group[d]) > 1 for d in documents[roots].tolist()]

    values = np.stack([draw.choice(documents, 200), draw.integers(0, 10**12, 200)], axis=1)
    smallest: dict[int, int] = defaultdict(lambda: 10**13)
    for document, value in values.tolist():
        smallest[min(group[document])] = min(value, smallest[min(group[document])])
    found, least = smallest_by_root(parents, words, blocks, [values[:150], values[150:]])
    assert dict(zip(documents[found].tolist(), least.tolist(), strict=True)) == smallest
