"""Everything the views of a run show, gathered in one pass over its side files.

A `Summary` is filled table by table and holds counts only: its size does not grow with the number of documents, except
for hosts (about 100 bytes each) and clusters of duplicates (16 bytes each).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.arrays import Bool, Float32, Int64
from filters.scores.histogram import SCORE_UNIT, Histogram, SlicedHistogram

Indices = npt.NDArray[np.signedinteger[Any]]

BELOW = ("low_score", "low_rank", "over_quota", "other_bucket", "rule")
"""Reasons of a document that nothing but the keep rule removed."""
DUPLICATES = ("exact_duplicate", "near_duplicate")
PLAIN = ("score", "tokens", "bytes", "keep", "near_cluster")
GROUPS = ("host", "source")
"""Columns with very many values."""
SURVIVOR_COLUMNS = ("score", "tokens", "bytes", "reason")
MAX_VALUES = 256
"""A column with more values is not in the manifest; its histograms are counted from the side files when asked for."""
DICTIONARIES = ("reason", "language", "host", "source")
SUMS = ("documents", "survivors", "kept", "tokens", "kept_tokens", "score_sum")
"""documents: all; survivors: scored and left by deduplication; tokens and score_sum: of survivors."""
PENDING = 500_000
"""Rows that wait to be summed up, or a million numbers of clusters."""


class Place(NamedTuple):
    """A document, by its row in the side files, counted over all of them in order, from 0."""

    row: int
    score: float


class Survivors(NamedTuple):
    """The n documents of a table that have a score and that deduplication left.

    Attributes:
        rows: int64[n], their rows in the table.
    """

    rows: Int64
    scores: Float32
    tokens: Int64
    text_bytes: Int64


def survivors(table: pa.Table | pa.RecordBatch) -> Survivors:
    """Those of a table with `SURVIVOR_COLUMNS`."""
    scores = _scores(table["score"])
    names, reasons = coded(_one_chunk(table["reason"]))
    rows = np.flatnonzero(_survive(names.to_pylist(), reasons, scores))
    tokens, text_bytes = _integers(_one_chunk(table["tokens"])), _integers(_one_chunk(table["bytes"]))
    return Survivors(rows, scores[rows], tokens[rows], text_bytes[rows])


def values_of(table: pa.Table | pa.RecordBatch, by: str, rows: Int64) -> tuple[list[str | None], Indices]:
    """(values, int64[n]): values of a column of strings, the last one None, and the place of each row's value."""
    values, indices = coded(_one_chunk(table[by]))
    places = indices[rows]
    return [*values.to_pylist(), None], np.where(places < 0, len(values), places)


def _survive(names: list[str], reasons: Indices, scores: Float32) -> Bool:
    # The last place is that of documents without a reason.
    return np.array([*(name in BELOW for name in names), True])[reasons] & ~np.isnan(scores)


def _scores(column: Any) -> Float32:
    """float32[n], NaN where null."""
    return np.asarray(_one_chunk(column).to_numpy(zero_copy_only=False), dtype=np.float32)


class Histograms:
    """Scores of the survivors: all together, and by the values of some columns.

    Args:
        slices: columns with few values, besides `language`.
        scores: columns of further scores.

    Attributes:
        total: of all survivors.
        slices: column -> histograms by its values.
        scores: column -> histogram of its values, those of survivors that have one.
    """

    def __init__(self, slices: Iterable[str] = (), scores: Iterable[str] = ()) -> None:
        self.total = Histogram()
        self.scores = {name: Histogram() for name in scores}
        self.slices = {by: SlicedHistogram(by) for by in dict.fromkeys(("language", *slices))}

    def add(self, table: pa.Table | pa.RecordBatch) -> None:
        """Count the rows of a table with `SURVIVOR_COLUMNS` and the slices' columns."""
        self.count(table, survivors(table))

    def count(self, table: pa.Table | pa.RecordBatch, found: Survivors) -> None:
        """Count the survivors of a table with the slices' columns."""
        for by, sliced in self.slices.items():
            part = SlicedHistogram(by)
            values, places = values_of(table, by, found.rows)
            part.add(values, places, found.scores, tokens=found.tokens, text_bytes=found.text_bytes)
            sliced.merge(part)
        for name, histogram in self.scores.items():
            scores = _scores(table[name])[found.rows]
            has = ~np.isnan(scores)
            histogram.add(scores[has], tokens=found.tokens[has], text_bytes=found.text_bytes[has])
        # Each survivor has a value, or is in the slice None.
        self.total.merge(part.total())

    def merge(self, other: Histograms) -> Self:
        """Add another's counts to this one's."""
        self.total.merge(other.total)
        for by, sliced in other.slices.items():
            self.slices[by].merge(sliced)
        for name, histogram in other.scores.items():
            self.scores[name].merge(histogram)
        return self

    def scores_to_json(self) -> dict[str, Any]:
        """Histograms of the further scores in plain types."""
        return {name: histogram.to_json() for name, histogram in self.scores.items()}

    def to_json(self) -> dict[str, Any]:
        """Histograms by slice in plain types; columns with more than `MAX_VALUES` values are left out."""
        return {by: sliced.to_json() for by, sliced in self.slices.items() if len(sliced) <= MAX_VALUES}


