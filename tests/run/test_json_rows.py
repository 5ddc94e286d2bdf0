from __future__ import annotations

import datetime
import decimal
import json

import pyarrow as pa
import pytest

from filters.errors import InputError
from filters.run.writers import check_schema, json_lines

NAN, INF = float("nan"), float("inf")
DAY = datetime.date(2024, 2, 29)
TEXT = pa.string()


def written(array: pa.Array) -> list[object]:
    """What a reader of the lines gets, whatever part of a larger column they come from."""
    check_schema(pa.schema([("x", array.type)]))
    rows = [json.loads(line)["x"] for line in json_lines(pa.record_batch({"x": array}))]
    for start in range(len(array)):
        part = pa.record_batch({"x": array.slice(start, 2)})
        assert [json.loads(line)["x"] for line in json_lines(part)] == rows[start : start + 2]
    return rows


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array([b"\0\xff", None, b""], pa.binary()), ["AP8=", None, ""]),
        (pa.array([b"ab"], pa.binary(2)), ["YWI="]),
        (pa.array([b"ab"], pa.large_binary()), ["YWI="]),
        (pa.array([NAN, INF, None, -INF, 0.5]), ["NaN", "Infinity", None, "-Infinity", 0.5]),
        (pa.array([2**64 - 1, None], pa.uint64()), [2**64 - 1, None]),
        (pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")), ["2023-11-14 22:13:20.123456789"]),
        (pa.array([0], pa.timestamp("ms", "UTC")), ["1970-01-01 00:00:00.000Z"]),
        (pa.array([DAY, None], pa.date32()), ["2024-02-29", None]),
        (pa.array([1], pa.time64("ns")), ["00:00:00.000000001"]),
        (pa.array([-1, None], pa.duration("ns")), ["-PT0.000000001S", None]),
        (pa.array([decimal.Decimal("12345678901234567890.10")], pa.decimal128(38, 2)), ["12345678901234567890.10"]),
        (pa.array([[1.5, NAN], None, [], [INF]]), [[1.5, "NaN"], None, [], ["Infinity"]]),
        (pa.array([[b"a", b"b"], None], pa.list_(pa.binary(), 2)), [["YQ==", "Yg=="], None]),
        (
            pa.array([{"a": {"b": b"x"}, "c": 1}, None, {"a": None, "c": 2}]),
            [{"a": {"b": "eA=="}, "c": 1}, None, {"a": None, "c": 2}],
        ),
        (
            pa.array([[("k", DAY), ("k", None)], None, []], pa.map_(TEXT, pa.date32())),
            [[["k", "2024-02-29"], ["k", None]], None, []],
        ),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.nulls(2), [None, None]),
        (pa.array([[{"a": [DAY]}], [None]]), [[{"a": ["2024-02-29"]}], [None]]),
    ],
)
def test_columns_of_any_type_lose_nothing(array: pa.Array, values: list[object]) -> None:
    assert written(array) == values


@pytest.mark.parametrize(
    "kind",
    [
        pa.month_day_nano_interval(),
        pa.list_(pa.month_day_nano_interval()),
        pa.dense_union([pa.field("a", pa.int8())]),
        pa.struct([pa.field("a", TEXT), pa.field("a", TEXT)]),
        pa.timestamp("s", "Nowhere/Never"),
    ],
)
def test_what_has_no_form_in_json_is_refused_by_name(kind: pa.DataType) -> None:
    with pytest.raises(InputError, match=r"column 'odd' .*output\.format: parquet"):
        check_schema(pa.schema([("odd", kind)]))
