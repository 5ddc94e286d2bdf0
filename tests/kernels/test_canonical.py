"""NFC and folded numbers, against Python."""

from __future__ import annotations

import random
import re
import unicodedata

from filters.kernels.canonical import LONGEST_RUN, fold_digits, in_nfc
from filters.kernels.packed import PackedText
from tests.kernels.hostile import TEXTS

SCRIPTS = (
    *(
        "Ærø på ø",
        "Ελλάδα ά",
        "Việt Nam tiếng",
        "हिन्दी ज़रूर",
        "한국어 각",
        "ไทยกำลัง",
        "العَرَبِيَّة",
        "日本語ガギグ",
        "עִבְרִית",
        "தமிழ் கொ",
    ),
    *(),
)


def compose(packed: PackedText) -> list[bytes]:
    return list(in_nfc(packed))


def test_every_text_ends_in_nfc() -> None:
    texts = [unicodedata.normalize(form, text) for text in SCRIPTS for form in ("NFC", "NFD", "NFKC", "NFKD")]
    texts += [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    draw = random.Random(0)
    marks = [chr(code) for code in range(0x300, 0x370)] + ["\u1161", "\u11a8", "\u3099", "\u093c", "e", "a", "\u1100"]
    texts += ["".join(draw.choices(marks, k=draw.randrange(1, 20))) for _ in range(2000)]
    composed = compose(PackedText.from_strings(texts))
    wrong = [t for t, c in zip(texts, composed, strict=True) if c.decode() != unicodedata.normalize("NFC", t)]
    assert [text for text in wrong if all(unicodedata.category(c) != "Cn" for c in text)] == []


def test_texts_in_nfc_are_not_touched() -> None:
    packed = PackedText.from_strings(["plain", "Ærø på ø", "Việt Nam", "日本語", "한국어", ""])
    assert in_nfc(packed) is packed


def test_invalid_bytes_and_runs_of_marks_stay() -> None:
    for text, composed in zip(TEXTS, compose(PackedText.from_bytes(TEXTS)), strict=True):
        assert composed == text or composed.decode() == unicodedata.normalize("NFC", text.decode())
    broken = b"e\xcc\x81 \xff"
    run = ("a" + "\u0301\u0316" * 200_000).encode()
    assert compose(PackedText.from_bytes([broken, run, "e\u0301".encode()])) == [broken, run, "é".encode()]
    most = "a" + "\u0301\u0316" * (LONGEST_RUN // 2)
    assert compose(PackedText.from_strings([most])) == [unicodedata.normalize("NFC", most).encode()]


def test_numbers_are_folded_as_a_regular_expression_would() -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choices("12.,a ٣९-é水", k=draw.randrange(30))) for _ in range(3000)]
    texts += ["3.14 1.2.3 1. .5 a1b22", "", "٣٫٤", "9" * 1000]
    folded = fold_digits(PackedText.from_strings(texts))
    assert [text.decode() for text in folded] == [re.sub(r"\d+(\.\d+)?", "0", text) for text in texts]
    hostile = fold_digits(PackedText.from_bytes(TEXTS))
    assert len(hostile) == len(TEXTS)
    for text, found in zip(TEXTS, hostile, strict=True):
        if not re.search(rb"\d", text):
            assert found == text or any(c.isdecimal() for c in text.decode(errors="ignore"))
