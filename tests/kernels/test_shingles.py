"""Shingle sets and their Jaccard similarity, against Python's sets."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from filters.arrays import Int64
from filters.kernels.packed import PackedText
from filters.kernels.ragged import Ragged
from filters.kernels.shingles import CONTAINMENT, JACCARD, alike_in_buckets, shingle_sets, similarities
from filters.kernels.words import WordHashes, word_hashes
from tests.kernels.hostile import TEXTS


def sets_of(sets: list[set[int]]) -> Ragged:
    values = np.array([h for some in sets for h in sorted(some)], np.uint32)
    return Ragged.of_lengths(values, np.array([len(some) for some in sets], np.int64))


def test_shingles_are_those_of_the_text() -> None:
    texts = ["a b c d", "a b c d a b c d", "a b", "", "Ä! b, c"]
    words = word_hashes(PackedText.from_strings(texts))
    found = shingle_sets(words, shingle=3)
    rows = [found.values[found.offsets[row] : found.offsets[row + 1]].tolist() for row in range(5)]
    assert [len(row) for row in rows] == [2, 4, 2, 0, 3]  # the last two that are not empty: their words
    assert {*rows[0]} < {*rows[1]}
    assert all(row == sorted({*row}) for row in rows)
    assert {*rows[2]} < {*shingle_sets(word_hashes(PackedText.from_strings(["b x a"])), shingle=3).values.tolist()}


def test_hostile_texts_have_as_many_shingles_as_they_have_distinct_runs_of_words() -> None:
    words = word_hashes(PackedText.from_bytes(TEXTS))
    found = shingle_sets(words, shingle=5)
    for row in range(len(TEXTS)):
        run = words.hashes[words.offsets[row] : words.offsets[row + 1]].tolist()
        width = 5 if len(run) > 5 else 1
        assert found.lengths[row] == len({tuple(run[n : n + width]) for n in range(len(run) - width + 1)})


def test_shingles_ascend_however_often_a_text_says_the_same() -> None:
    draw = np.random.default_rng(1)
    rows = [
        [1] * 5_000,
        [1, 2] * 2_500,
        draw.integers(0, 4, 3_000).tolist(),
        draw.integers(0, 10**6, 3_000).tolist(),
        [7],
    ]
    lengths = np.array([len(row) for row in rows])
    words = Ragged.of_lengths(np.concatenate(rows).astype(np.uint64), lengths)
    found = shingle_sets(WordHashes(words.values, words.offsets), shingle=3)
    for row, some in enumerate(rows):
        width = 3 if len(some) > 3 else 1
        values = found.values[found.offsets[row] : found.offsets[row + 1]].tolist()
        assert values == sorted(set(values))
        assert len(values) == len({tuple(some[n : n + width]) for n in range(len(some) - width + 1)})


def test_similarities_are_those_of_sets() -> None:
    draw = np.random.default_rng(0)
    sets = [set(draw.integers(0, 300, draw.integers(0, 200)).tolist()) for _ in range(60)] + [set(), set()]
    one, other = (draw.integers(0, len(sets), 500) for _ in range(2))
    for measure in (JACCARD, CONTAINMENT):
        found = similarities(sets_of(sets), one, other, measure)
        for a, b, similarity in zip(one.tolist(), other.tolist(), found.tolist(), strict=True):
            whole = sets[b] if measure == CONTAINMENT else sets[a] | sets[b]
            expected = len(sets[a] & sets[b]) / len(whole) if whole else float(not sets[a] | sets[b])
            assert similarity == expected


def buckets_of(groups: list[list[list[int]]]) -> tuple[Int64, Int64, Any, Ragged]:
    """Groups of buckets of documents, as the kernel takes them."""
    numbers, members, masks, rows = [], [], [], []
    for buckets in groups:
        place = {document: len(members) + n for n, document in enumerate(sorted({d for some in buckets for d in some}))}
        members += place
        masks += [sum(1 << n for n, some in enumerate(buckets) if document in some) for document in place]
        rows += [[place[document] for document in some] for some in buckets]
        numbers += range(len(buckets))
    words = max(1, -(-max(map(len, groups), default=1) // 64))
    split = np.array([[mask >> 64 * n & (2**64 - 1) for n in range(words)] for mask in masks], np.uint64)
    ragged = Ragged.of_lengths(np.array([m for row in rows for m in row], np.int64), np.array([len(r) for r in rows]))
    return np.array(numbers), np.array(members), split.reshape(-1, words), ragged


NOBODY = np.zeros(80, np.bool_)


def test_what_is_like_a_document_that_surely_stays_is_compared_with_none_after_it() -> None:
    sets = sets_of([{1, 2, 3, 4}, {1, 2, 3, 4}, {1, 2, 3, 5}, {1, 2, 3, 4}, {9}])
    numbers, members, masks, rows = buckets_of([[[0, 1, 2, 3, 4], [1, 2, 3]], [[0, 3, 4]]])
    for sure, tried in (([], 10 + 3), ([0], 4 + 2 + 2), ([0, 4], 4 + 2 + 2)):
        stays = NOBODY[:5].copy()
        stays[sure] = True
        better, worse, _, compared = alike_in_buckets(
            sets, np.arange(5), numbers, members, masks, rows, 0.7, JACCARD, stays
        )
        pairs = [*zip(better.tolist(), worse.tolist(), strict=True)]
        assert {(0, 1), (0, 3)} <= {*pairs}
        assert compared == tried
        assert ((1, 3) in pairs) == (not sure)  # 1 is gone, so nothing follows of it


def test_every_pair_that_shares_a_bucket_is_compared_once_and_the_alike_are_found() -> None:
    draw = np.random.default_rng(1)
    for bands in (3, 130):
        sets = [set(draw.integers(0, 40, 25).tolist()) for _ in range(80)]
        order = draw.permutation(80)
        order[:5] -= 100  # of earlier runs
        groups = [
            [
                draw.choice(np.arange(first, first + 40), 3 if bands > 100 else 20, replace=False).tolist()
                for _ in range(bands)
            ]
            for first in (0, 40)
        ]
        for measure, least in ((JACCARD, 0.3), (CONTAINMENT, 0.5), (JACCARD, 1.0)):
            numbers, members, masks, rows = buckets_of(groups)
            better, worse, similarity, compared = alike_in_buckets(
                sets_of(sets), order, numbers, members, masks, rows, least, measure, NOBODY
            )
            met = {
                tuple(sorted(pair, key=lambda n: order[n]))
                for buckets in groups
                for some in buckets
                for pair in itertools.combinations(some, 2)
                if max(order[n] for n in pair) >= 0
            }
            assert compared == len(met)
            found = dict(zip(zip(better.tolist(), worse.tolist(), strict=True), similarity.tolist(), strict=True))
            expected = {}
            for a, b in met:
                whole = len(sets[b]) if measure == CONTAINMENT else len(sets[a] | sets[b])
                if len(sets[a] & sets[b]) / whole >= least:
                    expected[a, b] = len(sets[a] & sets[b]) / whole
            assert found == expected
            assert len(found) == len(better)
            assert found or least == 1.0
