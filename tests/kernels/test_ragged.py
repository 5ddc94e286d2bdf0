"""Rows of different length, against lists."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from filters.kernels.ragged import Ragged


def rows(ragged: Ragged) -> list[list[int]]:
    return [ragged.values[ragged.offsets[n] : ragged.offsets[n + 1]].tolist() for n in range(len(ragged))]


def test_rows_are_taken_in_any_order_and_joined() -> None:
    lists = [[1, 2, 3], [], [4], [], [5, 6]]
    ragged = Ragged.of_lengths(np.array([n for row in lists for n in row], np.uint32), np.array([3, 0, 1, 0, 2]))
    assert rows(ragged) == lists
    assert rows(ragged.take(np.array([4, 0, 0, 1]))) == [[5, 6], [1, 2, 3], [1, 2, 3], []]
    assert rows(ragged.take(np.empty(0, np.int64))) == []
    assert rows(Ragged.joined([ragged, ragged.take(np.array([2]))], np.uint32)) == [*lists, [4]]
    assert rows(Ragged.joined([], np.uint32)) == []


def test_strings_come_back() -> None:
    texts = ["", "a", "æøå", "水" * 50, ""]
    for array in (pa.array(texts), pa.array(texts, pa.large_string())[1:4], pa.chunked_array([texts[:2], texts[2:]])):
        assert Ragged.of_strings(array).strings().to_pylist() == array.to_pylist()
    assert Ragged.of_strings(pa.array([], pa.string())).strings().to_pylist() == []
