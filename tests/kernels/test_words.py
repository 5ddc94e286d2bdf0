from __future__ import annotations

import hashlib
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.kernels.packed import PackedText
from filters.kernels.unicode import IGNORED, SEPARATOR, SINGLE, SPACE, WORD, tables
from filters.kernels.words import normalize, word_hashes
from tests.kernels.hostile import TEXTS, characters

MASK = 2**64 - 1


def class_of(code: int) -> int:
    if code < 0x10000:
        return int(tables()[0][code])
    if 0x20000 <= code <= 0x3FFFF:
        return SINGLE
    if 0x1F000 <= code <= 0x1FFFF:
        return SEPARATOR
    return IGNORED if 0xE0000 <= code <= 0xE0FFF else WORD


def lower(code: int) -> int:
    return int(tables()[1][code]) if code < 0x10000 else code


def words_of(text: bytes) -> list[str]:
    words, word = [], ""
    for character in characters(text):
        kind = class_of(ord(character))
        if kind == WORD:
            word += chr(lower(ord(character)))
        elif kind != IGNORED:
            words += [word, character] if kind == SINGLE else [word]
            word = ""
    return [word for word in [*words, word] if word]


def hash_of(word: str) -> int:
    h = 0xCBF29CE484222325
    for character in word:
        h = ((h ^ ord(character)) * 0x9E3779B97F4A7C15) & MASK
    h = ((h ^ (h >> 32)) * 0xD6E8FEB86659FD93) & MASK
    return h ^ (h >> 32)


def normal(text: bytes) -> bytes:
    lowered = ""
    for character in characters(text):
        lowered += " " if class_of(ord(character)) == SPACE else chr(lower(ord(character)))
    return b" ".join(part for part in lowered.encode().split(b" ") if part)


def check(texts: list[bytes]) -> None:
    packed = PackedText.from_bytes(texts)
    words, normalized = word_hashes(packed), normalize(packed)
    assert len(words) == len(normalized) == len(texts)
    for row, text in enumerate(texts):
        found = words.hashes[words.offsets[row] : words.offsets[row + 1]].tolist()
        assert found == [hash_of(word) for word in words_of(text)], text[:100]
        assert normalized[row] == normal(text), text[:100]


def test_hostile_and_random_texts() -> None:
    check(TEXTS)


def test_texts_at_the_end_of_the_data() -> None:
    """Windows never reach beyond the last byte, wherever the texts end."""
    for text in TEXTS[-40:]:
        for cut in range(0, len(text), 7):
            check([text[:cut]])


def test_no_texts() -> None:
    check([])


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_any_bytes(texts: list[bytes]) -> None:
    check(texts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The CAT, the cat; THE Cat.", ["the", "cat", "the", "cat", "the", "cat"]),
        ("don't under_score 3.14", ["don", "t", "under_score", "3", "14"]),
        ("日本語 kana かな", ["日", "本", "語", "kana", "か", "な"]),
        ("co\u00adop zero\u200bwidth", ["coop", "zero", "width"]),
        ("I \u2764\ufe0f \U0001f600 you", ["i", "you"]),
        ("Straße ÆBLE İ", ["straße", "æble", "i"]),
        ("안녕 мир สวัสดี", ["안녕", "мир", "สวัสดี"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", ["\u0939\u093f\u0928\u094d\u0926\u0940"]),
    ],
)
def test_what_a_word_is(text: str, words: list[str]) -> None:
    found = word_hashes(PackedText.from_strings([text])).hashes.tolist()
    assert found == [hash_of(word) for word in words]


def test_normal_form() -> None:
    texts = ["  Hello,\r\n\tWORLD\u00a0\u3000!  ", " \n ", "a\x00B"]
    assert list(normalize(PackedText.from_strings(texts))) == [b"hello, world !", b"", b"a\x00b"]


def test_large_words() -> None:
    packed = PackedText.from_bytes([b"Q" * 50_000_000, b"\xff" * 1_000_000, b" " * 5_000_000, b"ab " * 1_000_000])
    words = word_hashes(packed)
    assert words.offsets.tolist() == [0, 1, 1, 1, 1_000_001]
    assert set(words.hashes[1:].tolist()) == {hash_of("ab")}
    assert normalize(packed).lengths.tolist() == [50_000_000, 3_000_000, 0, 2_999_999]


def test_tables_are_the_same_with_every_version_of_unicode() -> None:
    """Fingerprints must not depend on the Python they are computed with (3.11 has Unicode 14.0, 3.13 has 15.1)."""
    digest = hashlib.sha256(tables()[0].tobytes() + tables()[1].tobytes()).hexdigest()
    assert digest == "34d9528d9ed6ad2d335c4c39c9a1d29369ce43eb76d857247348e696e87b8377"


def test_letters_with_their_marks_are_words_in_scripts_without_spaces() -> None:
    texts = ["กำลัง ที่", "ປະເທດ", "မြန်မာ", "ភាសាខ្មែរ", "plain ไทย text", "ค" * 300]
    for clusters in (False, True):
        found = word_hashes(PackedText.from_strings(texts), clusters=clusters)
        counts = np.diff(found.offsets).tolist()
        assert counts == ([2, 1, 1, 1, 3, 1] if not clusters else [*map(letters, texts[:4]), 5, 300])


def letters(text: str) -> int:
    return sum(unicodedata.category(c)[0] == "L" for c in text)
