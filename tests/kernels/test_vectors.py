"""Vector code, against plain Python and numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pytest

from filters.kernels import vectors
from filters.kernels.vectors import (
    BLOCK_COLUMNS,
    WINDOW,
    RadialCentres,
    column_blocks,
    products,
    radial_sums,
    weighted_sums,
)

TEXT = np.frombuffer(bytes(range(256)) * 2, np.uint8)

CLASSES: dict[str, Callable[[int], bool]] = {
    "non_ascii": lambda byte: byte >= 128,
    "spaces": lambda byte: byte < 128 and chr(byte).isspace(),
    "word_characters": lambda byte: byte < 128 and (chr(byte).isalnum() or byte == ord("_")),
    "letters": lambda byte: byte < 128 and chr(byte).isalpha(),
    "upper_case": lambda byte: byte < 128 and chr(byte).isupper(),
    "digits": lambda byte: byte < 128 and chr(byte).isdigit(),
    "newlines": lambda byte: byte in b"\n\r",
    "fasttext_spaces": lambda byte: byte in b" \n\r\t\v\f\0",
}


@pytest.mark.parametrize("name", CLASSES)
def test_masks_of_every_byte_at_every_place(name: str) -> None:
    intrinsic: Any = getattr(vectors, name)
    mask: Any = numba.njit(lambda data, position: intrinsic(data, position))
    for position in range(len(TEXT) - WINDOW + 1):
        window = TEXT[position : position + WINDOW].tolist()
        assert int(mask(TEXT, position)) == sum(1 << k for k, byte in enumerate(window) if CLASSES[name](byte))


def test_copies_in_lower_case() -> None:
    copy: Any = numba.njit(lambda data, position, target, place: vectors.copy_lower(data, position, target, place))
    for position in range(128 - WINDOW + 1):
        target = np.full(WINDOW + 2, 255, np.uint8)
        copy(TEXT, position, target, 1)
        text = bytes(TEXT[position : position + WINDOW])
        expected = b"".join(b" " if chr(byte).isspace() else bytes([byte]).lower() for byte in text)
        assert target.tobytes() == b"\xff" + expected + b"\xff"


def test_words_of_eight_bytes() -> None:
    load: Any = numba.njit(lambda data, position: vectors.load_word(data, position))
    for position in range(len(TEXT) - 8 + 1):
        assert int(load(TEXT, position)) == int.from_bytes(TEXT[position : position + 8].tobytes(), "big")


def test_bits() -> None:
    bits: Any = numba.njit(lambda x: (vectors.trailing_zeros(x), vectors.ones(x)))
    shift: Any = numba.njit(lambda x, count: (vectors.lowest(count), vectors.shifted(x, count)))
    for value in (0, 1, 2, 6, 1 << 63, 2**64 - 1, 0x8000000100000000):
        low = (value & -value).bit_length() - 1 if value else 64
        assert bits(np.uint64(value)) == (low, value.bit_count())
        for count in (0, 1, 5, 63, 64):
            lowest, shifted = shift(np.uint64(value), count)
            assert (int(lowest), int(shifted)) == ((1 << count) - 1, value >> count)


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


@pytest.mark.parametrize(("rows", "columns", "depth"), [(0, 3, 4), (1, 1, 1), (7, 24, 136), (33, BLOCK_COLUMNS + 1, 5)])
def test_products_are_those_of_each_row_alone(rows: int, columns: int, depth: int) -> None:
    left, right = normal(0, rows, depth), normal(1, columns, depth)
    blocks = column_blocks(right)
    found = products(left, blocks)[:, :columns]
    np.testing.assert_allclose(found, left.astype(np.float64) @ right.astype(np.float64).T, atol=1e-4)
    assert (products(left, blocks)[:, columns:] == 0).all()
    for row in range(rows):
        np.testing.assert_array_equal(products(left[row : row + 1], blocks)[0, :columns], found[row])
    with pytest.raises(ValueError, match="columns, the blocks"):
        products(normal(0, 2, depth + 1), blocks)
