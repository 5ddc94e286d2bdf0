"""Parquet files whose columns differ in type: one schema for all, settled before work begins."""

from __future__ import annotations

import datetime
import decimal
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters import FilterConfig, run_filter
from filters.config.filter import InputConfig
from filters.errors import InputError
from filters.read.batch import string_column
from filters.read.columns import NotJsonError, duration, json_text
from filters.read.units import plan_units, read_unit

WORDS = "The water cycle moves water from the sea to the land and back, by rain and by rivers, over many years."


def write(folder: Path, *columns: dict[str, pa.Array]) -> InputConfig:
    """A file for each mapping of columns; their text is added."""
    for number, of_file in enumerate(columns):
        rows = max(map(len, of_file.values()), default=1)
        text = pa.array([f"{WORDS} {number} {row} {number * 7 + row}" for row in range(rows)])
        pq.write_table(pa.table({"text": text} | of_file), folder / f"{number}.parquet")
    names = [name for name in dict.fromkeys(name for of_file in columns for name in of_file) if name != "url"]
    return InputConfig(kind="parquet", paths=(str(folder),), columns=tuple(names))


def read(config: InputConfig) -> tuple[dict[str, list[Any]], set[pa.Schema]]:
    found: dict[str, list[Any]] = {}
    schemas = set()
    for unit in plan_units(config):
        for batch in read_unit(unit, config):
            schemas.add(pa.schema([(name, column.type) for name, column in batch.columns.items()]))
            for name, column in batch.columns.items():
                found.setdefault(name, []).extend(column.to_pylist())
    return found, schemas


def dictionary(values: list[str | None]) -> pa.Array:
    return pa.array(values).dictionary_encode()


@pytest.mark.parametrize(
    ("arrays", "kind"),
    [
        ([pa.array([[], None], pa.list_(pa.null())), pa.array([["a"]]), pa.array([["b"]], pa.large_list(pa.string()))],
         pa.large_list(pa.string())),
        ([pa.nulls(2), pa.array(["x"]), pa.array(["y"], pa.large_string())], pa.large_string()),
        ([pa.array([1], pa.int8()), pa.array([2**40]), pa.array([3], pa.int32())], pa.int64()),
        ([pa.array([1], pa.int32()), pa.array([2.5])], pa.float64()),
        ([pa.array([{"a": 1}]), pa.array([{"b": "x", "a": None}])], None),
        ([pa.array([[{"a": []}]]), pa.array([[{"a": ["x"], "b": 1.5}]])], None),
        ([dictionary(["x", None]), pa.array(["y"]), pa.array(["z"], pa.string_view())], pa.string()),
        ([pa.array([[1, 2]], pa.list_(pa.int32(), 2)), pa.array([[3]])], pa.list_(pa.int64())),
        ([pa.array([7], pa.int32()), pa.array([Decimal("12345678.1234")], pa.decimal128(12, 4))], pa.decimal128(14, 4)),
        ([pa.array([1.5], pa.float32()), pa.array([Decimal("0.5")], pa.decimal128(9, 2))], pa.float64()),
        ([pa.array([0], pa.timestamp("s")), pa.array([1], pa.timestamp("us"))], pa.timestamp("us")),
    ],
)  # fmt: skip
def test_every_file_gets_the_type_that_holds_the_values_of_all(
    tmp_path: Path, arrays: list[pa.Array], kind: pa.DataType | None
) -> None:
    for order, sequence in enumerate((arrays, arrays[::-1])):
        folder = tmp_path / str(order)
        folder.mkdir()
        found, schemas = read(write(folder, *({"c": array} for array in sequence)))
        assert len(schemas) == 1
        if kind is None:
            fields = [str(row) for row in found["c"]]
            assert len(fields) == len(arrays)
        else:
            assert next(iter(schemas)).field("c").type == kind
            assert found["c"] == [value for array in sequence for value in array.to_pylist()]


