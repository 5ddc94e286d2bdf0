"""Products whose rows do not depend on each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from filters.kernels.products import RadialCentres, radial_sums, weighted_sums

Float32 = npt.NDArray[np.float32]


def normal(seed: int, *shape: int) -> Float32:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def exact_radial_sums(rows: Float32, centres: Float32, weights: Float32) -> npt.NDArray[np.float64]:
    distances = ((rows[:, None].astype(np.float64) - centres[None]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-distances / 2) @ weights.astype(np.float64))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 16, 19, 64])
@pytest.mark.parametrize("centres", [1, 32, 101])
@pytest.mark.parametrize("depth", [1, 37])
def test_they_are_the_sums(count: int, centres: int, depth: int) -> None:
    rows, points, weights = 0.3 * normal(1, count, depth), 0.3 * normal(2, centres, depth), normal(3, centres)
    sums = radial_sums(rows, RadialCentres.of(points, weights))
    assert sums.dtype == np.float32
    np.testing.assert_allclose(sums, exact_radial_sums(rows, points, weights), atol=2e-5)
    values = normal(4, count, centres)
    exact = values.astype(np.float64) @ weights.astype(np.float64)
    np.testing.assert_allclose(weighted_sums(values, weights), exact, atol=1e-5)


def test_exponentials_are_close_from_the_centre_to_far_away() -> None:
    centre = RadialCentres.of(np.zeros((1, 1), np.float32), np.ones(1, np.float32))
    distances = np.linspace(0, 13, 100_001).astype(np.float32)
    # Half the square is rounded before it is an exponent: so it is in what is expected.
    expected = np.exp(-(distances * distances * np.float32(0.5)).astype(np.float64))
    np.testing.assert_allclose(radial_sums(distances[:, None], centre), expected, rtol=1e-6)
    far = radial_sums(np.array([[1e3], [1e18], [np.nan]], np.float32), centre)
    assert (far[:2] < 1e-30).all()
    assert np.isnan(far[2])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="3 columns, the centres 2"):
        radial_sums(normal(0, 4, 3), RadialCentres.of(normal(0, 5, 2), normal(0, 5)))


def test_a_row_is_the_same_in_any_company() -> None:
    rows, weights = 0.1 * normal(0, 33, 137), normal(1, 1501)
    centres = RadialCentres.of(0.1 * normal(2, 1501, 137), weights)
    together = radial_sums(rows, centres)
    values = normal(3, 33, 1501)
    sums = weighted_sums(values, weights)
    for start, stop in ((0, 1), (1, 2), (3, 10), (5, 33)):
        np.testing.assert_array_equal(radial_sums(rows[start:stop], centres), together[start:stop])
        np.testing.assert_array_equal(weighted_sums(values[start:stop], weights), sums[start:stop])
