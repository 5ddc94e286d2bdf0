from __future__ import annotations

import numpy as np

from filters.config.filter import NearConfig
from filters.dedup.fingerprinter import Fingerprinter, Fingerprints
from filters.kernels.packed import PackedText
from tests.kernels.hostile import TEXTS


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
