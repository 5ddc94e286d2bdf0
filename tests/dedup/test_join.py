"""The join of equal keys, and the suffixes of equal ids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from filters.arrays import Int64, UInt64
from filters.dedup import join as module
from filters.dedup.join import join, suffixes
from tests.kernels.test_pairs import Row, entries, star_rows

Entries = tuple[UInt64, Int64]


def chunks(keys: UInt64, documents: Int64, size: int = 9_999) -> Iterator[Entries]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size], documents[start : start + size]


def joined(keys: UInt64, documents: Int64, memory: int, scratch: Path) -> list[Row]:
    found = [
        tuple(pair) for part in join(chunks(keys, documents), len(keys), memory, scratch) for pair in part.tolist()
    ]
    assert list(scratch.iterdir()) == []
    return found


@pytest.mark.parametrize("memory", [2**20, 3 * 2**20, 2**30])
@pytest.mark.parametrize("distinct", [40, 30_000, 10**8])
def test_spilled_or_not(tmp_path: Path, memory: int, distinct: int) -> None:
    keys, documents = entries(distinct, 150_000, distinct)
    assert set(joined(keys, documents, memory, tmp_path)) == star_rows(keys, documents)


def test_a_key_that_fits_no_memory_is_streamed(tmp_path: Path) -> None:
    """Half of all entries have one key, and ranges of single keys cannot be split."""
    keys, documents = entries(1, 200_000, 10**8, per_document=1)
    keys[::2] = keys[0]
    assert set(joined(keys, documents, 2**20, tmp_path)) == star_rows(keys, documents)
    keys[:] = 7
    found = joined(keys, documents, 2**20, tmp_path)
    assert set(found) == {(0, n, 7, 200_000) for n in range(1, 200_000)}


def test_ranges_that_stay_too_large_are_split_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FAN_OUT", 2)
    keys, documents = entries(2, 300_000, 10**8)
    assert set(joined(keys, documents, 2**20, tmp_path)) == star_rows(keys, documents)


def test_documents_of_earlier_runs_have_negative_numbers(tmp_path: Path) -> None:
    keys, documents = entries(3, 100_000, 20_000)
    documents = documents - 2**62
    for memory in (2**20, 2**30):
        assert set(joined(keys, documents, memory, tmp_path)) == star_rows(keys, documents)


def test_an_interrupted_join_cleans_up(tmp_path: Path) -> None:
    keys, documents = entries(4, 100_000, 20_000)
    running = join(chunks(keys, documents), len(keys), 2**20, tmp_path)
    next(running)
    assert list(tmp_path.iterdir()) != []
    running.close()
    assert list(tmp_path.iterdir()) == []


def test_entries_that_were_not_announced_are_refused(tmp_path: Path) -> None:
    keys, documents = entries(5, 100, 100)
    with pytest.raises(ValueError, match="announced"):
        list(join(chunks(keys, documents), 101, 2**30, tmp_path))
    assert np.concatenate([np.empty((0, 2)), *join(iter(()), 0, 2**30, tmp_path)]).shape == (0, 2)


def name(ids: list[str], tmp_path: Path) -> list[str]:
    """What the phases do with ids, in few lines: hash, join, number."""
    numbers = np.array([hash(i) for i in ids]).view(np.uint64)
    taken = [i.rpartition("#") for i in ids if i.rpartition("#")[2].isdigit() and "#" in i]
    keys = np.append(numbers, np.array([hash(base) for base, _, _ in taken], np.int64).view(np.uint64))
    documents = np.append(np.arange(len(ids)), [-int(k) for _, _, k in taken]).astype(np.int64)
    found_pairs = [rows[:, :2] for rows in join([(keys, documents)], len(keys), 2**30, tmp_path)]
    pairs = np.concatenate([np.empty((0, 2), np.int64), *found_pairs])
    found = list(ids)
    for document, number in zip(*(column.tolist() for column in suffixes(pairs)), strict=True):
        found[document] += f"#{number}"
    return found


def test_later_documents_get_the_next_number(tmp_path: Path) -> None:
    assert name(["a", "b", "a", "a", "b"], tmp_path) == ["a", "b", "a#2", "a#3", "b#2"]


def test_a_number_that_the_input_gave_is_left_out(tmp_path: Path) -> None:
    assert name(["a", "a", "a#2", "b", "a"], tmp_path) == ["a", "a#3", "a#2", "b", "a#4"]
    assert name(["a#2", "a#2", "a", "a", "a#3"], tmp_path) == ["a#2", "a#2#2", "a", "a#4", "a#3"]


def test_a_suffix_without_its_base_changes_nothing(tmp_path: Path) -> None:
    assert name(["a#2", "a#3", "b"], tmp_path) == ["a#2", "a#3", "b"]


def test_names_are_unique_whatever_was_given(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    pool = ["a", "a#2", "a#3", "a#2#2", "a#2#3", "b", "b#2", "#2", ""]
    for _ in range(50):
        ids = [str(i) for i in draw.choice(pool, 30)]
        found = name(ids, tmp_path)
        assert len(set(found)) == len(ids)
        firsts = {i: row for row, i in reversed(list(enumerate(ids)))}
        assert all(found[row] == i for i, row in firsts.items())
