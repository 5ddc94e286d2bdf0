from __future__ import annotations

import random

import numpy as np
import pytest

from filters.config.filter import NearConfig
from filters.dedup.stream import Fingerprinter, Fingerprints, StreamingDedup, Verdict
from filters.kernels.packed import PackedText
from tests.kernels.hostile import TEXTS


def fingerprint(texts: list[str], near: NearConfig | None = NearConfig(), exact: bool = True) -> Fingerprints:  # noqa: B008
    return Fingerprinter(exact, near).fingerprint(PackedText.from_strings(texts))


def add(stream: StreamingDedup, found: Fingerprints, alive: list[bool] | None = None) -> Verdict:
    mask = np.ones(len(found.tokens), bool) if alive is None else np.array(alive)
    return stream.add(found.exact, found.keys, found.has_signature, mask)


def article(seed: int, words: int = 300) -> list[str]:
    draw = random.Random(seed)
    return [f"w{draw.randrange(5000)}" for _ in range(words)]


def edited(words: list[str], changes: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    words = list(words)
    for _ in range(changes):
        words[draw.randrange(len(words))] = f"edit{draw.randrange(10**6)}"
    return " ".join(words)


def test_copies_variants_and_edits() -> None:
    one, two = article(1), article(2)
    texts = [
        " ".join(one),
        " ".join(two),
        " ".join(one),
        "\n".join(one).upper() + "  ",
        edited(one, 1),
        " ".join(two) + " more",
        " ".join(article(3)),
    ]
    verdict = add(StreamingDedup(True, NearConfig()), fingerprint(texts))
    assert verdict.number.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert verdict.exact_root.tolist() == [0, 1, 0, 0, 4, 5, 6]
    assert verdict.near_root.tolist() == [0, 1, 0, 0, 0, 1, 6]


def test_an_exact_copy_of_a_near_duplicate_is_in_its_cluster() -> None:
    one = article(1)
    texts = [" ".join(one), edited(one, 1), edited(one, 1).upper()]
    verdict = add(StreamingDedup(True, NearConfig()), fingerprint(texts))
    assert verdict.exact_root.tolist() == [0, 1, 1]
    assert verdict.near_root.tolist() == [0, 0, 0]


def test_what_resembles_a_removed_duplicate_joins_its_cluster() -> None:
    """Each version is one edit from the one before; the last shares next to nothing with the first."""
    words = article(4, 400)
    versions = []
    for step in range(200):
        versions.append(" ".join(words))
        words[2 * step] = f"new{step}"
    stream = StreamingDedup(True, NearConfig())
    verdict = add(stream, fingerprint(versions))
    assert (verdict.near_root == 0).all()
    first_and_last = add(StreamingDedup(True, NearConfig()), fingerprint([versions[0], versions[-1]]))
    assert first_and_last.near_root.tolist() == [0, 1]


def test_removed_documents_are_neither_numbered_nor_entered() -> None:
    found = fingerprint(["same text", "same text", "same text", "other"])
    verdict = add(StreamingDedup(True, NearConfig()), found, [False, True, True, True])
    assert verdict.number.tolist() == [-1, 0, 1, 2]
    assert verdict.exact_root.tolist() == [-1, 0, 0, 2]
    assert verdict.near_root.tolist() == [-1, 0, 0, 2]


def test_texts_without_words_are_only_exact_duplicates() -> None:
    verdict = add(StreamingDedup(True, NearConfig()), fingerprint(["", "...", "!!!", " ", "..."]))
    assert verdict.exact_root.tolist() == [0, 1, 2, 0, 1]
    assert verdict.near_root.tolist() == [0, 1, 2, 0, 1]


def test_short_texts() -> None:
    verdict = add(StreamingDedup(True, NearConfig()), fingerprint(["Read more", "read more!", "read", "more read"]))
    assert verdict.exact_root.tolist() == [0, 1, 2, 3]
    assert verdict.near_root.tolist() == [0, 0, 2, 3]


def test_only_exact() -> None:
    found = fingerprint(["a b", "A  B", "a b!"], near=None)
    assert found.keys.shape == (3, 0)
    stream = StreamingDedup(True, None)
    verdict = stream.add(found.exact, None, found.has_signature, np.ones(3, bool))
    assert verdict.exact_root.tolist() == verdict.near_root.tolist() == [0, 0, 2]


def test_only_near() -> None:
    found = fingerprint(["a b", "A  B", "c"], exact=False)
    assert not found.exact.any()
    verdict = add(StreamingDedup(False, NearConfig()), found)
    assert verdict.exact_root.tolist() == [0, 1, 2]
    assert verdict.near_root.tolist() == [0, 0, 2]


def test_neither() -> None:
    found = fingerprint(["a", "a"], near=None, exact=False)
    verdict = add(StreamingDedup(False, None), found)
    assert verdict.number.tolist() == verdict.exact_root.tolist() == verdict.near_root.tolist() == [0, 1]


def test_missing_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="keys"):
        StreamingDedup(True, NearConfig()).add(np.zeros((1, 2), np.uint64), None, np.ones(1, bool), np.ones(1, bool))


def test_verdict_does_not_depend_on_how_documents_are_cut_into_batches() -> None:
    draw = random.Random(6)
    bases = [article(seed, draw.choice([3, 30, 300])) for seed in range(40)]
    texts = [edited(base, draw.choice([0, 1, 3, 30]), draw.randrange(20)) for base in bases for _ in range(25)]
    draw.shuffle(texts)
    found = fingerprint(texts)
    alive = np.array([draw.random() > 0.1 for _ in texts])
    whole = StreamingDedup(True, NearConfig()).add(found.exact, found.keys, found.has_signature, alive)
    assert 40 < len(set(whole.exact_root.tolist())) < len(texts)
    assert len(set(whole.near_root.tolist())) < len(set(whole.exact_root.tolist()))
    for size in (1, 64):
        stream = StreamingDedup(True, NearConfig())
        parts = [
            stream.add(
                *(column[start : start + size] for column in (found.exact, found.keys, found.has_signature, alive))
            )
            for start in range(0, len(texts), size)
        ]
        for name in ("number", "exact_root", "near_root"):
            assert np.concatenate([getattr(part, name) for part in parts]).tolist() == getattr(whole, name).tolist()
        assert stream.nbytes > 0


def test_fingerprints_do_not_depend_on_the_batch() -> None:
    whole = Fingerprinter(True, NearConfig()).fingerprint(PackedText.from_bytes(TEXTS))
    for row in range(0, len(TEXTS), 7):
        alone = Fingerprinter(True, NearConfig()).fingerprint(PackedText.from_bytes([TEXTS[row]]))
        assert alone.exact.tolist() == [whole.exact[row].tolist()]
        assert alone.keys.tolist() == [whole.keys[row].tolist()]
        assert alone.has_signature[0] == whole.has_signature[row]
        assert alone.tokens[0] == whole.tokens[row]


def test_options_reach_the_keys() -> None:
    default = fingerprint(["one two three four five six seven eight nine ten"])
    other = fingerprint(
        ["one two three four five six seven eight nine ten"], NearConfig(bands=3, rows=2, shingle=2, seed=9)
    )
    assert default.keys.shape == (1, 14)
    assert other.keys.shape == (1, 3)
    assert not set(default.keys[0].tolist()) & set(other.keys[0].tolist())
