from __future__ import annotations

import hashlib
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.kernels.canonical import in_nfc
from filters.kernels.packed import PackedText
from filters.kernels.unicode import CLUSTER, IGNORED, SEPARATOR, SINGLE, SPACE, WORD, tables
from filters.kernels.words import normalize, widened, word_hashes
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


def composed(text: bytes) -> list[str]:
    try:
        text.decode()
    except UnicodeDecodeError:
        return list(characters(text))
    return list(next(iter(in_nfc(PackedText.from_bytes([text])))).decode())


def words_of(text: bytes) -> list[str]:
    words, word = [], ""
    for character in composed(text):
        kind = class_of(ord(character))
        if kind == WORD:
            word += chr(lower(ord(character)))
        elif kind != IGNORED:
            words += [word, character] if kind == SINGLE else [word]
            word = character if kind == CLUSTER else ""
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
        ("안녕 мир", ["안녕", "мир"]),
        (
            "\u0e2a\u0e27\u0e31\u0e2a\u200b\u0e14\u0e35 \u0e19\u0e33",
            ["\u0e2a", "\u0e27\u0e31", "\u0e2a", "\u0e14\u0e35", "\u0e19\u0e33"],
        ),
        ("\u1798\u17b6\u1793", ["\u1798\u17b6", "\u1793"]),
        ("\u1019\u103c\u1014\u103a", ["\u1019\u103c", "\u1014\u103a"]),
        ("cafe\u0301 \u0301\u0301", ["caf\u00e9", "\u0301\u0301"]),
        ("\u0643\u064e\u062a\u064e\u0628\u064e", ["\u0643\u064e\u062a\u064e\u0628\u064e"]),
        ("\uff11\uff12 \ue000\u043f\u0430y", ["\uff11\uff12", "\u043f\u0430y"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", ["\u0939\u093f\u0928\u094d\u0926\u0940"]),
    ],
)
def test_what_a_word_is(text: str, words: list[str]) -> None:
    found = word_hashes(PackedText.from_strings([text])).hashes.tolist()
    assert found == [hash_of(word) for word in words]


def test_words_that_say_little_are_widened() -> None:
    texts = [
        "seven words of plain English stay alone",
        "\u4e00\u4e01\u4e03\u4e07\u4e08\u4e09\u4e0a\u4e0b",
        "\u0e01\u0e02\u0e03 x",
        "",
    ]
    words = word_hashes(PackedText.from_strings(texts))
    wide = widened(words, 4)  # a character of Han reaches over 3, a cluster over 8
    assert np.diff(wide.offsets).tolist() == [7, 6, 1, 0]
    assert wide.hashes[:7].tolist() == words.hashes[:7].tolist()
    assert len({*wide.hashes[7:13].tolist()}) == 6
    other = word_hashes(PackedText.from_strings([texts[1][1:] + "\u4e0d"]))
    assert widened(other, 4).hashes[:5].tolist() == wide.hashes[8:13].tolist()
    plain = word_hashes(PackedText.from_strings(texts[:1]))
    assert widened(plain, 4) is plain


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
    assert digest == "5a6c32e6d3c05f04bd052760e127bfeea290861a7b8a1659fc2ccaeee68f60b8"


def test_letters_with_their_marks_are_words_in_scripts_without_spaces() -> None:
    texts = ["กำลัง ที่", "ປະເທດ", "မြန်မာ", "ភាសាខ្មែរ", "plain ไทย text", "ค" * 300]
    counts = np.diff(word_hashes(PackedText.from_strings(texts)).offsets).tolist()
    assert counts == [*map(letters, texts[:4]), 5, 300]


def letters(text: str) -> int:
    return sum(unicodedata.category(c)[0] == "L" and c != "\u0e33" for c in text)
