"""Suffixes of ids over a whole run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from filters.dedup.join import join
from filters.dedup.names import suffixes


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