@dataclass(frozen=True)
class Group:
    """One value of a column with very many of them.

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

    Args:
        by: name of the column.
    """

    def __init__(self, by: str) -> None:
        self.by = by
        self._sums = pa.table(
            {"value": pa.array([], pa.large_string()), **dict.fromkeys(SUMS, pa.array([], pa.int64()))}
        )
        self._waiting: list[pa.Table] = []

    def add(self, values: pa.Array, sums: Int64) -> None:
        """Add sums by value.

        Args:
            values: string[n], no nulls; a value may come more than once.
            sums: int64[n, 6], the columns of `SUMS`.
        """
        columns = {name: pa.array(sums[:, place]) for place, name in enumerate(SUMS)}
        self._waiting.append(pa.table({"value": values.cast(pa.large_string()), **columns}))
        if sum(part.num_rows for part in self._waiting) > PENDING:
            self._settle()

    def _settle(self) -> pa.Table:
        """A row for each value, in no particular order."""
        if self._waiting:
            grouped = pa.concat_tables([self._sums, *self._waiting]).group_by("value", use_threads=False)
            self._sums = grouped.aggregate([(name, "sum") for name in SUMS]).rename_columns(["value", *SUMS])
            self._waiting = []
        return self._sums

    def __len__(self) -> int:
        return int(self._settle().num_rows)

    def largest(self, count: int) -> list[Group]:
        """The `count` values with most survivors, ties by value."""
        return _best(self._settle(), [("survivors", "descending")], count)

    def ranked(self, count: int, *, best: bool, least: int = 1) -> list[Group]:
        """The `count` values with the highest (or lowest) mean score, of those with at least `least` survivors."""
        table = self._settle().filter(pc.field("survivors") >= max(least, 1))
        mean = pc.divide(table["score_sum"].cast(pa.float64()), table["survivors"].cast(pa.float64()))
        order = [("mean", "descending" if best else "ascending"), ("survivors", "descending")]
        return _best(table.append_column("mean", mean), order, count)

    def get(self, values: list[str]) -> dict[str, Group]:
        """The groups of `values`, of those that exist."""
        table = self._settle()
        rows = table.filter(pc.is_in(table["value"], pa.array(values, pa.large_string())))
        return {row["value"]: _group(row) for row in rows.to_pylist()}


def _best(table: pa.Table, keys: list[tuple[str, str]], count: int) -> list[Group]:
    order = pc.select_k_unstable(table, k=min(count, table.num_rows), sort_keys=[*keys, ("value", "ascending")])
    return [_group(row) for row in table.take(order).to_pylist()]


def _group(row: dict[str, Any]) -> Group:
    survivors, score_sum = row["survivors"], row["score_sum"]
    mean = score_sum * SCORE_UNIT / survivors if survivors else float("nan")
    return Group(row["value"], mean_score=mean, **{name: row[name] for name in SUMS if name != "score_sum"})


class Clusters:
    """Sizes of clusters of duplicates: the document that stayed, and its copies."""

    def __init__(self) -> None:
        self._roots: Int64 = np.zeros(0, np.int64)
        self._copies: Int64 = np.zeros(0, np.int64)
        self._waiting: list[Int64] = []

    def add(self, roots: Int64) -> None:
        """Count removed copies by the number of their cluster."""
        self._waiting.append(roots)
        if sum(map(len, self._waiting)) > max(2 * PENDING, len(self._roots)):
            self._settle()

    def _settle(self) -> None:
        new = np.concatenate([np.zeros(0, np.int64), *self._waiting])
        self._waiting = []
        copies = np.concatenate([self._copies, np.ones(len(new), np.int64)])
        self._roots, places = np.unique(np.concatenate([self._roots, new]), return_inverse=True)
        self._copies = np.bincount(places, copies, len(self._roots)).astype(np.int64)

    def __len__(self) -> int:
        self._settle()
        return len(self._roots)

    @property
    def copies(self) -> int:
        """Documents removed as copies."""
        self._settle()
        return int(self._copies.sum())

    @property
    def sizes(self) -> dict[int, int]:
        """Size of a cluster, with the one that stayed -> number of clusters of that size; ascending."""
        self._settle()
        sizes, clusters = np.unique(self._copies + 1, return_counts=True)
        return dict(zip(sizes.tolist(), clusters.tolist(), strict=True))

    def largest(self, count: int) -> list[tuple[int, int]]:
        """(number of the cluster, its size) of the largest ones, ties by number."""
        self._settle()
        order = np.argsort(-self._copies, kind="stable")[:count]
        return list(zip(self._roots[order].tolist(), (self._copies[order] + 1).tolist(), strict=True))


