"""Reading back the files of a finished run, wherever they lie: what `finesieve verify` compares."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import zstandard

from filters.arrays import UInt64
from filters.dedup.bands import id_hashes
from filters.kernels import GOLDEN
from filters.run.steps import KILLED_WORKER
from filters.scores.summary import SURVIVOR_COLUMNS, Histograms
from filters.storage.location import Location, parquet_file

_COMPARED = ["id", "text", "score", "language", "tokens", "source", "position"]
_HALF = np.uint64(32)


class DocumentSum:
    """A multiset of documents (id and score) as a sum of their hashes: equal for equal multisets in any order, in
    constant memory.

    Attributes:
        value: the sum, modulo 2^64.
        count: how many documents.
    """

    def __init__(self) -> None:
        self.value, self.count = 0, 0

    def add(self, ids: pa.Array, scores: pa.Array, times: npt.NDArray[np.integer[Any]]) -> None:
        """Add documents: string[n], float32[n], and how often each is there, int[n]."""
        hashes = id_hashes(ids) ^ _bits(scores)
        hashes = (hashes ^ (hashes >> _HALF)) * GOLDEN  # products wrap at 2^64, as meant; so does the sum
        self.value = (self.value + int((hashes * times.astype(np.uint64)).sum(dtype=np.uint64))) % 2**64
        self.count += int(times.sum())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DocumentSum) and (self.value, self.count) == (other.value, other.count)

    __hash__ = None  # type: ignore[assignment]


def _bits(scores: pa.Array) -> UInt64:
    exact = pc.fill_null(scores.cast(pa.float32()), float("nan"))
    bits: UInt64 = exact.to_numpy(zero_copy_only=False).view(np.uint32).astype(np.uint64) * GOLDEN
    return bits


class SideFiles:
    """Everything a pass over the side files of a run tells.

    Args:
        files: of attributes/.
        by: column that the run's quotas look at; None without quotas.
        scores: columns of further scores.

    Attributes:
        rows: how many.
        copies: rows that the shards should have.
        accounts: documents by (source, reason); kept ones have the reason None.
        documents: those that are kept, each as often as it is written.
        histogram: scores of the survivors.
        scores: histograms of the further scores.
        lowest_kept: lowest score of a kept document; None where none is.
        highest_dropped: highest score of a survivor that nothing but its score removed; None where there is none.
        kept_from: value of `by` -> lowest score of its kept documents.
        over_quota: value of `by` -> (lowest, highest) score of its documents that a quota removed.
    """

    def __init__(self, files: Iterable[Location], by: str | None = None, scores: Iterable[str] = ()) -> None:
        self.rows = self.copies = 0
        self._by = by
        self.kept_from: dict[str | None, float] = {}
        self.over_quota: dict[str | None, tuple[float, float]] = {}
        self.accounts: Counter[tuple[str, str | None]] = Counter()
        self.documents = DocumentSum()
        self._histograms = Histograms((), scores)
        self.histogram, self.scores = self._histograms.total, self._histograms.scores
        self.lowest_kept: float | None = None
        self.highest_dropped: float | None = None
        for file in files:
            columns = [*SURVIVOR_COLUMNS, "id", "source", "keep", "copies", "language", *self.scores]
            for table in tables(file, list(dict.fromkeys([*columns, *([by] if by else [])]))):
                self._add(table)

    def _add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        found = table.group_by(["source", "reason"]).aggregate([([], "count_all")])
        for row in found.to_pylist():
            self.accounts[row["source"], row["reason"]] += row["count_all"]
        kept = table["keep"].to_numpy()
        times = table["copies"].to_numpy() if "copies" in table.column_names else kept.astype(np.int64)
        times = np.nan_to_num(times).astype(np.int64)
        self.copies += int(times.sum())
        self.documents.add(table["id"].combine_chunks(), table["score"].combine_chunks(), times)
        self._histograms.add(table)
        low = pc.min(table["score"].filter(table["keep"])).as_py()
        high = pc.max(table["score"].filter(pc.equal(table["reason"], "low_score"))).as_py()
        if self._by is not None:
            self._add_quotas(table, self._by)
        self.lowest_kept = min((score for score in (self.lowest_kept, low) if score is not None), default=None)
        self.highest_dropped = max((score for score in (self.highest_dropped, high) if score is not None), default=None)

    def _add_quotas(self, table: pa.Table, by: str) -> None:
        by_value = table.group_by([by, "reason"]).aggregate([("score", "min"), ("score", "max")])
        for row in by_value.to_pylist():
            value, low, high = row[by], row["score_min"], row["score_max"]
            if row["reason"] is None:
                self.kept_from[value] = min(low, self.kept_from.get(value, low))
            elif row["reason"] == "over_quota":
                before = self.over_quota.get(value, (low, high))
                self.over_quota[value] = min(low, before[0]), max(high, before[1])


def shard_documents(files: Iterable[Location]) -> DocumentSum:
    """The documents of the shards."""
    found = DocumentSum()
    for file in files:
        for table in tables(file, ["id", "score"]):
            ids = table["id"].combine_chunks()
            found.add(ids, table["score"].combine_chunks(), np.ones(len(ids), np.int64))
    return found


def quarantine_accounts(file: Location) -> Counter[tuple[str, str]]:
    """Records by (source, cause) in quarantine.jsonl."""
    found: Counter[tuple[str, str]] = Counter()
    with file.open("rb") as lines:
        for line in lines:
            record = json.loads(line)
            found[record["source"], record["cause"].partition(":")[0]] += 1
    return found


def killers_of(file: Location, source: str) -> dict[int, str]:
    """Position -> cause of the documents of an input file in quarantine.jsonl that killed the worker that read them."""
    found: dict[int, str] = {}
    with file.open("rb") as lines:
        for line in lines:
            record = json.loads(line)
            if record["source"] == source and record["cause"].partition(":")[0] == KILLED_WORKER:
                found[int(record["position"])] = record["cause"]
    return found


def tables(file: Location, columns: list[str]) -> Iterator[pa.Table]:
    """Those of the columns that a file has, in pieces."""
    if not file.name.endswith(".parquet"):
        with file.open("rb") as stored, zstandard.open(stored, "rt", encoding="utf-8") as lines:
            rows: list[dict[str, Any]] = []
            for line in lines:
                row = json.loads(line)
                rows.append({name: row[name] for name in columns})
                if len(rows) == 10_000:
                    yield pa.Table.from_pylist(rows)
                    rows = []
            if rows:
                yield pa.Table.from_pylist(rows)
        return
    parquet = parquet_file(file, page_checksum_verification=True)
    present = [name for name in columns if name in parquet.schema_arrow.names]
    for batch in parquet.iter_batches(columns=present):
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def documents_at(file: Location, rows: npt.NDArray[np.int64], scores: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Documents of a shard by their rows, ascending, with further scores; only row groups that hold some are read."""
    if not file.name.endswith(".parquet"):
        wanted = set(rows.tolist())
        with file.open("rb") as stored, zstandard.open(stored, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for number, line in enumerate(lines) if number in wanted]
    found: list[dict[str, Any]] = []
    parquet = parquet_file(file)
    first = 0
    for group in range(parquet.num_row_groups):
        count = parquet.metadata.row_group(group).num_rows
        here = rows[(rows >= first) & (rows < first + count)] - first
        first += count
        if len(here):
            found += parquet.read_row_group(group, columns=[*_COMPARED, *scores]).take(pa.array(here)).to_pylist()
    return found


def rows_of_unit(
    files: Iterable[Location], source: str, start: int | None, stop: int | None, most: int, scores: Iterable[str]
) -> dict[int, dict[str, Any]]:
    """Side file rows of the first documents of an input unit, by position; some more than `most`, where there are."""
    rows: dict[int, dict[str, Any]] = {}
    for file in files:
        for table in tables(file, ["source", "position", "exact_hash", *scores]):
            mine = pc.equal(table["source"], source)
            if start is not None and stop is not None:
                position = table["position"]
                mine = pc.and_(mine, pc.and_(pc.greater_equal(position, start), pc.less(position, stop)))
            for row in table.filter(mine).to_pylist():
                rows[row["position"]] = row
            if len(rows) > 2 * most:
                return rows
    return rows


def rows_by_id(files: Iterable[Location], ids: Iterable[str], scores: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Side file rows of documents, with these scores."""
    wanted = pa.array(sorted(set(ids)), pa.string())
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        for table in tables(file, list(dict.fromkeys([*_COMPARED, *scores, "exact_hash"]).keys() - {"text"})):
            mine = table.filter(pc.is_in(table["id"], value_set=wanted))
            found |= {row["id"]: row for row in mine.to_pylist()}
    return found
