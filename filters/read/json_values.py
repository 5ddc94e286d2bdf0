"""Values as JSON that loses nothing: integers of any size, bytes, numbers that are not finite, times."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
import re
from typing import Any

import orjson

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
