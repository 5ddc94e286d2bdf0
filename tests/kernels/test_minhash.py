"""MinHash and shingle sets, against plain Python."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from filters.arrays import Bool, Int64
from filters.kernels.minhash import (
    CONTAINMENT,
    JACCARD,
    alike_in_buckets,
    band_keys,
    shingle_sets,
    signatures,
    similarities,
)
from filters.kernels.packed import PackedText, Ragged
from filters.kernels.words import WordHashes, word_hashes
from tests.kernels.hostile import TEXTS

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15

NO_KINDS = np.zeros(0, np.uint8)


def finish(h: int) -> int:
    h = ((h ^ (h >> 32)) * 0xD6E8FEB86659FD93) & MASK
    return h ^ (h >> 32)


def permutations(count: int, seed: int) -> list[tuple[int, int]]:
    drawn = []
    state = seed
    for _ in range(count):
        state = (state + GOLDEN) & MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        drawn.append(((z >> 32) | 1, z & 0xFFFFFFFF))
    return drawn


def shingles_of(words: list[int], shingle: int) -> set[int]:
    width = min(shingle, len(words))
    shingles = set()
    for first in range(len(words) - width + 1):
        h = 0
        for word in words[first : first + width]:
            h = ((h + word) * GOLDEN) & MASK
        shingles.add(finish(h))
    return shingles


def signature_of(shingles: set[int], drawn: list[tuple[int, int]]) -> list[int]:
    low = {x & 0xFFFFFFFF for x in shingles}
    return [min(((x ^ add) * multiply) & 0xFFFFFFFF for x in low) for multiply, add in drawn]


def keys_of(shingles: set[int], signature: list[int], bands: int, rows: int) -> list[int]:
    if len(shingles) == 1:
        (only,) = shingles
        return [finish(((only ^ (band + 1)) * GOLDEN) & MASK) for band in range(bands)]
    keys = []
    for band in range(bands):
        h = band + 1
        for minimum in signature[band * rows : (band + 1) * rows]:
            h = finish(((h ^ minimum) * GOLDEN) & MASK)
        keys.append(h)
    return keys


@pytest.mark.parametrize(("shingle", "bands", "rows", "seed"), [(5, 14, 8, 1), (1, 3, 2, 0), (2, 1, 1, 2**63 - 1)])
def test_matches_the_reference(shingle: int, bands: int, rows: int, seed: int) -> None:
    words = word_hashes(PackedText.from_bytes([text for text in TEXTS if len(text) < 5000]))
    keys, has_signature = band_keys(words, shingle=shingle, bands=bands, rows=rows, seed=seed)
    minima, has_minima = signatures(words, shingle=shingle, bands=bands, rows=rows, seed=seed)
    drawn = permutations(bands * rows, seed)
    np.testing.assert_array_equal(has_signature, has_minima)
    assert keys.shape == (len(words), bands)
    assert minima.shape == (len(words), bands * rows)
    for row in range(len(words)):
        own = words.hashes[words.offsets[row] : words.offsets[row + 1]].tolist()
        assert has_signature[row] == bool(own)
        if own:
            shingles = shingles_of(own, shingle)
            assert minima[row].tolist() == signature_of(shingles, drawn)
            assert keys[row].tolist() == keys_of(shingles, minima[row].tolist(), bands, rows)
        else:
            assert not keys[row].any()


def test_no_texts() -> None:
    keys, has_signature = band_keys(word_hashes(PackedText.from_bytes([])))
    assert keys.shape == (0, 14)
    assert has_signature.shape == (0,)


def test_short_texts_have_one_shingle_of_all_their_words() -> None:
    texts = ["one two", "One, TWO!", "one two three", "two one", "", "..."]
    keys, has_signature = band_keys(word_hashes(PackedText.from_strings(texts)))
    assert has_signature.tolist() == [True, True, True, True, False, False]
    assert keys[0].tolist() == keys[1].tolist()
    assert not set(keys[0].tolist()) & set(keys[2].tolist())
    assert not set(keys[0].tolist()) & set(keys[3].tolist())


def test_texts_of_one_shingle_share_keys_only_if_their_words_are_equal() -> None:
    texts = [f"w{n} v" for n in range(150_000)]
    texts += [" ".join([f"x{n}"] * (1 + n % 9)) for n in range(50_000)]
    keys, _ = band_keys(word_hashes(PackedText.from_strings(texts)))
    for band in keys.T:
        assert len(np.unique(band)) == len(texts)
    again, _ = band_keys(word_hashes(PackedText.from_strings(["x7 " * 8, "x7 " * 20, "x7 " * 5, "x7 " * 4])))
    assert again[0].tolist() == again[1].tolist() == again[2].tolist() != again[3].tolist()


def _joined(similarity: float, shingles: int, pairs: int) -> tuple[Bool, float]:
    """Whether each of so many pairs of texts shares a band key, and the Jaccard similarity they really have."""
    draw = np.random.default_rng(round(similarity * 1000) + shingles)
    shared = round(2 * shingles * similarity / (1 + similarity))
    words, common = shingles + 4, shared + 4
    texts = draw.integers(0, 2**64, (pairs, 2, words), np.uint64)
    texts[:, 1, :common] = texts[:, 0, :common]
    keys, _ = band_keys(WordHashes(texts.ravel(), np.arange(0, 2 * pairs * words + 1, words), NO_KINDS))
    keys = keys.reshape(pairs, 2, -1)
    return (keys[:, 0] == keys[:, 1]).any(axis=1), shared / (2 * shingles - shared)


@pytest.mark.parametrize("shingles", [60, 400])
@pytest.mark.parametrize("similarity", [0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
def test_probability_of_a_shared_band_follows_the_theory(similarity: float, shingles: int) -> None:
    joined, exact = _joined(similarity, shingles, pairs=10_000)
    assert joined.mean() == pytest.approx(1 - (1 - exact**8) ** 14, abs=0.02)


def test_dissimilar_texts_share_no_band() -> None:
    joined, _ = _joined(0.1, 200, pairs=5_000)
    assert not joined.any()


def test_row_agreement_estimates_the_similarity() -> None:
    draw = np.random.default_rng(3)
    texts = draw.integers(0, 2**64, (2000, 2, 300), np.uint64)
    texts[:, 1, :200] = texts[:, 0, :200]
    minima, _ = signatures(WordHashes(texts.ravel(), np.arange(0, 4000 * 300 + 1, 300), NO_KINDS), shingle=1)
    minima = minima.reshape(2000, 2, -1)
    agreement = (minima[:, 0] == minima[:, 1]).mean(axis=1)
    assert agreement.mean() == pytest.approx(0.5, abs=0.005)
    assert agreement.std() == pytest.approx((0.25 / 112) ** 0.5, rel=0.15)


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
    found = shingle_sets(WordHashes(words.values, words.offsets, NO_KINDS), shingle=3)
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
