"""Pass-through columns: one schema for all files, and values as JSON that loses nothing."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa

from filters.errors import InputError

_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}
"""Most digits of an integer, by its bits."""
_DIGITS_OF_DOUBLE = 15


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_binary(kind: pa.DataType) -> bool:
    """Whether it holds bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether it holds numbers that are no decimals."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def is_numbers(kind: pa.DataType) -> bool:
    """Whether it holds lists of such numbers."""
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists) and is_number(kind.value_type)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without dictionary encoding and views, which are ways to store the same values."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(kind.value_field.with_type(plain_type(kind.value_type)))
    if pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(kind.value_field.with_type(plain_type(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind])
    return kind


def settle(schemas: Sequence[tuple[str, pa.Schema]]) -> str | None:
    """The types that hold the columns of all files, as `Unit.columns` has them; None if all files have the same.

    Null becomes any type, numbers and times widen, lists and structs are settled by what they hold (a field that some
    files lack is null there); a column that some files lack is null there.

    Args:
        schemas: (name of the file, its pass-through columns with their plain types).

    Raises:
        InputError: two files have types that nothing holds both of.
    """
    if all(schema.equals(schemas[0][1]) for _, schema in schemas[1:]):
        return None
    settled: dict[str, pa.DataType] = {}
    first: dict[str, str] = {}
    for source, schema in schemas:
        for field in schema:
            known = settled.setdefault(field.name, field.type)
            first.setdefault(field.name, source)
            if known != field.type:
                settled[field.name] = _common(field.name, known, field.type, first[field.name], source)
    schema = pa.schema(list(settled.items()))
    return base64.b64encode(schema.serialize()).decode()


def _common(name: str, one: pa.DataType, other: pa.DataType, first: str, source: str) -> pa.DataType:
    try:
        schemas = [pa.schema([(name, kind)]) for kind in _of_one_kind(one, other)]
        both = pa.unify_schemas(schemas, promote_options="permissive").field(name).type
        for kind in (one, other):
            pa.array([], kind).cast(both)  # some that unify have no cast
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        both = None
    texts = [str(kind).count("string") for kind in (one, other, both)]
    if both is None or texts[2] < max(texts):  # text is not made bytes
        raise InputError(
            f"{source}: column {name!r} is of type {other}, and from {first} on of type {one}. Remedy: leave it out of "
            "input.columns, or filter these files in a run of their own (input.paths)"
        )
    return both


def _of_one_kind(*kinds: pa.DataType) -> list[pa.DataType]:
    """Next to a decimal, an integer is a decimal of all its digits (Arrow counts one too few), and a decimal next to a
    float is a double.

    Raises:
        ArrowTypeError: a double does not hold all digits of the decimal.
    """
    decimals = [kind for kind in kinds if pa.types.is_decimal(kind)]
    if decimals and any(map(pa.types.is_floating, kinds)):
        if decimals[0].precision > _DIGITS_OF_DOUBLE:
            raise pa.ArrowTypeError("digits would be lost")
        return [pa.float64(), pa.float64()]
    return [
        pa.decimal128(_DIGITS[kind.bit_width], 0) if decimals and pa.types.is_integer(kind) else kind for kind in kinds
    ]


def as_settled(columns: dict[str, pa.Array], settled: str | None, source: str, rows: int) -> dict[str, pa.Array]:
    """Pass-through columns of a batch in the types that were settled.

    Args:
        columns: plain arrays of `rows` values.
        settled: what `settle` gave.
        source: name of the file.
        rows: of the batch.

    Raises:
        InputError: a value that the settled type does not hold.
    """
    if settled is None:
        return columns
    found = {}
    for field in pa.ipc.read_schema(pa.py_buffer(base64.b64decode(settled))):
        column = columns.get(field.name)
        try:
            found[field.name] = pa.nulls(rows, field.type) if column is None else column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f"{source}: column {field.name!r} has values that {field.type}, the type for all files, does not hold: "
                f"{error}. Remedy: leave it out of input.columns, or filter this file in a run of its own (input.paths)"
            ) from error
    return found


_ROUNDED_FROM = 2.0**63
_LARGE = re.compile(r"e\+?(?:1[89]|[2-9][0-9]|[0-9]{3})")
"""Finds, in orjson's output, a float that may have been an integer of more than 64 bits."""


class NotJsonError(ValueError):
    """A value that JSON cannot hold."""


class BigInteger:
    """An integer of more than 64 bits, as its digits: Python converts those of 5,000 digits neither way."""

    def __init__(self, digits: str) -> None:
        self.digits = digits

    def __str__(self) -> str:
        return self.digits


def may_be_rounded(value: object) -> bool:
    """Whether a value that orjson read may hold an integer of more than 64 bits, which it makes a float of."""
    if isinstance(value, float):
        return abs(value) >= _ROUNDED_FROM
    return isinstance(value, dict | list) and _LARGE.search(json_text(value) or "") is not None


def loads_exactly(line: bytes) -> Any:
    """The value of a line that orjson has read, with a `BigInteger` for each integer of more than 64 bits.

    Raises:
        RecursionError: it is nested deeper than some 900 levels.
    """
    return json.loads(line, parse_int=_integer)


def _integer(digits: str) -> int | BigInteger:
    if len(digits) <= 20 and -(2**63) <= (value := int(digits)) < 2**64:
        return value
    return BigInteger(digits)


def json_text(value: object) -> str | None:
    """JSON of a value, None where it is nested deeper than 254 levels.

    Bytes are base64, times and durations ISO 8601, decimals strings, and numbers that are not finite "NaN", "Infinity"
    and "-Infinity".

    Raises:
        NotJsonError: it is of another type.
    """
    try:
        text = orjson.dumps(value, default=_other)
        if b"null" in text:
            text = orjson.dumps(_finite(value), default=_other)
    except TypeError as error:
        if error.__cause__ is None:
            return None
        raise NotJsonError(str(error.__cause__)) from error
    return text.decode()


def number(value: float | None) -> float | str | None:
    """The number, or its name where it is not finite."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def base64_text(value: bytes) -> str:
    """RFC 4648, with padding."""
    return base64.b64encode(value).decode()


def duration(count: int, per_second: int) -> str:
    """ISO 8601 of a number of 1 / `per_second` seconds (a power of ten): "-PT1.500S"."""
    whole, part = divmod(abs(count), per_second)
    digits = len(str(per_second)) - 1
    return f"{'-' * (count < 0)}PT{whole}{f'.{part:0{digits}d}' if digits else ''}S"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value


def _other(value: Any) -> Any:
    if isinstance(value, BigInteger):
        return orjson.Fragment(value.digits)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64_text(bytes(value))
    if isinstance(value, decimal.Decimal | datetime.date | datetime.time):
        return str(value)
    if isinstance(value, datetime.timedelta):
        return duration(value // datetime.timedelta(microseconds=1), 1_000_000)
    raise TypeError(f"a value of type {type(value).__name__} has no form in JSON")