def test_a_url_may_be_there_absent_or_dictionary_encoded(tmp_path: Path) -> None:
    url = "https://example.org/"
    config = write(tmp_path, {"n": pa.array([1])}, {"url": dictionary([url, None]), "n": pa.array([2, 3])},
                   {"url": pa.array([url], pa.large_string()), "n": pa.array([4])})  # fmt: skip
    found, schemas = read(config)
    assert found == {"n": [1, 2, 3, 4], "url": [None, url, None, url]}
    assert len(schemas) == 1


def test_files_that_agree_say_nothing_of_their_columns(tmp_path: Path) -> None:
    config = write(tmp_path, {"n": pa.array([1])}, {"n": pa.array([2])})
    assert [unit.columns for unit in plan_units(config)] == [None, None]


@pytest.mark.parametrize(
    "arrays",
    [
        (pa.array(["x"]), pa.array([1])),
        (pa.array([b"x"]), pa.array(["x"])),
        (pa.array([[1]]), pa.array([1])),
        (pa.array([1.5]), pa.array([Decimal(10**20)])),
        (pa.array([1], pa.time32("s")), pa.array([Decimal(1)])),
    ],
)
def test_types_that_nothing_holds_both_of_are_refused_before_work(tmp_path: Path, arrays: tuple[pa.Array, ...]) -> None:
    config = write(tmp_path, *({"c": array} for array in arrays))
    with pytest.raises(InputError, match=r"1\.parquet: column 'c' is of type .*0\.parquet .*input\.columns"):
        plan_units(config)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays(
        [pa.array(["a"]), pa.array(["b"]), pa.array([1]), pa.array([2])], ["text", "text", "n", "n"]
    )
    pq.write_table(table, tmp_path / "a.parquet")
    config = InputConfig(kind="parquet", paths=(str(tmp_path),))
    with pytest.raises(InputError, match=r"two columns are called 'text'"):
        plan_units(config)
    pq.write_table(table.rename_columns(["text", "other", "n", "n"]), tmp_path / "a.parquet")
    assert read(config)[0] == {}
    with pytest.raises(InputError, match=r"two columns are called 'n'"):
        plan_units(config.model_copy(update={"columns": ("n",)}))


def test_a_run_over_them_holds_every_value(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(
        folder,
        {"tags": pa.array([[]], pa.list_(pa.null()))},
        {"tags": pa.array([["a"]]), "url": pa.array(["https://a.b/"])},
    )
    config = FilterConfig.model_validate(
        {
            "input": {"kind": "parquet", "paths": [str(folder)], "columns": ["tags"]},
            "dedup": {"near": None},
            "keep": {"min_score": -10},
            "output": {"path": str(tmp_path / "out")},
        }
    )
    run_filter(config)
    kept = pq.read_table(tmp_path / "out" / "data")
    assert kept["tags"].to_pylist() == [[], ["a"]]
    assert kept["url"].to_pylist() == [None, "https://a.b/"]


def test_inputs_with_other_columns_are_settled_together(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one"], "n": pa.array([1], pa.int32()), "url": ["u"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["two"], "n": [2**40]}), tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text('{"body": "three", "topic": ["x"]}\n')
    inputs = [
        InputConfig(kind="parquet", paths=(str(tmp_path),), columns=("n",)),
        InputConfig(kind="jsonl", paths=(str(tmp_path),), text_key="body", columns=("topic",)),
    ]
    units = plan_units(inputs)
    found = [next(iter(read_unit(unit, inputs[unit.input]))) for unit in units]
    schema = pa.schema([("n", pa.int64()), ("url", pa.string()), ("topic", pa.string())])
    assert all(pa.schema([(name, column.type) for name, column in batch.columns.items()]) == schema for batch in found)
    rows = [pa.table(batch.columns).slice(0, 1).to_pylist()[0] for batch in found]
    assert rows == [
        {"n": 1, "url": "u", "topic": None},
        {"n": 2**40, "url": None, "topic": None},
        {"n": None, "url": None, "topic": '["x"]'},
    ]
    clash = InputConfig(kind="jsonl", paths=(str(tmp_path),), text_key="body", columns=("n",))
    with pytest.raises(InputError, match=r"c\.jsonl: column 'n' is of type string, and from .*a\.parquet on of type"):
        plan_units([inputs[0], clash])


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
