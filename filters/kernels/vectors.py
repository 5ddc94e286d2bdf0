"""Vector code written as LLVM instructions, so that it becomes what the processor has (AVX-512, AVX2, SSE2, NEON).

Text is classified 64 bytes at a time, one bit of a uint64 for each (bit k is byte `position + k`). Sums of rows and
products of matrices keep their totals in registers. Nothing checks bounds: a caller makes sure that what is read, as
`position + WINDOW` bytes, is there.

A page's score must not change with the batch it comes in, nor with the processor. So every total is the sum of its
products in their order, each rounded before it is added. BLAS orders its sums by the shape of the whole product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils as untyped

from filters.arrays import Float32

WINDOW = 64
"""Bytes a window has."""

cgutils: Any = untyped
intrinsic: Any = extending.intrinsic  # what it makes is called without the context it is written with

_BYTE, _INT, _FLOAT = ir.IntType(8), ir.IntType(64), ir.FloatType()
_VECTOR = ir.VectorType(_BYTE, WINDOW)


def _address(context: Any, builder: Any, kind: Any, array: Any, position: Any) -> Any:
    """Address of `array[position]`, whatever its elements are."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [position])


def _load(builder: Any, address: Any, kind: Any) -> Any:
    loaded = builder.load(builder.bitcast(address, kind.as_pointer()))
    loaded.align = 1
    return loaded


def _vector(builder: Any, address: Any, element: Any, length: int) -> Any:
    return _load(builder, address, ir.VectorType(element, length))


def _all(value: Any) -> Any:
    return ir.Constant(_VECTOR, [value] * WINDOW)


def _among(builder: Any, window: Any, first: int, count: int) -> Any:
    """<64 x i1>: bytes from `first` to `first + count - 1`."""
    return builder.icmp_unsigned("<", builder.sub(window, _all(first)), _all(count))


def _any_of(builder: Any, window: Any, ranges: tuple[tuple[int, int], ...]) -> Any:
    found = _among(builder, window, *ranges[0])
    for first, count in ranges[1:]:
        found = builder.or_(found, _among(builder, window, first, count))
    return found


def _mask_of(*ranges: tuple[int, int]) -> Any:
    """An intrinsic (data, position) -> uint64: which bytes of the window are in one of the ranges (first, count)."""

    @intrinsic
    def mask(typing_context, data, position):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            window = _load(builder, _address(context, builder, signature.args[0], *arguments), _VECTOR)
            return builder.bitcast(_any_of(builder, window, ranges), _INT)

        return types.uint64(data, types.int64), generate

    return mask


ASCII_SPACE = ((9, 5), (0x1C, 4), (32, 1))
"""Ranges of what `str.isspace` calls white space."""

non_ascii = _mask_of((128, 128))
continuations = _mask_of((128, 64))
spaces = _mask_of(*ASCII_SPACE)
word_characters = _mask_of((ord("a"), 26), (ord("A"), 26), (ord("0"), 10), (ord("_"), 1))
letters = _mask_of((ord("a"), 26), (ord("A"), 26))
upper_case = _mask_of((ord("A"), 26))
digits = _mask_of((ord("0"), 10))
newlines = _mask_of((ord("\n"), 1), (ord("\r"), 1))
fasttext_spaces = _mask_of((0, 1), (9, 5), (32, 1))


@intrinsic
def copy_lower(typing_context, data, position, target, place):  # type: ignore[no-untyped-def]
    """Copy a window of ASCII to `target[place:place + 64]`, in lower case, every white space as a space."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        source = _address(context, builder, signature.args[0], *arguments[:2])
        window = _load(builder, source, _VECTOR)
        upper = _among(builder, window, ord("A"), 26)
        lowered = builder.select(upper, builder.or_(window, _all(32)), window)
        white = _any_of(builder, window, ASCII_SPACE)
        address = _address(context, builder, signature.args[2], *arguments[2:])
        stored = builder.store(builder.select(white, _all(32), lowered), builder.bitcast(address, _VECTOR.as_pointer()))
        stored.align = 1
        return context.get_dummy_value()

    return types.void(data, types.int64, target, types.int64), generate


@intrinsic
def load_word(typing_context, data, position):  # type: ignore[no-untyped-def]
    """The eight bytes at `position` as a big-endian uint64."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        # Little-endian machines only, like the rest of what numba is built for but s390x, which has no wheels.
        return builder.bswap(_load(builder, _address(context, builder, signature.args[0], *arguments), _INT))

    return types.uint64(data, types.int64), generate


