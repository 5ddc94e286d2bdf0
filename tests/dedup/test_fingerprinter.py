"""Exact hashes and fingerprints."""

from __future__ import annotations

import numpy as np
import xxhash

from filters.config.filter import NearConfig
from filters.dedup.fingerprinter import Fingerprinter, Fingerprints, exact_hashes
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


def fingerprint(texts: list[str], near: NearConfig | None = NearConfig(), exact: bool = True) -> Fingerprints:  # noqa: B008
    return Fingerprinter(exact, near).fingerprint(PackedText.from_strings(texts))


def test_texts_without_words_have_only_an_exact_hash() -> None:
    found = fingerprint(["", "...", "!!!", " ", "...", "a word"])
    assert found.has_signature.tolist() == [False] * 5 + [True]
    numbers = [found.exact[:, 0].tolist().index(value) for value in found.exact[:, 0].tolist()]
    assert numbers == [0, 1, 2, 0, 1, 5]


def test_what_is_not_looked_for_is_not_computed() -> None:
    assert fingerprint(["a b", "A  B"], near=None).keys.shape == (2, 0)
    assert not fingerprint(["a b", "A  B"], exact=False).exact.any()


def test_fingerprints_do_not_depend_on_the_batch() -> None:
    packed = PackedText.from_bytes(TEXTS)
    whole = Fingerprinter(True, NearConfig()).fingerprint(packed)
    for row in range(len(packed)):
        alone = Fingerprinter(True, NearConfig()).fingerprint(PackedText.from_bytes(TEXTS[row : row + 1]))
        for name in ("exact", "keys", "has_signature", "tokens"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[row])
