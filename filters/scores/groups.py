"""Counts by the values of a column with very many of them: hosts, input files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.compute as pc

from filters.arrays import Int64
from filters.scores.histogram import SCORE_UNIT

if TYPE_CHECKING:
    import pandas as pd


SUMS = ("documents", "survivors", "kept", "tokens", "kept_tokens", "score_sum")
"""documents: all; survivors: scored and left by deduplication; tokens and score_sum: of survivors."""
PENDING_ROWS = 500_000


@dataclass(frozen=True)
class Group:
    """One value of the column.

    Attributes:
        value: of the column.
        documents: with this value.
        survivors: of these, with a score and left by deduplication.
        kept: of these, kept.
        tokens: of the survivors.
        kept_tokens: of those kept.
        mean_score: of the survivors; NaN without any.
    """

    value: str
    documents: int
    survivors: int
    kept: int
    tokens: int
    kept_tokens: int
    mean_score: float

    @property
    def keep_rate(self) -> float:
        """Share of the survivors that is kept; NaN without survivors."""
        return self.kept / self.survivors if self.survivors else float("nan")


class Groups:
    """Sums for each value of a column; documents without a value are not counted.

    Memory grows with the number of different values (about 100 bytes each), not with the number of documents.

    Args:
        by: name of the column.
    """

    def __init__(self, by: str) -> None:
        self.by = by
        self._parts: list[pa.Table] = []
        self._pending = 0

    def add(self, values: pa.Array, sums: Int64) -> None:
        """Add sums by value.

        Args:
            values: string[n], no nulls; a value may come more than once.
            sums: int64[n, 6], the columns of `SUMS`.
        """
        columns = {name: pa.array(sums[:, place]) for place, name in enumerate(SUMS)}
        self._parts.append(pa.table({"value": values.cast(pa.large_string()), **columns}))
        self._pending += len(values)
        if self._pending > PENDING_ROWS:
            self._parts = [self._merged()]
            self._pending = 0

    def merge(self, other: Groups) -> Self:
        """Add another's sums to this one's."""
        self._parts = [pa.concat_tables([self.table, other.table])]
        self._parts = [self._merged()]
        return self

    def _merged(self) -> pa.Table:
        if not self._parts:
            return pa.table(
                {"value": pa.array([], pa.large_string()), **{name: pa.array([], pa.int64()) for name in SUMS}}
            )
        grouped = pa.concat_tables(self._parts).group_by("value", use_threads=False)
        table = grouped.aggregate([(name, "sum") for name in SUMS])
        return pa.table({"value": table["value"], **{name: table[f"{name}_sum"] for name in SUMS}})

    @property
    def table(self) -> pa.Table:
        """Columns value and `SUMS`, a row for each value, in no particular order."""
        if len(self._parts) != 1 or self._pending:
            self._parts, self._pending = [self._merged()], 0
        return self._parts[0]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def largest(self, count: int, weight: str = "survivors") -> list[Group]:
        """The `count` values with the largest sum of `weight` (one of `SUMS`), ties by value."""
        return self._best(self.table, [(weight, "descending")], count)

    def ranked(self, count: int, *, best: bool, least: int = 1) -> list[Group]:
        """The `count` values with the highest (or lowest) mean score, of those with at least `least` survivors."""
        table = self.table.filter(pc.field("survivors") >= max(least, 1))
        mean = pc.divide(table["score_sum"].cast(pa.float64()), table["survivors"].cast(pa.float64()))
        table = table.append_column("mean", mean)
        return self._best(table, [("mean", "descending" if best else "ascending"), ("survivors", "descending")], count)

    @staticmethod
    def _best(table: pa.Table, keys: list[tuple[str, str]], count: int) -> list[Group]:
        order = pc.select_k_unstable(table, k=min(count, table.num_rows), sort_keys=[*keys, ("value", "ascending")])
        return [_group(row) for row in table.take(order).to_pylist()]

    def get(self, values: list[str]) -> dict[str, Group]:
        """The groups of `values`, of those that exist."""
        rows = self.table.filter(pc.is_in(self.table["value"], pa.array(values, pa.large_string())))
        return {row["value"]: _group(row) for row in rows.to_pylist()}

    def to_pandas(self) -> pd.DataFrame:
        """A row for each value, most survivors first: the column, the counts, mean_score, keep_rate."""
        table = self.table.sort_by([("survivors", "descending"), ("value", "ascending")])
        frame: pd.DataFrame = table.to_pandas().rename(columns={"value": self.by})
        frame["mean_score"] = frame.pop("score_sum") * SCORE_UNIT / frame["survivors"].where(frame["survivors"] > 0)
        frame["keep_rate"] = frame["kept"] / frame["survivors"].where(frame["survivors"] > 0)
        return frame


def _group(row: dict[str, int | str]) -> Group:
    survivors = int(row["survivors"])
    mean = int(row["score_sum"]) * SCORE_UNIT / survivors if survivors else float("nan")
    counts = {name: int(row[name]) for name in SUMS if name != "score_sum"}
    return Group(str(row["value"]), mean_score=mean, **counts)
