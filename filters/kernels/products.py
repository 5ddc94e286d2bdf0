"""Products whose rows do not depend on each other: a page's score must not change with the batch it comes in.

BLAS orders its sums by the shape of the whole product, so the last bits of a row change with the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from filters.arrays import Float32
from filters.kernels.vectors import BLOCK_COLUMNS, BLOCK_ROWS, multiply_block, multiply_row

_AT_ONCE = 16  # rows of which the products with all columns stay in the cache
_LEAST = np.float32(-87)  # its exponential is nearly the smallest of float32 that is not denormal
_PER_OCTAVE = np.float32(1 / np.log(2))
# The logarithm of 2 in two parts: a whole number of at most 8 bits times the first is exact.
_OCTAVE = np.float32(0.693359375)
_OCTAVE_REST = np.float32(np.log(2) - 0.693359375)
_HALF, _ONE = np.float32(0.5), np.float32(1)
_C3, _C4, _C5, _C6, _C7 = (np.float32(1 / n) for n in (6, 24, 120, 720, 5040))


@dataclass(frozen=True, slots=True)
class RadialCentres:
    """Centres of radial basis functions exp(-|x - c|^2 / 2) and their weights, laid out for `radial_sums`.

    Attributes:
        blocks: float32[b, d, BLOCK_COLUMNS], the centres as columns, the last block filled with 0.
        offsets: float32[b * BLOCK_COLUMNS], half of each centre's square.
        weights: float32[b * BLOCK_COLUMNS], those of columns that are no centres 0.
    """

    blocks: Float32
    offsets: Float32
    weights: Float32

    @classmethod
    def of(cls, centres: Float32, weights: Float32) -> RadialCentres:
        """Pack centres float32[m, d] and weights float32[m]."""
        count, depth = centres.shape
        whole = -(-count // BLOCK_COLUMNS) * BLOCK_COLUMNS
        columns = np.zeros((whole, depth), np.float32)
        columns[:count] = centres
        padded = np.zeros(whole, np.float32)
        padded[:count] = weights
        blocks = columns.reshape(-1, BLOCK_COLUMNS, depth).transpose(0, 2, 1)
        return cls(np.ascontiguousarray(blocks), 0.5 * np.einsum("ij,ij->i", columns, columns), padded)


def radial_sums(rows: Float32, centres: RadialCentres) -> Float32:
    """float32[n]: of each row x of float32[n, d] the sum over centres c of weight * exp(-|x - c|^2 / 2).

    Products are summed as float32 in the order of d; exponentials are within 1e-6 of their value, and summed as
    float64.
    """
    if rows.shape[1] != centres.blocks.shape[1]:
        raise ValueError(f"rows have {rows.shape[1]} columns, the centres {centres.blocks.shape[1]}")
    sums = np.empty(len(rows), np.float32)
    squares = 0.5 * np.einsum("ij,ij->i", rows, rows)
    _radial(np.ascontiguousarray(rows), squares, centres.blocks, centres.offsets, centres.weights, sums)
    return sums


def weighted_sums(values: Float32, weights: Float32) -> Float32:
    """float32[n]: values float32[n, m] times weights float32[m], summed as float64 in the order of m."""
    sums = np.empty(len(values), np.float32)
    _sum(np.ascontiguousarray(values), weights, sums)
    return sums


@numba.njit(nogil=True, cache=True)
def _radial(rows, squares, blocks, offsets, weights, sums):  # type: ignore[no-untyped-def]
    count, depth = rows.shape
    width = len(weights)
    products = np.empty((_AT_ONCE, width), np.float32)
    for start in range(0, count, _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        whole = len(some) - len(some) % BLOCK_ROWS
        for block in range(len(blocks)):
            first, column = block * depth * BLOCK_COLUMNS, block * BLOCK_COLUMNS
            for row in range(0, whole, BLOCK_ROWS):
                multiply_block(some, depth, row, blocks, first, products, width, column)
            for row in range(whole, len(some)):
                multiply_row(some, depth, row, blocks, first, products, width, column)
        for row in range(len(some)):
            _exponentials(products[row], offsets, squares[start + row])
            sums[start + row] = _sum_row(products[row], weights)


@numba.njit(nogil=True, cache=True)
def _exponentials(values, offsets, square):  # type: ignore[no-untyped-def]
    """Make each value exp(min(value - offset - square, 0))."""
    for number in range(len(values)):
        x = values[number] - offsets[number] - square
        x = np.float32(0) if x > 0 else x  # what is not a number stays so
        x = _LEAST if x < _LEAST else x
        octaves = np.floor(x * _PER_OCTAVE + _HALF)
        x = (x - octaves * _OCTAVE) - octaves * _OCTAVE_REST
        # Taylor's series: |x| <= ln(2) / 2, where what is left out is 6e-9.
        series = _HALF + x * (_C3 + x * (_C4 + x * (_C5 + x * (_C6 + x * _C7))))
        power = np.int32((np.int32(octaves) + 127) << 23).view(np.float32)
        values[number] = (_ONE + (x + x * x * series)) * power


@numba.njit(nogil=True, cache=True, fastmath={"reassoc"})
def _sum_row(values, weights):  # type: ignore[no-untyped-def]
    """The weighted sum of one row, in whatever order the compiler chose: the same for every row."""
    total = 0.0
    for number in range(len(weights)):
        total += np.float64(values[number]) * np.float64(weights[number])
    return total


@numba.njit(nogil=True, cache=True)
def _sum(values, weights, sums):  # type: ignore[no-untyped-def]
    for row in range(len(values)):
        total = 0.0
        for number in range(len(weights)):
            total += np.float64(values[row, number]) * np.float64(weights[number])
        sums[row] = total
