"""Ids of documents that were given none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import xxhash

from filters.read.json_values import BigInteger


def derived_ids(source: str, positions: Iterable[int]) -> list[str]:
    """xxh3-128 of source and position, as 32 hexadecimal digits: the same in every run over the same input."""
    prefix = source.encode("utf-8", "surrogateescape") + b"\0"
    digest = xxhash.xxh3_128_hexdigest
    return [digest(prefix + b"%d" % position) for position in positions]


def given_ids(source: str, positions: Sequence[int], values: Sequence[object]) -> list[str]:
    """Ids as the input gives them (`str()` of numbers), derived where there is none or it is NaN (as pandas has
    a missing one), a list or an object."""
    numbers = (int, float, BigInteger)
    ids = [
        value if type(value) is str else str(value) if isinstance(value, numbers) and value == value else ""
        for value in values
    ]
    missing = [row for row, value in enumerate(ids) if not value]
    for row, value in zip(missing, derived_ids(source, [positions[row] for row in missing]), strict=True):
        ids[row] = value
    return ids
