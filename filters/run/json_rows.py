"""Rows of a table as JSON that loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from filters.errors import InputError
from filters.read.columns import base64_text, duration, number

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def check_schema(schema: pa.Schema) -> None:
    """Refuse what JSON has no form for, before anything is written.

    Raises:
        InputError: names the column.
    """
    for field in schema:
        try:
            _values(pa.nulls(1, field.type))
        except (pa.ArrowException, TypeError) as error:
            raise InputError(
                f"column {field.name!r} of type {field.type} cannot be written as JSON ({error}). Remedy: "
                "output.format: parquet, or leave it out of input.columns"
            ) from error


def json_lines(batch: pa.RecordBatch) -> Iterator[bytes]:
    """One JSON object a row, without the line end.

    Binary is base64, decimals and times are strings (durations as ISO 8601 has them), maps are lists of pairs, and a
    number that is not finite is "NaN", "Infinity" or "-Infinity".
    """
    names = batch.schema.names
    for row in zip(*map(_values, batch.columns), strict=True):
        yield orjson.dumps(dict(zip(names, row, strict=True)))


def _values(array: pa.Array) -> list[Any]:
    """The values of a column, of types that orjson writes."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _values(array.storage)
    if pa.types.is_dictionary(kind):
        return _values(array.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return _values(pc.run_end_decode(array))
    if pa.types.is_floating(kind):
        values: list[Any] = array.to_pylist()
        return values if pc.all(pc.is_finite(array)).as_py() is not False else [number(value) for value in values]
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        if pa.types.is_duration(kind):
            counts = array.cast(pa.int64()).to_pylist()
            return [None if count is None else duration(count, _PER_SECOND[kind.unit]) for count in counts]
        if pa.types.is_interval(kind):
            raise TypeError("an interval of months, days and nanoseconds")
        return list(array.cast(pa.string()).to_pylist())
    if _is_binary(kind):
        return [None if value is None else base64_text(value) for value in array.to_pylist()]
    if pa.types.is_struct(kind):
        return _structs(array)
    if pa.types.is_map(kind):
        pairs = array.cast(pa.list_(pa.struct([pa.field("key", kind.key_type), pa.field("value", kind.item_type)])))
        return _lists(pairs, [list(pair.values()) for pair in _structs(pairs.flatten())])
    if _is_list(kind):
        return _lists(array, _values(array.flatten()))
    if pa.types.is_union(kind):
        raise TypeError("a union")
    return list(array.to_pylist())


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    sized = types.is_fixed_size_binary(kind) or types.is_large_binary(kind)
    return bool(types.is_binary(kind) or types.is_binary_view(kind) or sized)


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    views = types.is_list_view(kind) or types.is_large_list_view(kind)
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or views)


def _lists(array: pa.Array, values: list[Any]) -> list[Any]:
    lists: list[Any] = []
    start = 0
    lengths = pc.list_value_length(array).to_pylist()
    for valid, length in zip(array.is_valid().to_pylist(), lengths, strict=True):
        lists.append(values[start : start + length] if valid else None)
        start += length if valid else 0
    return lists


def _structs(array: pa.Array) -> list[Any]:
    names = [field.name for field in array.type]
    if len(set(names)) < len(names):
        raise TypeError("two fields of one name")
    if not names:
        return [{} if valid else None for valid in array.is_valid().to_pylist()]
    rows = zip(*map(_values, array.flatten()), strict=True)
    return [
        dict(zip(names, row, strict=True)) if valid else None
        for valid, row in zip(array.is_valid().to_pylist(), rows, strict=True)
    ]