@intrinsic
def trailing_zeros(typing_context, bits):  # type: ignore[no-untyped-def]
    """Zeros below the lowest one of a uint64; 64 if there is none: int64."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def ones(typing_context, bits):  # type: ignore[no-untyped-def]
    """How many bits of a uint64 are set: int64."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@intrinsic
def upper_product(typing_context, a, b):  # type: ignore[no-untyped-def]
    """The upper 64 bits of the product of two uint64."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(argument, wide) for argument in arguments))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), _INT)

    return types.uint64(types.uint64, types.uint64), generate


@numba.njit(nogil=True, cache=True, inline="always")
def lowest(count):  # type: ignore[no-untyped-def]
    """A uint64 whose lowest `count` bits are set; 0 <= count <= 64."""
    return np.uint64(0) if count == 0 else np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(WINDOW - count)


@numba.njit(nogil=True, cache=True, inline="always")
def shifted(bits, count):  # type: ignore[no-untyped-def]
    """`bits >> count`; 0 <= count <= 64."""
    return np.uint64(0) if count == WINDOW else bits >> np.uint64(count)


SPAN = 64
"""Columns that `sum_rows` sums at once."""
LANES = 4
"""A table that `add_rows` reads has one column, or a multiple of these."""
BLOCK_ROWS, BLOCK_COLUMNS = 4, 32
"""What `multiply_block` multiplies at once: eight registers of 512 bits, or sixteen of 256."""

_AHEAD = 12  # rows from which the cache is filled while one is added


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
        offsets, padded = np.zeros((2, -(-len(centres) // BLOCK_COLUMNS) * BLOCK_COLUMNS), np.float32)
        offsets[: len(centres)] = 0.5 * np.einsum("ij,ij->i", centres, centres)
        padded[: len(centres)] = weights
        return cls(column_blocks(centres), offsets, padded)


def column_blocks(columns: Float32) -> Float32:
    """float32[b, d, BLOCK_COLUMNS]: columns float32[m, d] as `products` reads them, the last block filled with 0."""
    count, depth = columns.shape
    padded = np.zeros((-(-count // BLOCK_COLUMNS) * BLOCK_COLUMNS, depth), np.float32)
    padded[:count] = columns
    return np.ascontiguousarray(padded.reshape(-1, BLOCK_COLUMNS, depth).transpose(0, 2, 1))


def products(rows: Float32, blocks: Float32) -> Float32:
    """float32[n, b * BLOCK_COLUMNS]: rows float32[n, d] times `column_blocks`, summed in the order of d."""
    if rows.shape[1] != blocks.shape[1]:
        raise ValueError(f"rows have {rows.shape[1]} columns, the blocks {blocks.shape[1]}")
    found = np.empty((len(rows), len(blocks) * BLOCK_COLUMNS), np.float32)
    _multiply_all(np.ascontiguousarray(rows), blocks, found)
    return found


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
def _multiply_all(rows, blocks, products):  # type: ignore[no-untyped-def]
    depth, width = rows.shape[1], len(blocks) * BLOCK_COLUMNS
    whole = len(rows) - len(rows) % BLOCK_ROWS
    for block in range(len(blocks)):
        first, column = block * depth * BLOCK_COLUMNS, block * BLOCK_COLUMNS
        for row in range(0, whole, BLOCK_ROWS):
            multiply_block(rows, depth, row, blocks, first, products, width, column)
        for row in range(whole, len(rows)):
            multiply_row(rows, depth, row, blocks, first, products, width, column)


@numba.njit(nogil=True, cache=True)
def _radial(rows, squares, blocks, offsets, weights, sums):  # type: ignore[no-untyped-def]
    products = np.empty((_AT_ONCE, len(weights)), np.float32)
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        _multiply_all(some, blocks, products)
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
