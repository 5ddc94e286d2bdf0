"""Products whose rows do not depend on each other."""

from __future__ import annotations

import numpy as np
import pytest

from filters.kernels.products import row_products, weighted_sums


@pytest.mark.parametrize("count", [0, 1, 2, 7, 64])
def test_they_are_the_products(count: int) -> None:
    rng = np.random.default_rng(count)
    rows, columns = rng.normal(size=(count, 37)).astype(np.float32), rng.normal(size=(37, 101)).astype(np.float32)
    exact = rows.astype(np.float64) @ columns.astype(np.float64)
    np.testing.assert_allclose(row_products(rows, columns), exact, atol=1e-4)
    weights = rng.normal(size=101).astype(np.float32)
    np.testing.assert_allclose(weighted_sums(exact.astype(np.float32), weights), exact @ weights, atol=1e-3)


def test_a_row_is_the_same_in_any_company() -> None:
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(size=(33, 137)).astype(np.float32), rng.normal(size=(137, 1501)).astype(np.float32)
    weights = rng.normal(size=1501).astype(np.float32)
    together = row_products(rows, columns)
    sums = weighted_sums(together, weights)
    for start, stop in ((0, 1), (1, 2), (3, 10), (5, 33)):
        part = row_products(rows[start:stop], columns)
        np.testing.assert_array_equal(part, together[start:stop])
        np.testing.assert_array_equal(weighted_sums(part, weights), sums[start:stop])
