from __future__ import annotations

import xxhash

from filters.dedup.exact import exact_hashes
from filters.kernels.packed import PackedText
from tests.kernels.hostile import TEXTS
from tests.kernels.test_words import normal


def test_matches_the_reference() -> None:
    found = exact_hashes(PackedText.from_bytes(TEXTS))
    assert found.shape == (len(TEXTS), 2)
    for row, text in enumerate(TEXTS):
        expected = xxhash.xxh3_128_intdigest(normal(text))
        assert (int(found[row, 0]) << 64) | int(found[row, 1]) == expected


def test_case_and_white_space_do_not_matter() -> None:
    texts = ["One text,\ntwo lines.", "one  text, two\r\n\r\nLINES.  ", "\u00a0ONE\tTEXT,\u2003TWO LINES."]
    found = exact_hashes(PackedText.from_strings(texts))
    assert (found == found[0]).all()


def test_everything_else_matters() -> None:
    texts = ["one text", "one text.", "onetext", "one text 1", "öne text", ""]
    found = exact_hashes(PackedText.from_strings(texts))
    assert len({tuple(row) for row in found.tolist()}) == len(texts)


def test_no_texts() -> None:
    assert exact_hashes(PackedText.from_bytes([])).shape == (0, 2)
