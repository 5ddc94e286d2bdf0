from __future__ import annotations

import numpy as np
import pytest

from filters.arrays import Bool, Int64, UInt64
from filters.kernels.index import MAX_NUMBER, BandIndex, HashIndex


class DictIndex:
    """What `BandIndex` does, with a dict."""

    def __init__(self) -> None:
        self.roots: dict[tuple[int, int], int] = {}

    def resolve(self, keys: UInt64, valid: Bool, numbers: Int64) -> list[int]:
        resolved = []
        for row, usable, number in zip(keys.tolist(), valid.tolist(), numbers.tolist(), strict=True):
            bands = list(enumerate(row))
            root = min((self.roots[key] for key in bands if key in self.roots), default=-1) if usable else -1
            resolved.append(root)
            if usable:
                for key in bands:
                    self.roots.setdefault(key, number if root < 0 else root)
        return resolved


def some_keys(rows: int, bands: int, seed: int, pool: int) -> tuple[UInt64, Bool, Int64]:
    """Rows of keys from a small pool, so that clusters meet and overlap."""
    draw = np.random.default_rng(seed)
    pool_keys = draw.integers(0, 2**64, pool, np.uint64)
    keys = pool_keys[draw.integers(0, pool, (rows, bands))]
    return keys, draw.random(rows) > 0.1, np.arange(rows, dtype=np.int64)


@pytest.mark.parametrize(("bands", "pool"), [(1, 50), (3, 2000), (14, 200_000), (40, 10_000)])
def test_matches_a_dict_however_rows_are_cut(bands: int, pool: int) -> None:
    keys, valid, numbers = some_keys(3000, bands, seed=bands, pool=pool)
    expected = DictIndex().resolve(keys, valid, numbers)
    assert len(set(expected)) > 10
    for size in (1, 7, 1000, 3000):
        index = BandIndex(bands)
        found = [
            index.resolve(keys[start : start + size], valid[start : start + size], numbers[start : start + size])
            for start in range(0, 3000, size)
        ]
        assert np.concatenate(found).tolist() == expected


def test_growth_keeps_every_key() -> None:
    draw = np.random.default_rng(5)
    index = BandIndex(14)
    before = index.nbytes
    keys = draw.integers(0, 2**64, (150_000, 14), np.uint64)
    numbers, valid = np.arange(150_000), np.ones(150_000, bool)
    assert (index.resolve(keys, valid, numbers) == -1).all()
    assert index.nbytes > 1.5 * before
    np.testing.assert_array_equal(index.resolve(keys, valid, numbers + 150_000), numbers)


def test_a_crowded_partition_makes_the_index_grow() -> None:
    """Keys found by search to fall into few partitions: the others stay empty, and nothing may be lost or overrun."""
    draw = np.random.default_rng(9)
    candidates = draw.integers(0, 2**64, 3_000_000, np.uint64)
    mixed = candidates * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    crowd = candidates[(mixed ^ (mixed >> np.uint64(32))) >> np.uint64(49) < 3]
    assert len(crowd) > 200
    index = BandIndex(1)
    before = index.nbytes
    numbers = np.arange(len(crowd))
    valid = np.ones(len(crowd), bool)
    assert (index.resolve(crowd[:, None], valid, numbers) == -1).all()
    assert index.nbytes > before
    np.testing.assert_array_equal(index.resolve(crowd[:, None], valid, numbers), numbers)


def test_equal_keys_in_different_bands_do_not_match() -> None:
    index = BandIndex(2)
    one = np.ones(1, bool)
    assert index.resolve(np.array([[5, 6]], np.uint64), one, np.array([0])).tolist() == [-1]
    assert index.resolve(np.array([[6, 5]], np.uint64), one, np.array([1])).tolist() == [-1]
    assert index.resolve(np.array([[7, 6]], np.uint64), one, np.array([2])).tolist() == [0]


def test_extreme_keys_and_numbers() -> None:
    index = BandIndex(3)
    keys = np.array([[0, 0, 0], [2**64 - 1] * 3, [0, 1, 2]], np.uint64)
    numbers = np.array([0, MAX_NUMBER, 1])
    assert index.resolve(keys, np.ones(3, bool), numbers).tolist() == [-1, -1, 0]
    assert index.resolve(keys[1:2], np.ones(1, bool), np.array([2])).tolist() == [MAX_NUMBER]


@pytest.mark.parametrize("number", [-1, MAX_NUMBER + 1])
def test_numbers_out_of_range_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match="between 0 and"):
        BandIndex(1).resolve(np.zeros((1, 1), np.uint64), np.ones(1, bool), np.array([number]))
    with pytest.raises(ValueError, match="between 0 and"):
        HashIndex().resolve(np.zeros(1, np.uint64), np.ones(1, bool), np.array([number]))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="14"):
        BandIndex(14).resolve(np.zeros((2, 13), np.uint64), np.ones(2, bool), np.arange(2))
    with pytest.raises(ValueError, match="rows"):
        BandIndex(1).resolve(np.zeros((2, 1), np.uint64), np.ones(3, bool), np.arange(2))
    with pytest.raises(ValueError, match="uint64"):
        HashIndex().resolve(np.zeros((2, 3), np.uint64), np.ones(2, bool), np.arange(2))
    with pytest.raises(ValueError, match="bands"):
        BandIndex(0)


def test_no_rows() -> None:
    nothing = np.empty(0, np.int64)
    assert len(BandIndex(2).resolve(np.empty((0, 2), np.uint64), np.empty(0, bool), nothing)) == 0
    assert len(HashIndex().resolve(np.empty(0, np.uint64), np.empty(0, bool), nothing)) == 0


@pytest.mark.parametrize("pool", [2, 500, 10**6])
def test_hash_index_matches_a_dict(pool: int) -> None:
    draw = np.random.default_rng(pool)
    hashes = draw.integers(0, 2**64, pool, np.uint64)[draw.integers(0, pool, 20_000)]
    hashes[:3] = 0, 2**64 - 1, 0
    valid, numbers = draw.random(20_000) > 0.1, np.arange(20_000)
    first: dict[int, int] = {}
    expected = []
    for value, usable, number in zip(hashes.tolist(), valid.tolist(), numbers.tolist(), strict=True):
        expected.append(first.get(value, -1) if usable else -1)
        if usable:
            first.setdefault(value, number)
    for size in (333, 20_000):
        index = HashIndex()
        found = [
            index.resolve(hashes[start : start + size], valid[start : start + size], numbers[start : start + size])
            for start in range(0, 20_000, size)
        ]
        assert np.concatenate(found).tolist() == expected


def test_hash_index_takes_hashes_of_128_bits() -> None:
    hashes = np.array([[1, 2], [2, 2], [1, 2], [1, 3]], np.uint64)
    assert HashIndex().resolve(hashes, np.ones(4, bool), np.arange(4)).tolist() == [-1, -1, 0, -1]


def test_bytes_per_document() -> None:
    draw = np.random.default_rng(1)
    bands, hashes = BandIndex(14), HashIndex()
    seen = 0
    for _ in range(30):
        keys = draw.integers(0, 2**64, (20_000, 14), np.uint64)
        numbers = np.arange(seen, seen + 20_000)
        bands.resolve(keys, np.ones(20_000, bool), numbers)
        hashes.resolve(keys[:, 0], np.ones(20_000, bool), numbers)
        seen += 20_000
        if seen >= 300_000:
            assert bands.nbytes < 200 * seen
            assert hashes.nbytes < 23 * seen
