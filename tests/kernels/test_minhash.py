from __future__ import annotations

import numpy as np
import pytest

from filters.arrays import Bool
from filters.kernels.minhash import band_keys, signatures
from filters.kernels.packed import PackedText
from filters.kernels.words import WordHashes, word_hashes
from tests.kernels.hostile import TEXTS

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


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
    keys, _ = band_keys(WordHashes(texts.ravel(), np.arange(0, 2 * pairs * words + 1, words)))
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
    minima, _ = signatures(WordHashes(texts.ravel(), np.arange(0, 4000 * 300 + 1, 300)), shingle=1)
    minima = minima.reshape(2000, 2, -1)
    agreement = (minima[:, 0] == minima[:, 1]).mean(axis=1)
    assert agreement.mean() == pytest.approx(0.5, abs=0.005)
    assert agreement.std() == pytest.approx((0.25 / 112) ** 0.5, rel=0.15)
