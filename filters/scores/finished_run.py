"""A finished run as an object: its ledger, its histograms, its attributes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.errors import RunError
from filters.scores.histogram import WEIGHTS, Histogram, SlicedHistogram
from filters.scores.rules import Kind, Rule, columns_of
from filters.scores.summary import DICTIONARIES, GROUPS, SURVIVOR_COLUMNS, Summary, survivors, values_of
from filters.scores.threshold import Scored, Solution, Target, Weights, solve
from filters.storage.location import Location, files_below, location, parquet_dataset, parquet_file

DAMAGE = (OSError, pa.ArrowException, KeyError, ValueError)
"""What reading damaged side files raises."""


@contextmanager
def _named(path: Location) -> Iterator[None]:
    """What reading side files raises, as an error that names them."""
    try:
        yield
    except DAMAGE as error:
        raise RunError(
            f"{path}: cannot read the side files: {error}. Remedy: restore them (manifest.json has their SHA-256), or "
            "filter again"
        ) from error


@dataclass(frozen=True)
class Ruled:
    """What a rule keeps of the documents that survived deduplication.

    Attributes:
        where, by: the rule.
        parts: (part of the condition that `and` joins, documents that it is true of).
        fits: what the condition is true of, and what can be ranked.
        total: what there is.
    """

    where: str | None
    by: str | None
    parts: list[tuple[str, int]]
    fits: Weights
    total: Weights

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "where": self.where,
            "by": self.by,
            "documents": self.total.documents,
            "parts": [{"where": part, "documents": count} for part, count in self.parts],
            "fits": vars(self.fits),
        }


class Run:
    """A run folder.

    Args:
        path: the folder `finesieve filter` wrote, or its address (s3://...).
        storage_options: given to fsspec as they are, to open an address.

    Attributes:
        manifest: content of manifest.json.
        min_score: the run's threshold.
        ledger: what became of every record.
        scores: columns of further models and of files joined to it, and what they hold.
        slices: columns with few values that its histograms can be sliced by.

    Raises:
        RunError: the folder holds no finished run.
    """

    def __init__(self, path: str | Location, storage_options: Mapping[str, Any] | None = None) -> None:
        self.path = location(path, storage_options)
        try:
            self.manifest: dict[str, Any] = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
            self.min_score = float(self.manifest["keep"]["min_score"])
            self.ledger: dict[str, Any] = self.manifest["ledger"]
            self.slices: tuple[str, ...] = tuple(self.manifest["slices"])
            self.manifest["histograms"].keys()
            self.scores: dict[str, Kind] = {}
            for name, about in self.manifest.get("scores", {}).items():
                if "joined" in about:
                    self.scores[name] = about["joined"]["kind"]
                else:
                    self.scores |= {name: "text", f"{name}_score": "float"} if about["labels"] else {name: "float"}
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(
                f"{path}: no manifest.json here, so no finished run. Remedy: name the output.path of a filter run"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{self.path / 'manifest.json'}: not the manifest of a run by this version: {error!r}. Remedy: name "
                "the output.path of a filter run, or filter again"
            ) from error

    @property
    def score_columns(self) -> tuple[str, ...]:
        """Columns of the side files that hold scores; the first is the one with the threshold."""
        return ("score", *(name for name, kind in self.scores.items() if kind == "float"))

    def score_histogram(self, name: str) -> Histogram:
        """Values of a column of scores, of the documents that survived deduplication and have one.

        Raises:
            RunError: the manifest is damaged.
        """
        stored = self.manifest["histogram"] if name == "score" else self.manifest["score_histograms"][name]
        try:
            return Histogram.from_json(stored)
        except (KeyError, ValueError, TypeError) as error:
            raise RunError(f"{self.path / 'manifest.json'}: histogram of {name}: {error!r}") from error

    @property
    def files(self) -> list[Location]:
        """The side files, in order."""
        return files_below(self.path / "attributes", ".parquet")

    @property
    def rows(self) -> int:
        """Documents in the side files."""
        total = self.ledger["total"]
        return int(total["kept"] + sum(total["removed"].values()))

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """These columns of the side files, row group by row group in input order; texts dictionary-encoded.

        Raises:
            RunError: they are missing or damaged.
        """
        coded_columns = [name for name in columns if name in DICTIONARIES or name in self.slices]
        for path in self.files:
            with _named(path), parquet_file(path, read_dictionary=coded_columns) as file:
                for group in range(file.num_row_groups):
                    yield file.read_row_group(group, columns=list(columns), use_threads=False)

    def summary(self, *, extremes: int = 0, groups: Sequence[str] = GROUPS) -> Summary:
        """What the views show, in one pass over the side files.

        Args:
            groups: columns with many values to count by.
            extremes: how many of the best and worst documents to find.

        Raises:
            RunError: the side files are missing, damaged, or not those the ledger counts.
        """
        summary = Summary(self.slices, groups, extremes=extremes)
        for table in self.tables(summary.columns):
            summary.add(table)
        self._check_rows(summary.rows)
        return summary

    def _check_rows(self, rows: int) -> None:
        if rows != self.rows:
            raise RunError(
                f"{self.path / 'attributes'}: {rows:,} rows where the ledger has {self.rows:,} documents. "
                "Remedy: restore the missing side files, or filter again"
            )

    @overload
    def histogram(self, by: None = None) -> Histogram: ...
    @overload
    def histogram(self, by: str, *, largest: int = ...) -> SlicedHistogram: ...
    def histogram(self, by: str | None = None, *, largest: int = 1000) -> Histogram | SlicedHistogram:
        """Scores of the documents that survived deduplication.

        Args:
            by: "language", "host", "source", or a column of `input.slices`; None: all documents together.
            largest: of a column with more values, take those with most documents.

        Raises:
            RunError: the run has no such column, or its files are damaged.
        """
        return self.score_histogram("score") if by is None else self._sliced(by, largest)

    def _sliced(self, by: str, largest: int) -> SlicedHistogram:
        self.check_column(by)
        if by in self.manifest["histograms"]:
            stored = self.manifest["histograms"][by]
            every = SlicedHistogram.from_json(by, stored)
            if len(every) <= largest:
                return every
            chosen = set(every.largest(largest))
            return SlicedHistogram.from_json(by, [part for part in stored if part["value"] in chosen])
        wanted = None
        if by in GROUPS:
            counting = Summary((), (by,))
            for table in self.tables(counting.columns):
                counting.add(table)
            if len(counting.groups[by]) > largest:
                wanted = {group.value for group in counting.groups[by].largest(largest)}
        sliced = SlicedHistogram(by)
        for table in self.tables([*SURVIVOR_COLUMNS, by]):
            found = survivors(table)
            values, places = values_of(table, by, found.rows)
            if wanted is not None:
                places = np.where(np.array([value in wanted for value in values])[places], places, -1)
            sliced.add(values, places, found.scores, tokens=found.tokens, text_bytes=found.text_bytes)
        return sliced

    def check_column(self, by: str) -> None:
        """Refuse a column that histograms cannot be sliced by.

        Raises:
            RunError: names those that can.
        """
        allowed = list(dict.fromkeys(("language", *GROUPS, *self.slices)))
        if by not in allowed:
            raise RunError(
                f"{self.path}: cannot slice by {by!r}; this run has {', '.join(allowed)}. Remedy: name the column in "
                "input.slices, and filter again"
            )

    def rule(self, where: str | None, target: Target | None = None) -> Rule | None:
        """The rule that a condition and a target's number to rank by make; None where neither is given.

        Raises:
            ConfigError: one of them is no rule.
        """
        by = None if target is None else target.by
        if where is None and by is None:
            return None
        threshold = target.value if target is not None and target.rule == "min_score" else None
        return Rule(where, by, columns_of(self.slices, self.scores), ("--where", "--keep"), threshold)

    def ruled(self, rule: Rule) -> Ruled:
        """What a rule keeps of the documents that survived deduplication.

        Raises:
            ConfigError: a list that it names cannot be read.
            RunError: the side files are missing or damaged.
        """
        totals, held = np.zeros((2, len(WEIGHTS)), np.int64), np.zeros(len(rule.parts), np.int64)
        for table in self.tables(list(dict.fromkeys([*SURVIVOR_COLUMNS, *rule.columns]))):
            found = survivors(table)
            decided = rule.decide(table.take(pa.array(found.rows)))
            fits = decided.keeps if decided.values is None else decided.keeps & ~np.isnan(decided.values)
            for row, chosen in enumerate((np.ones(len(fits), np.bool_), fits)):
                tokens, text_bytes = found.tokens[chosen], found.text_bytes[chosen]
                totals[row] += (len(tokens), tokens.sum(dtype=np.int64), text_bytes.sum())
            held += np.array(decided.held, np.int64)
        parts = list(zip(rule.parts, held.tolist(), strict=True))
        return Ruled(rule.where, rule.by, parts, Weights.of(totals[1]), Weights.of(totals[0]))

    def solve(
        self,
        target: Target,
        *,
        by: str | None = None,
        quotas: Mapping[str, float] | None = None,
        where: str | None = None,
    ) -> Solution:
        """The threshold that keeps what `target` asks for, exact; see `filters.scores.threshold.solve`.

        Args:
            target: what shall be kept.
            by: column of the quotas.
            quotas: value of it -> its largest share.
            where: a condition; documents that do not fulfil it are as if they were not there.

        Raises:
            ConfigError: quotas that make no sense, or a rule that is none.
            RunError: the side files are damaged, or have no column `by`.
        """
        if by is not None:
            self.check_column(by)

        rule = self.rule(where, target)
        columns = dict.fromkeys([*SURVIVOR_COLUMNS, *([by] if by else []), *(rule.columns if rule else ())])

        def batches() -> Iterator[Scored]:
            for table in self.tables(list(columns)):
                found, column = survivors(table), None
                if by:
                    values, places = values_of(table, by, found.rows)
                    column = np.array(values, dtype=object)[places]
                if rule is None:
                    yield Scored(found.scores, found.tokens, found.text_bytes, column)
                    continue
                decided = rule.decide(table.take(pa.array(found.rows)))
                rank = found.scores if decided.values is None else decided.values
                fits = decided.keeps & ~np.isnan(rank)
                column = None if column is None else column[fits]
                yield Scored(rank[fits], found.tokens[fits], found.text_bytes[fits], column)

        return solve(target, batches, histogram=None if rule else self.histogram(), by=by, quotas=quotas)

    def attributes(self, columns: list[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """Rows of the side files, in input order.

        Raises:
            RunError: they are missing or damaged.
        """
        with _named(self.path / "attributes"):
            return self.dataset().to_table(columns=columns, filter=where)

    def dataset(self) -> Any:
        """The side files as a pyarrow data set.

        Raises:
            RunError: they are missing or damaged.
        """
        with _named(self.path / "attributes"):
            found = parquet_dataset(self.files, format="parquet")
            rows = found.count_rows()  # of the files' own words
        self._check_rows(rows)
        return found

    def rows_at(self, rows: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """These columns of the rows with these numbers, counted over all side files in order, in the order asked for.

        Raises:
            RunError: the side files are missing or damaged.
        """
        found: dict[int, dict[str, Any]] = {}
        first = 0
        for path in self.files:
            with _named(path), parquet_file(path) as file:
                for group in range(file.num_row_groups):
                    count = file.metadata.row_group(group).num_rows
                    inside = sorted({row for row in rows if first <= row < first + count})
                    if inside:
                        table = file.read_row_group(group, columns=list(columns), use_threads=False)
                        taken = table.take(pa.array([row - first for row in inside])).to_pylist()
                        found |= dict(zip(inside, taken, strict=True))
                    first += count
        return [found[row] for row in rows]
