from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from filters.kernels.packed import PackedText
from filters.kernels.tokens import COEFFICIENTS, FEATURES, LONGEST, token_estimate, token_features
from tests.kernels.hostile import TEXTS


def features_of(text: bytes) -> list[int]:
    words = [re.findall(rb"[\x80-\xbf]*([A-Za-z\xc0-\xdf])", word) for word in _words(text)]
    lengths = [len(word) for word in words]
    return [
        *(sum(length == wanted for length in lengths) for wanted in range(1, LONGEST)),
        sum(length >= LONGEST for length in lengths),
        sum(max(0, length - LONGEST) for length in lengths),
        sum(letter.isupper() for word in words for letter in word[1:]),
        len(re.findall(rb"[0-9]", text)),
        len(re.findall(rb"[!-/:-@\[-`{-\x7f\x00-\x08\x0e-\x1b]+", re.sub(rb"[\x80-\xbf]", b"", text))),
        len(re.findall(rb"[!-/:-@\[-`{-\x7f\x00-\x08\x0e-\x1b]", text)),
        len(re.findall(rb"[\n\r]+", re.sub(rb"[\x80-\xbf]", b"", text))),
        len(re.findall(rb"(?<=[ \t\x0b\x0c\x1c-\x1f])[ \t\x0b\x0c\x1c-\x1f]", re.sub(rb"[\x80-\xbf]", b"", text))),
        len(re.findall(rb"[\xc0-\xdf]", text)),
        text.count(0xE2),
        len(re.findall(rb"[\xe0-\xe1\xe3-\xef]", text)),
        len(re.findall(rb"[\xf0-\xff]", text)),
    ]


def _words(text: bytes) -> list[bytes]:
    return re.findall(rb"[A-Za-z\xc0-\xdf][A-Za-z\x80-\xdf]*", text)


def test_features_match_the_reference() -> None:
    found = token_features(PackedText.from_bytes(TEXTS))
    assert found.shape == (len(TEXTS), len(FEATURES))
    for row, text in enumerate(TEXTS):
        assert found[row].tolist() == features_of(text), text[:100]


def test_estimate_is_the_linear_form() -> None:
    packed = PackedText.from_bytes(TEXTS)
    expected = [round(float(np.dot(features_of(text), COEFFICIENTS))) for text in TEXTS]
    np.testing.assert_allclose(token_estimate(packed), expected, atol=1)
    assert token_estimate(PackedText.from_bytes([])).shape == (0,)
    assert token_estimate(PackedText.from_bytes([b""])).tolist() == [0]


def test_large_texts() -> None:
    found = token_features(
        PackedText.from_bytes([b"Q" * 50_000_000, b"ab " * 1_000_000, b"\xff" * 1_000_000, b"\n" * 99])
    )
    counts = [dict(zip(FEATURES, row, strict=True)) for row in found.tolist()]
    assert counts[0]["letters beyond 16"] == counts[0]["upper-case letters inside words"] - 15 == 50_000_000 - 16
    assert (counts[1]["words of 2 letters"], counts[1]["spaces after a space"]) == (1_000_000, 0)
    assert counts[2]["characters of four bytes"] == 1_000_000
    assert counts[3]["runs of newlines"] == 1


def test_an_english_sentence() -> None:
    sentence = "The quick brown fox jumps over the lazy dog, and nobody was surprised."  # 15 tokens to GPT-2
    assert token_estimate(PackedText.from_strings([sentence]))[0] == pytest.approx(15, abs=3)


def test_real_pages_have_four_to_five_bytes_per_token(shared_data: Path) -> None:
    packed = PackedText.from_arrow(pq.read_table(shared_data / "annotations" / "edu-en-train.parquet")["text"])
    # SmolLM2's tokenizer counts 4,764,548 tokens in these texts.
    assert token_estimate(packed).sum() == pytest.approx(4_764_548, rel=0.05)
