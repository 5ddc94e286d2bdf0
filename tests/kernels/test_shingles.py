"""Shingle sets and their Jaccard similarity, against Python's sets."""

from __future__ import annotations

import itertools

import numpy as np

from filters.kernels.arrays import Int64
from filters.kernels.packed import PackedText
from filters.kernels.shingles import EVERY_PAIR, shingle_sets, verify_stars
from filters.kernels.words import word_hashes
from tests.kernels.hostile import TEXTS


def sets_of(sizes: list[set[int]]) -> tuple[np.ndarray, Int64]:
    hashes = np.array([h for some in sizes for h in sorted(some)], np.uint32)
    return hashes, np.cumsum([0, *map(len, sizes)])


def test_shingles_are_those_of_the_text() -> None:
    texts = ["a b c d", "a b c d a b c d", "a b", "", "Ä! b, c"]
    words = word_hashes(PackedText.from_strings(texts))
    hashes, offsets = shingle_sets(words, shingle=3)
    parts = [set(hashes[offsets[row] : offsets[row + 1]].tolist()) for row in range(5)]
    assert [len(part) for part in parts] == [2, 4, 1, 0, 1]
    assert parts[0] < parts[1]
    assert all(sorted(part) == hashes[offsets[r] : offsets[r + 1]].tolist() for r, part in enumerate(parts))


def test_hostile_texts_have_as_many_shingles_as_they_have_distinct_runs_of_words() -> None:
    words = word_hashes(PackedText.from_bytes(TEXTS))
    _, offsets = shingle_sets(words, shingle=5)
    for row in range(len(TEXTS)):
        run = words.hashes[words.offsets[row] : words.offsets[row + 1]].tolist()
        width = min(5, len(run))
        expected = {tuple(run[n : n + width]) for n in range(len(run) - width + 1)} if run else set()
        assert offsets[row + 1] - offsets[row] == len(expected)


def clusters(count: int, joined: Int64) -> list[set[int]]:
    group = {n: {n} for n in range(count)}
    for one, other in joined.tolist():
        merged = group[one] | group[other]
        group |= dict.fromkeys(merged, merged)
    return [group[n] for n in range(count)]


def test_a_star_is_parted_into_what_is_alike() -> None:
    """0 and 1 are alike, 2 and 3 are alike, and neither pair resembles the other; 4 is like 3 but not like 2."""
    base, other = set(range(100)), set(range(1000, 1100))
    sets = [base, base | {500}, other, other | set(range(2000, 2015)), set(range(1020, 1100)) | set(range(2000, 2015))]
    hashes, offsets = sets_of(sets)
    pairs = np.array([[0, 1], [0, 2], [0, 3], [0, 4]])
    joined, roots, compared = verify_stars(hashes, offsets, pairs, 0.8)
    assert clusters(5, joined) == [{0, 1}, {0, 1}, {2, 3, 4}, {2, 3, 4}, {2, 3, 4}]
    assert roots.tolist() == [0, 0, 2, 2, 2]
    assert compared <= 10
    assert len(verify_stars(hashes, offsets, pairs, 0.0)[0]) == 4
    assert len(verify_stars(hashes, offsets, pairs, 1.0)[0]) == 0


def test_random_stars_follow_the_true_similarity() -> None:
    draw = np.random.default_rng(0)
    sets = []
    for _ in range(30):
        base = set(draw.integers(0, 2**32, 200).tolist())
        for share in (0.0, 0.05, 0.15, 0.5):
            kept = set(draw.permutation(sorted(base))[: round(len(base) * (1 - share))].tolist())
            sets.append(kept | set(draw.integers(0, 2**32, 200 - len(kept)).tolist()))
    hashes, offsets = sets_of(sets)
    pairs = np.array([[4 * n, 4 * n + k] for n in range(30) for k in (1, 2, 3)] + [[0, n] for n in range(4, 60)])
    pairs = np.unique(pairs, axis=0)
    joined, roots, _ = verify_stars(hashes, offsets, pairs, 0.7)
    for one, other in joined.tolist():
        assert len(sets[one] & sets[other]) >= 0.7 * len(sets[one] | sets[other])
    for one, other in pairs.tolist():
        if len(sets[one] & sets[other]) >= 0.7 * len(sets[one] | sets[other]):
            assert roots[one] == roots[other]
    assert len(joined) >= 30


def test_a_large_group_of_strangers_is_not_compared_each_with_each() -> None:
    count = 40 * EVERY_PAIR
    hashes, offsets = sets_of([{3 * n, 3 * n + 1, 3 * n + 2} for n in range(count // 2)] * 2)
    pairs = np.array([[0, n] for n in range(1, count)])
    joined, roots, compared = verify_stars(hashes, offsets, pairs, 0.8)
    assert compared <= EVERY_PAIR * count
    assert [roots[n] == roots[n + count // 2] for n in range(EVERY_PAIR)] == [True] * EVERY_PAIR
    assert all(one % (count // 2) == other % (count // 2) for one, other in joined.tolist())


def test_nothing_to_verify() -> None:
    hashes, offsets = sets_of([])
    joined, roots, compared = verify_stars(hashes, offsets, np.empty((0, 2), np.int64), 0.8)
    assert (len(joined), len(roots), compared) == (0, 0, 0)
    empty, offsets = sets_of([set(), set()])
    assert len(verify_stars(empty, offsets, np.array([[0, 1]]), 0.8)[0]) == 1
    assert [*itertools.chain(*verify_stars(empty, offsets, np.array([[0, 1]]), 0.8)[0].tolist())] == [0, 1]
