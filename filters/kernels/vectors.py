"""Sums of rows and products of matrices whose totals stay in registers, and a prefetch, in LLVM's own terms.

Every total is the sum of its products in their order, each product rounded before it is added, so that it is the same
on every processor and in any company. Nothing checks bounds.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped

from filters.kernels.windows import intrinsic

cgutils: Any = untyped

SPAN = 64
"""Columns that `sum_rows` sums at once."""
LANES = 4
"""A table that `add_rows` reads has one column, or a multiple of these."""
BLOCK_ROWS, BLOCK_COLUMNS = 4, 32
"""What `multiply_block` multiplies at once: eight registers of 512 bits, or sixteen of 256."""

_AHEAD = 12  # rows from which the cache is filled while one is added
_BYTE, _INT, _FLOAT = ir.IntType(8), ir.IntType(64), ir.FloatType()


def _address(context: Any, builder: Any, kind: Any, array: Any, position: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [position])


def _vector(builder: Any, address: Any, element: Any, length: int) -> Any:
    loaded = builder.load(builder.bitcast(address, ir.VectorType(element, length).as_pointer()))
    loaded.align = 1
    return loaded


def _store(builder: Any, vector: Any, address: Any) -> None:
    builder.store(vector, builder.bitcast(address, vector.type.as_pointer())).align = 1


def _everywhere(builder: Any, value: Any, length: int) -> Any:
    """The vector of `length` times `value`."""
    kind = ir.VectorType(value.type, length)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), length), [0] * length)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)


def _prefetch(builder: Any, address: Any) -> None:
    number = ir.IntType(32)
    pointer = _BYTE.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    # To be read, into the nearest cache, data.
    builder.call(function, [builder.bitcast(address, pointer), *(ir.Constant(number, n) for n in (0, 3, 1))])


@intrinsic
def prefetch(typing_context, array, position):  # type: ignore[no-untyped-def]
    """Ask for the cache line of `array[position]`."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _prefetch(builder, _address(context, builder, signature.args[0], *arguments))
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@intrinsic
def sum_rows(typing_context, vectors, width, column, rows, factors, count, total):  # type: ignore[no-untyped-def]
    """Write the sum of the `count` rows `factors[k] * vectors[rows[k]]` to `total`, for `SPAN` columns from `column`.

    `vectors` int8[v, width], `rows` int32 and `factors` float32 of at least `count`, `total` float32[width].
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        table, width, column, rows, factors, count, total = arguments
        kinds = signature.args

        def row_at(place: Any) -> Any:
            row = builder.sext(builder.load(_address(context, builder, kinds[3], rows, place)), _INT)
            return _address(context, builder, kinds[0], table, builder.add(builder.mul(row, width), column))

        floats, wide = ir.VectorType(_FLOAT, SPAN), ir.VectorType(ir.IntType(32), SPAN)
        summed = cgutils.alloca_once_value(builder, ir.Constant(floats, [0.0] * SPAN))
        final = builder.sub(count, ir.Constant(_INT, 1))
        with cgutils.for_range(builder, count) as loop:
            ahead = builder.add(loop.index, ir.Constant(_INT, _AHEAD))
            _prefetch(builder, row_at(builder.select(builder.icmp_signed("<", ahead, final), ahead, final)))
            values = builder.sext(_vector(builder, row_at(loop.index), _BYTE, SPAN), wide)
            values = builder.sitofp(values, floats)
            factor = builder.load(_address(context, builder, kinds[4], factors, loop.index))
            product = builder.fmul(_everywhere(builder, factor, SPAN), values)
            builder.store(builder.fadd(builder.load(summed), product), summed)
        _store(builder, builder.load(summed), _address(context, builder, kinds[6], total, column))
        return context.get_dummy_value()

    number = types.int64
    return types.void(vectors, number, number, rows, factors, number, total), generate


def _add(span: int) -> Any:
    """An intrinsic that adds rows to totals, `span` columns at once."""

    @intrinsic
    def add(typing_context, table, width, column, rows, count, total):  # type: ignore[no-untyped-def]
        """Add the `count` rows `table[rows[k]]` to `total`, in their order, as float64, from `column` on.

        `table` float32[v, width], `rows` int64 of at least `count`, `total` float64[width].
        """

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            table, width, column, rows, count, total = arguments
            kinds = signature.args
            doubles = ir.VectorType(ir.DoubleType(), span)
            target = _address(context, builder, kinds[5], total, column)
            summed = cgutils.alloca_once_value(builder, _vector(builder, target, ir.DoubleType(), span))
            with cgutils.for_range(builder, count) as loop:
                row = builder.load(_address(context, builder, kinds[3], rows, loop.index))
                place = _address(context, builder, kinds[0], table, builder.add(builder.mul(row, width), column))
                values = builder.fpext(_vector(builder, place, _FLOAT, span), doubles)
                builder.store(builder.fadd(builder.load(summed), values), summed)
            _store(builder, builder.load(summed), target)
            return context.get_dummy_value()

        number = types.int64
        return types.void(table, number, number, rows, number, total), generate

    return add


_add_1, _add_4, _add_8, _add_16 = _add(1), _add(LANES), _add(2 * LANES), _add(4 * LANES)


@numba.njit(nogil=True, cache=True)
def add_rows(table, rows, count, total):  # type: ignore[no-untyped-def]
    """Add the `count` rows `table[rows[k]]` (float32[v, 1 or a multiple of `LANES`]) to `total`, float64."""
    width = table.shape[1]
    if width == 1:
        _add_1(table, 1, 0, rows, count, total)
        return
    column = 0
    while column + 16 <= width:
        _add_16(table, width, column, rows, count, total)
        column += 16
    if column + 8 <= width:
        _add_8(table, width, column, rows, count, total)
        column += 8
    if column < width:
        _add_4(table, width, column, rows, count, total)


def _multiply(rows_at_once: int) -> Any:
    """An intrinsic that multiplies `rows_at_once` rows by `BLOCK_COLUMNS` columns."""

    @intrinsic
    def multiply(typing_context, rows, depth, row, block, start, products, width, column):  # type: ignore[no-untyped-def]
        """Write `rows[row + i] . block[:, j]` to `products[row + i, column + j]`.

        `rows` float32[n, depth], `block` float32 of which [depth, BLOCK_COLUMNS] from `start` on are read, `products`
        float32[n, width].
        """

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            rows, depth, row, block, start, products, width, column = arguments
            kinds = signature.args
            floats = ir.VectorType(_FLOAT, BLOCK_COLUMNS)
            numbers = [builder.add(row, ir.Constant(_INT, i)) for i in range(rows_at_once)]
            places = [_address(context, builder, kinds[0], rows, builder.mul(n, depth)) for n in numbers]
            zeros = ir.Constant(floats, [0.0] * BLOCK_COLUMNS)
            totals = [cgutils.alloca_once_value(builder, zeros) for _ in numbers]
            first = _address(context, builder, kinds[3], block, start)
            with cgutils.for_range(builder, depth) as loop:
                offset = builder.mul(loop.index, ir.Constant(_INT, BLOCK_COLUMNS))
                columns = _vector(builder, builder.gep(first, [offset]), _FLOAT, BLOCK_COLUMNS)
                for place, total in zip(places, totals, strict=True):
                    value = builder.load(builder.gep(place, [loop.index]))
                    product = builder.fmul(_everywhere(builder, value, BLOCK_COLUMNS), columns)
                    builder.store(builder.fadd(builder.load(total), product), total)
            for n, total in zip(numbers, totals, strict=True):
                target = builder.add(builder.mul(n, width), column)
                _store(builder, builder.load(total), _address(context, builder, kinds[5], products, target))
            return context.get_dummy_value()

        number = types.int64
        return types.void(rows, number, number, block, number, products, number, number), generate

    return multiply


multiply_block = _multiply(BLOCK_ROWS)
multiply_row = _multiply(1)
