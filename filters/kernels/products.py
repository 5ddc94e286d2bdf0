"""A matrix product whose rows do not depend on each other: a page's score must not change with the batch it comes in.

BLAS orders its sums by the shape of the whole product, so the last bits of a row change with the number of rows.
"""

from __future__ import annotations

import numba
import numpy as np

from filters.kernels.arrays import Float32


def row_products(rows: Float32, columns: Float32) -> Float32:
    """float32[n, m]: rows float32[n, d] times columns float32[d, m], each value summed in the order of d."""
    products = np.zeros((len(rows), columns.shape[1]), np.float32)
    _multiply(np.ascontiguousarray(rows), np.ascontiguousarray(columns), products)
    return products


def weighted_sums(values: Float32, weights: Float32) -> Float32:
    """float32[n]: values float32[n, m] times weights float32[m], summed as float64 in the order of m."""
    sums = np.empty(len(values), np.float32)
    _sum(np.ascontiguousarray(values), weights, sums)
    return sums


@numba.njit(nogil=True, cache=True)
def _multiply(rows, columns, products):  # type: ignore[no-untyped-def]
    count, depth = rows.shape
    # Two rows at a time share what is read of the columns; more and the compiler makes no vector code of it.
    for row in range(0, count - 1, 2):
        one, two = products[row], products[row + 1]
        for place in range(depth):
            column = columns[place]
            a, b = rows[row, place], rows[row + 1, place]
            for number in range(len(column)):
                one[number] += a * column[number]
                two[number] += b * column[number]
    if count % 2 == 1:
        one = products[count - 1]
        for place in range(depth):
            column = columns[place]
            a = rows[count - 1, place]
            for number in range(len(column)):
                one[number] += a * column[number]


@numba.njit(nogil=True, cache=True)
def _sum(values, weights, sums):  # type: ignore[no-untyped-def]
    for row in range(len(values)):
        total = 0.0
        for number in range(len(weights)):
            total += np.float64(values[row, number]) * np.float64(weights[number])
        sums[row] = total
