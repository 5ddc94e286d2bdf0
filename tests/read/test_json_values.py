from __future__ import annotations

import datetime
import decimal

import pytest

from filters.read.json_values import NotJsonError, duration, json_text
from filters.read.rows import string_column


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"\0\xff", '"AP8="'),
        ({"a": b"", "b": [bytearray(b"x")]}, '{"a":"","b":["eA=="]}'),
        (float("nan"), '"NaN"'),
        ([float("inf"), None, (float("-inf"), 1.5)], '["Infinity",null,["-Infinity",1.5]]'),
        (decimal.Decimal("12345678901234567890.10"), '"12345678901234567890.10"'),
        (datetime.datetime(2024, 3, 5, 1, 2, 3, 4), '"2024-03-05T01:02:03.000004"'),
        (datetime.timedelta(microseconds=-1), '"-PT0.000001S"'),
    ],
)
def test_values_lose_nothing(value: object, text: str) -> None:
    assert json_text(value) == text
    assert string_column([value]).to_pylist() == [text]


def test_what_has_no_form_in_json_is_refused() -> None:
    with pytest.raises(NotJsonError, match="type object"):
        json_text([object()])


def test_durations_are_written_in_seconds() -> None:
    assert [duration(count, 1000) for count in (-1500, 90_000, 1)] == ["-PT1.500S", "PT90.000S", "PT0.001S"]
    assert duration(3, 1) == "PT3S"
