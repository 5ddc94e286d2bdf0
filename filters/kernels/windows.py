"""Classify 64 bytes of text at a time, one bit of a uint64 for each (bit k is byte `position + k`).

Vector code in LLVM's own terms, so that it becomes what the processor has (AVX-512, AVX2, SSE2, NEON). Nothing checks
bounds: a caller makes sure that `position + WINDOW` bytes are there.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending, types

WINDOW = 64
"""Bytes a window has."""

intrinsic: Any = extending.intrinsic  # what it makes is called without the context it is written with

_BYTE = ir.IntType(8)
_WORD = ir.IntType(64)
_VECTOR = ir.VectorType(_BYTE, WINDOW)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, position: Any) -> Any:
    """Address of `array[position]`, array being uint8[n]."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [position])


def _load(builder: Any, address: Any, kind: Any) -> Any:
    loaded = builder.load(builder.bitcast(address, kind.as_pointer()))
    loaded.align = 1
    return loaded


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
            window = _load(builder, _pointer(context, builder, signature.args[0], *arguments), _VECTOR)
            return builder.bitcast(_any_of(builder, window, ranges), _WORD)

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
        source = _pointer(context, builder, signature.args[0], *arguments[:2])
        window = _load(builder, source, _VECTOR)
        upper = _among(builder, window, ord("A"), 26)
        lowered = builder.select(upper, builder.or_(window, _all(32)), window)
        white = _any_of(builder, window, ASCII_SPACE)
        address = _pointer(context, builder, signature.args[2], *arguments[2:])
        stored = builder.store(builder.select(white, _all(32), lowered), builder.bitcast(address, _VECTOR.as_pointer()))
        stored.align = 1
        return context.get_dummy_value()

    return types.void(data, types.int64, target, types.int64), generate


@intrinsic
def load_word(typing_context, data, position):  # type: ignore[no-untyped-def]
    """The eight bytes at `position` as a big-endian uint64."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        # Little-endian machines only, like the rest of what numba is built for but s390x, which has no wheels.
        return builder.bswap(_load(builder, _pointer(context, builder, signature.args[0], *arguments), _WORD))

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
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), _WORD)

    return types.uint64(types.uint64, types.uint64), generate


@numba.njit(nogil=True, cache=True, inline="always")
def lowest(count):  # type: ignore[no-untyped-def]
    """A uint64 whose lowest `count` bits are set; 0 <= count <= 64."""
    return np.uint64(0) if count == 0 else np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(WINDOW - count)


@numba.njit(nogil=True, cache=True, inline="always")
def shifted(bits, count):  # type: ignore[no-untyped-def]
    """`bits >> count`; 0 <= count <= 64."""
    return np.uint64(0) if count == WINDOW else bits >> np.uint64(count)
