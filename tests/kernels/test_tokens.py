from __future__ import annotations

import re
import string
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from filters.errors import ConfigError
from filters.kernels.packed import PackedText
from filters.kernels.tokens import (
    COEFFICIENTS,
    FEATURES,
    LONGEST,
    SCRIPTS,
    exact_tokens,
    load_tokenizer,
    main_script,
    token_estimate,
    token_features,
)
from tests.kernels.hostile import TEXTS

VALID = [text.decode(errors="ignore") for text in TEXTS]


def script_of(character: str) -> str:
    encoded = character.encode("utf-8", "surrogatepass")
    if len(encoded) == 4:
        return "four bytes"
    for name, blocks in SCRIPTS:
        if any(first <= ord(character) <= last for first, last in blocks):
            return name
    return "other"


def features_of(text: str) -> list[int]:
    words = re.findall(r"[A-Za-z\u00c0-\u02ff\u1e00-\u1eff]+", text)
    scripts = ["" if character < "\x80" else script_of(character) for character in text]
    lengths = [len(word) for word in words]
    return [
        *(sum(length == wanted for length in lengths) for wanted in range(1, LONGEST)),
        sum(length >= LONGEST for length in lengths),
        sum(max(0, length - LONGEST) for length in lengths),
        sum(letter in string.ascii_uppercase for word in words for letter in word[1:]),
        len(re.findall(r"[0-9]", text)),
        len(re.findall(r"[!-/:-@\[-`{-\x7f\x00-\x08\x0e-\x1b]+", text)),
        len(re.findall(r"[!-/:-@\[-`{-\x7f\x00-\x08\x0e-\x1b]", text)),
        len(re.findall(r"[\n\r]+", text)),
        len(re.findall(r"(?<=[ \t\x0b\x0c\x1c-\x1f])[ \t\x0b\x0c\x1c-\x1f]", text)),
        *(sum(word[-1].lower() == letter for word in words) for letter in string.ascii_lowercase),
        *(
            count
            for name, _ in SCRIPTS
            for count in (
                scripts.count(name),
                sum(one == name != before for before, one in zip(["", *scripts], scripts, strict=False)),
            )
        ),
    ]


def test_features_match_the_reference() -> None:
    found = token_features(PackedText.from_strings(VALID))
    assert found.shape == (len(VALID), len(FEATURES))
    for row, text in enumerate(VALID):
        expected = features_of(text)
        assert found[row].tolist() == expected, text[:100]


def test_estimate_is_the_linear_form() -> None:
    packed = PackedText.from_strings(VALID)
    linear = [round(float(np.dot(features_of(text), COEFFICIENTS))) for text in VALID]
    expected = [
        min(max(estimate, text != ""), len(text.encode())) for estimate, text in zip(linear, VALID, strict=True)
    ]
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
    assert counts[2]["four bytes: characters"] == 1_000_000
    assert counts[3]["runs of newlines"] == 1


def test_an_english_sentence() -> None:
    sentence = "The quick brown fox jumps over the lazy dog, and nobody was surprised."  # 15 tokens to GPT-2
    assert token_estimate(PackedText.from_strings([sentence]))[0] == pytest.approx(15, abs=3)


LETTERS = {
    "Cyrillic": "\u0434", "Greek": "\u03b4", "Arabic": "\u0633", "Hebrew": "\u05d3", "Devanagari": "\u0915",
    "Thai": "\u0e01", "Khmer": "\u1780", "Han": "\u5b57", "kana": "\u304b", "Hangul": "\uac00", "Georgian": "\u10d3",
}  # fmt: skip


def test_no_estimate_is_above_the_bytes_or_nothing() -> None:
    packed = PackedText.from_bytes([*TEXTS, *(letter.encode() * 999 for letter in LETTERS.values())])
    found = token_estimate(packed)
    assert (found <= packed.lengths).all()
    assert (found[packed.lengths > 0] > 0).all()


def test_the_script_of_most_letters_is_told() -> None:
    texts = [f"two words {letter * 40}" for letter in LETTERS.values()]
    assert main_script(token_features(PackedText.from_strings(texts))).tolist() == list(LETTERS)
    assert main_script(token_features(PackedText.from_strings(["plain words, \u2026 and one \u0434"]))).tolist() == [
        "Latin"
    ]


def test_pages_of_every_language_are_near_two_tokenizers(shared_data: Path) -> None:
    """Characters a token: the means of o200k and DeepSeek V4 on other pages of these languages."""
    table = pq.read_table(shared_data / "pool" / "multi.parquet", columns=["language", "text"])
    for code, expected in {
        "ru": 3.2,
        "el": 2.3,
        "ar": 2.9,
        "he": 2.3,
        "hi": 2.3,
        "th": 2.4,
        "zh": 1.2,
        "ko": 1.6,
    }.items():
        texts = table.filter(pc.equal(table["language"], code))["text"].to_pylist()
        estimate = int(token_estimate(PackedText.from_strings(texts)).sum())
        assert sum(map(len, texts)) / estimate == pytest.approx(expected, rel=0.15), code


def test_a_tokenizer_counts_whole_texts(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({"a": 0, "[UNK]": 1}, "[UNK]")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.enable_truncation(3)
    made.enable_padding(length=50)
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json", "tokens.tokenizer")
    assert exact_tokens(tokenizer, PackedText.from_strings(["a b c d e", "", "a"])).tolist() == [5, 0, 1]
    (tmp_path / "other.json").write_text("{}")
    for name, message in (("none.json", "no such file"), ("other.json", "not a tokenizer.json")):
        with pytest.raises(ConfigError, match=f"tokens.tokenizer: .*{name}: {message}"):
            load_tokenizer(tmp_path / name, "tokens.tokenizer")
