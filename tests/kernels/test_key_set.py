from __future__ import annotations

import numpy as np
import pytest

from filters.kernels import key_set
from filters.kernels.key_set import KeySet


@pytest.mark.parametrize("first_slots", [16, 1 << 16])
def test_a_document_is_seen_if_one_before_it_has_one_of_its_keys(
    monkeypatch: pytest.MonkeyPatch, first_slots: int
) -> None:
    """Like a set of Python's, however many keys collide and however documents are cut into batches."""
    monkeypatch.setattr(key_set, "_FIRST_SLOTS", first_slots)
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
