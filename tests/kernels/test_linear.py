from __future__ import annotations

import math
from collections import Counter
from typing import Literal

import numpy as np
import pytest

from filters.errors import ModelError
from filters.kernels.linear import hashed_features, score_hashed
from filters.kernels.packed import PackedText
from tests.kernels.hostile import TEXTS
from tests.kernels.test_words import hash_of, words_of

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def finish(h: int) -> int:
    h = ((h ^ (h >> 32)) * 0xD6E8FEB86659FD93) & MASK
    return h ^ (h >> 32)


def index_of(h: int, bits: int) -> int:
    return ((finish(h) * GOLDEN) & MASK) >> (64 - bits)


def features_of(text: bytes, bits: int, word_ngrams: int, char_ngrams: tuple[int, int] | None) -> Counter[int]:
    words = words_of(text)
    features: Counter[int] = Counter()
    for first in range(len(words)):
        h = 0
        for word in words[first : first + word_ngrams]:
            h = ((h + hash_of(word)) * 0xA24BAED4963EE407) & MASK
            features[index_of(h, bits)] += 1
    shortest, longest = char_ngrams or (1, 0)
    for word in words:
        framed = f" {word} "
        for size in range(shortest, longest + 1):
            for first in range(len(framed) - size + 1):
                h = 0x2545F4914F6CDD1D
                for character in framed[first : first + size]:
                    h = ((h ^ ord(character)) * GOLDEN) & MASK
                features[index_of(h, bits)] += 1
    return features


SHORT = [text for text in TEXTS if len(text) < 4000]
OPTIONS: list[tuple[int, int, tuple[int, int] | None]] = [
    (18, 2, None),
    (20, 1, None),
    (16, 3, (3, 5)),
    (10, 0, (1, 4)),
    (1, 2, (2, 2)),
]


@pytest.mark.parametrize(("bits", "word_ngrams", "char_ngrams"), OPTIONS)
def test_features_match_the_reference(bits: int, word_ngrams: int, char_ngrams: tuple[int, int] | None) -> None:
    found = hashed_features(PackedText.from_bytes(SHORT), bits=bits, word_ngrams=word_ngrams, char_ngrams=char_ngrams)
    assert found.indices.dtype == found.counts.dtype == np.uint32
    for row, text in enumerate(SHORT):
        entries = slice(found.offsets[row], found.offsets[row + 1])
        indices = found.indices[entries].tolist()
        assert len(set(indices)) == len(indices)
        counted = dict(zip(indices, found.counts[entries].tolist(), strict=True))
        assert counted == features_of(text, bits, word_ngrams, char_ngrams), text


@pytest.mark.parametrize(("bits", "word_ngrams", "char_ngrams"), OPTIONS)
@pytest.mark.parametrize("tf", ["count", "log", "binary"])
@pytest.mark.parametrize("norm", ["none", "l2"])
@pytest.mark.parametrize("weighted", [False, True])
def test_score_equals_the_product_with_the_features(
    bits: int,
    word_ngrams: int,
    char_ngrams: tuple[int, int] | None,
    tf: Literal["count", "log", "binary"],
    norm: Literal["none", "l2"],
    weighted: bool,
) -> None:
    draw = np.random.default_rng(bits)
    weights = draw.normal(size=2**bits).astype(np.float32)
    idf = draw.uniform(1, 9, 2**bits).astype(np.float32) if weighted else None
    packed = PackedText.from_bytes(TEXTS)
    matrix = hashed_features(packed, bits=bits, word_ngrams=word_ngrams, char_ngrams=char_ngrams, max_characters=500)
    found = score_hashed(
        packed,
        weights,
        word_ngrams=word_ngrams,
        char_ngrams=char_ngrams,
        max_characters=500,
        tf=tf,
        norm=norm,
        idf=idf,
        intercept=0.25,
    )
    assert found.dtype == np.float32
    for row in range(len(TEXTS)):
        entries = slice(matrix.offsets[row], matrix.offsets[row + 1])
        indices, counts = matrix.indices[entries], matrix.counts[entries].astype(np.float64)
        values = {"count": counts, "log": 1 + np.log(counts), "binary": np.ones(len(counts))}[tf]
        if idf is not None:
            values = values * idf[indices]
        length = math.sqrt((values**2).sum()) if norm == "l2" and len(values) else 1
        expected = 0.25 + (values * weights[indices]).sum() / length
        assert found[row] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_window_is_counted_in_characters() -> None:
    packed = PackedText.from_strings(["é" * 10 + " tail", "kort"])
    found = hashed_features(packed, bits=20, word_ngrams=1, max_characters=10)
    expected = hashed_features(PackedText.from_strings(["é" * 10, "kort"]), bits=20, word_ngrams=1)
    assert found.indices.tolist() == expected.indices.tolist()


def test_score_does_not_depend_on_the_batch() -> None:
    weights = np.random.default_rng(0).normal(size=2**16).astype(np.float32)
    whole = score_hashed(PackedText.from_bytes(TEXTS), weights, char_ngrams=(3, 4))
    for row in range(0, len(TEXTS), 13):
        assert score_hashed(PackedText.from_bytes([TEXTS[row]]), weights, char_ngrams=(3, 4))[0] == whole[row]


def test_no_texts_and_large_texts() -> None:
    weights = np.ones(2**10, np.float32)
    assert score_hashed(PackedText.from_bytes([]), weights).shape == (0,)
    assert hashed_features(PackedText.from_bytes([]), bits=10).offsets.tolist() == [0]
    large = PackedText.from_bytes([b"x" * 4_000_000, b"a b " * 500_000, b"\xff" * 1_000_000])
    assert hashed_features(large, bits=20, word_ngrams=2).counts.tolist() == [1, 500_000, 500_000, 500_000, 499_999]
    assert score_hashed(large, weights, norm="none", tf="binary", word_ngrams=1).tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    "options", [{"bits": 0}, {"bits": 40}, {"word_ngrams": -1}, {"char_ngrams": (0, 2)}, {"char_ngrams": (3, 2)}]
)
def test_options_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        hashed_features(PackedText.from_bytes([b"a"]), **({"bits": 10} | options))  # type: ignore[arg-type]


def test_bad_weights() -> None:
    packed = PackedText.from_bytes([b"a"])
    with pytest.raises(ModelError, match="shape"):
        score_hashed(packed, np.ones(1000, np.float32))
    with pytest.raises(ModelError, match="finite"):
        score_hashed(packed, np.full(1024, np.nan, np.float32))
    with pytest.raises(ModelError, match="idf"):
        score_hashed(packed, np.ones(1024, np.float32), idf=np.ones(512, np.float32))
    with pytest.raises(ValueError, match="tf"):
        score_hashed(packed, np.ones(1024, np.float32), tf="square")  # type: ignore[arg-type]