class Summary:
    """See the module. Survivors are the documents that have a score and that deduplication left.

    Args:
        slices: columns with few values to slice histograms by, besides `language`.
        groups: columns with many values to count by.
        extremes: how many of the best and worst documents to remember.

    Attributes:
        rows: documents seen.
        kept: documents kept.
        histograms: of the survivors.
        groups: column -> counts by its values.
        reasons: reason -> documents removed for it.
        clusters: sizes of clusters of duplicates.
        columns: that `add` reads.
    """

    def __init__(self, slices: Iterable[str] = (), groups: Iterable[str] = GROUPS, *, extremes: int = 0) -> None:
        self.rows = self.kept = 0
        self.histograms = Histograms(slices)
        self.groups = {by: Groups(by) for by in groups}
        self.reasons: Counter[str] = Counter()
        self.clusters = Clusters()
        self.columns = list(dict.fromkeys([*PLAIN, "reason", *self.histograms.slices, *self.groups]))
        self._extremes = extremes
        self._ends: dict[bool, list[tuple[float, int]]] = {True: [], False: []}

    def add(self, table: pa.Table | pa.RecordBatch) -> None:
        """Count the next rows, with the columns `columns`; text columns are fastest dictionary-encoded."""
        from filters.kernels.histogram import count_groups

        column = {name: _one_chunk(table[name]) for name in self.columns}
        scores, tokens, text_bytes = _scores(column["score"]), _integers(column["tokens"]), _integers(column["bytes"])
        keep = np.asarray(column["keep"].to_numpy(zero_copy_only=False), dtype=bool)
        values, reasons = coded(column["reason"])
        names: list[str] = values.to_pylist()
        counts = np.bincount(reasons[reasons >= 0], minlength=len(names))
        self.reasons.update({name: int(count) for name, count in zip(names, counts, strict=True) if count})
        survives = _survive(names, reasons, scores)
        rows = np.flatnonzero(survives)
        self.histograms.count(pa.table(column), Survivors(rows, scores[rows], tokens[rows], text_bytes[rows]))
        for name, groups in self.groups.items():
            values, indices = coded(column[name])
            sums = np.zeros((len(values), len(SUMS)), np.int64)
            count_groups(indices, survives, keep, scores, tokens, 1 / SCORE_UNIT, sums)
            used = sums[:, 0] > 0
            groups.add(values.filter(pa.array(used)), sums[used])
        copies = np.array([*(name in DUPLICATES for name in names), False])[reasons]
        self.clusters.add(_integers(column["near_cluster"].filter(pa.array(copies))))
        self._remember(rows, scores)
        self.kept += int(keep.sum())
        self.rows += len(scores)

    def _remember(self, rows: Int64, scores: Float32) -> None:
        for best, ends in self._ends.items() if self._extremes else ():
            # Ascending by (rank, row): the first one wins a tie.
            ranks = -scores[rows] if best else scores[rows]
            near = ranks < ends[-1][0] if len(ends) == self._extremes else np.ones(len(rows), bool)
            order = np.flatnonzero(near)
            order = order[np.argsort(ranks[order], kind="stable")[: self._extremes]]
            ends += zip(ranks[order].tolist(), (self.rows + rows[order]).tolist(), strict=True)
            ends.sort()
            del ends[self._extremes :]

    def extremes(self, *, best: bool) -> list[Place]:
        """The survivors with the highest (or lowest) scores; of equal scores the earlier row comes first."""
        return [Place(row, -rank if best else rank) for rank, row in self._ends[best]]


def coded(column: pa.Array) -> tuple[pa.Array, Indices]:
    """(values, int[n]): distinct values of a column of strings, and the place of each row's value, -1 for null."""
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    values, indices = column.dictionary, column.indices
    if values.null_count:
        indices = pc.if_else(pc.take(values.is_valid(), indices), indices, -1)
        values = values.fill_null("")
    filled = indices.fill_null(-1) if indices.null_count else indices
    return values, np.asarray(filled.to_numpy(zero_copy_only=False))


def _one_chunk(column: Any) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return column.unify_dictionaries().combine_chunks() if column.num_chunks else pa.array([], column.type)


def _integers(column: pa.Array) -> Int64:
    """int64[n], 0 where null."""
    filled = column.fill_null(0) if column.null_count else column
    return np.asarray(filled.cast(pa.int64()).to_numpy(zero_copy_only=False), dtype=np.int64)
