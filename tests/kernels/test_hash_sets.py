"""Sets of hashes, against those of Python."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.kernels import hash_sets
from filters.kernels.hash_sets import KeySet, NgramSet
from filters.kernels.packed import PackedText
from filters.kernels.words import widened, word_hashes


@pytest.mark.parametrize("first_slots", [16, 1 << 16])
def test_a_document_is_seen_if_one_before_it_has_one_of_its_keys(
    monkeypatch: pytest.MonkeyPatch, first_slots: int
) -> None:
    """Like a set of Python's, however many keys collide and however documents are cut into batches."""
    monkeypatch.setattr(hash_sets, "_FIRST_SLOTS", first_slots)
    draw = np.random.default_rng(0)
    keys = draw.integers(0, 2000, (900, 3)).astype(np.uint64) << np.uint64(40)
    keys[::50] = draw.integers(0, 2**64, (18, 3), np.uint64)
    keys[7, :2] = keys[7, 2]  # twice the same is not seen before
    present = draw.random((900, 3)) < 0.4
    met: set[int] = set()
    expected = []
    for row, mask in zip(keys.tolist(), present.tolist(), strict=True):
        mine = {max(key, 1) for key, there in zip(row, mask, strict=True) if there}
        expected.append(bool(mine & met))
        met |= mine
    assert 100 < sum(expected) < 800
    for size in (1, 7, 900):
        keys_met = KeySet()
        parts = [keys_met.add(keys[n : n + size], present[n : n + size]) for n in range(0, 900, size)]
        assert np.concatenate(parts).tolist() == expected


def test_no_documents() -> None:
    assert len(KeySet().add(np.empty((0, 3), np.uint64), np.empty((0, 3), np.bool_))) == 0


def grams(text: str, size: int) -> set[tuple[int, ...]]:
    words = widened(word_hashes(PackedText.from_strings([text])), size).hashes.tolist()
    return {tuple(words[place : place + size]) for place in range(len(words) - size + 1)}


def reference(benchmark: list[str], documents: list[str], size: int) -> list[bool]:
    wanted = set().union(*(grams(text, size) for text in benchmark)) if benchmark else set()
    return [bool(grams(text, size) & wanted) for text in documents]


words = st.lists(st.sampled_from(["a", "B", "c", "d.", "é", "\u202e", "漢", "", "\x00", "\ud800"]), max_size=12).map(
    " ".join
)


@settings(max_examples=150)
@given(st.lists(words, max_size=6), st.lists(words, max_size=6), st.integers(1, 5))
def test_equals_plain_sets(benchmark: list[str], documents: list[str], size: int) -> None:
    ngrams = NgramSet.of([PackedText.from_strings(benchmark)], size)
    found = ngrams.found_in(PackedText.from_strings(documents))
    assert found.tolist() == reference(benchmark, documents, size)
    assert ngrams.count == len(set().union(*(grams(text, size) for text in benchmark)) if benchmark else [])
    assert ngrams.too_short == sum(not grams(text, size) for text in benchmark)


def test_a_leak_in_a_long_text_is_found_at_any_place_whatever_case_and_punctuation() -> None:
    generator = random.Random(3)
    vocabulary = [f"w{number}" for number in range(5000)]
    question = " ".join(generator.choices(vocabulary, k=13))
    page = generator.choices(vocabulary, k=4000)
    ngrams = NgramSet.of([PackedText.from_strings([question])], 13)
    shouted = question.upper().replace(" ", ", ")
    documents = [" ".join(page), *(" ".join([*page[:at], shouted, *page[at:]]) for at in (0, 1777, 4000))]
    documents.append(" ".join([*page[:9], *question.split()[:12], "w", question.split()[12]]))
    assert ngrams.found_in(PackedText.from_strings(documents)).tolist() == [False, True, True, True, False]


def test_an_ngram_says_as_much_in_scripts_without_spaces() -> None:
    """A name of 13 characters is no leak; a question of 40 is, wherever it stands, with whatever around it."""
    draw = random.Random(1)
    for first, last in ((0x4E00, 0x5E00), (0x3042, 0x3090), (0x0E01, 0x0E2E), (0x1780, 0x17A2), (0x1000, 0x1020)):
        letters = [chr(code) for code in range(first, last)]
        question, page = ("".join(draw.choices(letters, k=k)) for k in (40, 3000))
        ngrams = NgramSet.of([PackedText.from_strings([question, question[:13]])], 13)
        assert ngrams.too_short == 1
        documents = [
            page,
            page[:99] + question[:15] + page[99:],
            page[:99] + question[-15:],
            page[:99] + question,
            question,
        ]
        documents += [page[:99] + question + page[99:], f"{page[:9]}, english words {question} and more words."]
        assert ngrams.found_in(PackedText.from_strings(documents)).tolist() == [False] * 3 + [True] * 4


def test_frequent_ngrams_can_be_left_out() -> None:
    items = [f"answer the question below {n}" for n in range(12)] + ["one two three four five"]
    packed = PackedText.from_strings(items)
    ngrams = NgramSet.of([packed], 4, most=11)
    assert (ngrams.count, ngrams.frequent) == (14, 1)
    documents = [f"please answer the question below {n}" for n in range(100, 120)] + ["zero one two three four"] * 3
    counted = ngrams.tally(PackedText.from_strings(documents))
    assert sorted(counted[counted > 0].tolist()) == [3]
    everything = NgramSet.of([packed], 4)
    both = everything.tally(PackedText.from_strings(documents))
    assert sorted(both[both > 0].tolist()) == [3, 20]
    found = everything.found_in(PackedText.from_strings(documents), both, 19)
    assert found.tolist() == [False] * 20 + [True] * 3
    # Within one text an n-gram counts once.
    assert everything.tally(PackedText.from_strings(["one two three four one two three four"])).max() == 1


def test_many_ngrams_and_none() -> None:
    texts = [f"{n} {n + 1} {n + 2}" for n in range(20_000)]
    ngrams = NgramSet.of([PackedText.from_strings(texts[:10_000])], 3)
    found = ngrams.found_in(PackedText.from_strings(texts))
    assert np.array_equal(found, np.arange(20_000) < 10_000)
    assert not NgramSet.of([], 3).found_in(PackedText.from_strings(texts[:5])).any()
    with pytest.raises(ValueError, match="at least one word"):
        NgramSet.of([], 0)
