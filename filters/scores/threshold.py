"""From a budget to a threshold: exact, with ties stated, in a few passes over the scores and bounded memory.

A threshold keeps whole groups of equal scores: kept is `score >= threshold`, compared in float32. A budget (a share of
the documents, a number of tokens) is a ceiling: the threshold is the lowest score at which what is kept still fits. The
group of equal scores that would have crossed the ceiling is dropped whole, and named in the solution (`Solution.tie`).

A histogram narrows the threshold down to one bin. Exact values follow from passes over the scores that count `CELLS`
equal ranges of float32 values each: one pass for a bin above 0.25, at most two below. Counts merge in any order, so
that tasks may count apart:

    search = ThresholdSearch(histogram, Target("tokens", 1.3e12))
    while search.window is not None:
        cells = search.cells()
        for batch in every_batch():  # the same documents that the histogram counted
            cells.add(batch.scores, tokens=batch.tokens, text_bytes=batch.text_bytes)
        search.narrow(cells)
    search.solution()

`solve` does that for batches of one process, with quotas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from filters.arrays import Float32, Int64
from filters.errors import ConfigError
from filters.scores.histogram import EDGES, WEIGHTS, Histogram, bins_of, nearest_edge

Rule = Literal["min_score", "fraction", "tokens"]

_RULES: tuple[Rule, ...] = ("min_score", "fraction", "tokens")


@dataclass(frozen=True)
class Target:
    """What shall be kept.

    Attributes:
        rule: "min_score" (a threshold), "fraction" (a share of the documents) or "tokens" (a number of tokens).
        value: of the rule.
        by: number in SQL that documents are ranked by (see `filters.scores.rules`); None: the score.

    Raises:
        ConfigError: a value that the rule cannot have, or a threshold with another number to rank by.
    """

    rule: Rule
    value: float
    by: str | None = None

    def __post_init__(self) -> None:
        bounds = {"min_score": (-np.inf, np.inf), "fraction": (0.0, 1.0), "tokens": (0.0, np.inf)}
        if self.rule not in bounds:
            raise ConfigError(f"keep {self.rule!r}: the rules are {', '.join(_RULES)}")
        low, high = bounds[self.rule]
        if not (np.isfinite(self.value) and low <= self.value <= high):
            allowed = {"min_score": "a number", "fraction": "a share from 0 to 1", "tokens": "a number from 0 up"}
            raise ConfigError(f"keep {self.rule}={self.value}: must be {allowed[self.rule]}")
        if self.by is not None and self.rule == "min_score":
            raise ConfigError(f"keep {self}: a threshold is of the score. Remedy: write the condition into --where")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "fraction=0.1", "tokens=1.3e12" or "min_score=1.5"; after a budget " by " and a number to rank by.

        Raises:
            ConfigError: it is none of these.
        """
        asked, by, number = text.partition(" by ")
        rule, _, value = asked.partition("=")
        try:
            if rule in _RULES:
                return cls(rule, float(value), number if by else None)
        except ValueError:
            pass
        raise ConfigError(
            f"--keep {text}: write min_score=1.5, fraction=0.1, tokens=1.3e12, or fraction=0.1 by score * ln(tokens)"
        )

    @property
    def weight(self) -> str:
        """What the rule counts: one of `WEIGHTS`."""
        return "tokens" if self.rule == "tokens" else "documents"

    def budget(self, total: int) -> int:
        """The ceiling in units of `weight`, of `total` that there are; `total` for a threshold."""
        if self.rule == "fraction":
            # 0.29 of 100 is 29, not the 28.999... of a float product.
            return int(Fraction(repr(self.value)) * total)
        return total if self.rule == "min_score" else int(self.value)

    def __str__(self) -> str:
        return f"{self.rule}={self.value:g}" + (f" by {self.by}" if self.by else "")


@dataclass(frozen=True)
class Weights:
    """Documents, with the sum of their tokens and of their bytes of text."""

    documents: int
    tokens: int
    bytes: int

    @classmethod
    def of(cls, counts: npt.NDArray[np.int64]) -> Self:
        """Read int64[3], in the order of `WEIGHTS`."""
        return cls(*(int(count) for count in counts))


@dataclass(frozen=True)
class Tie:
    """A group of documents with the same score."""

    score: float
    weights: Weights


@dataclass(frozen=True)
class Solution:
    """A threshold and what it does.

    Attributes:
        target: what was asked for.
        threshold: a float32 number; kept is score >= threshold.
        kept: what it keeps.
        total: what there is.
        at_threshold: what scores precisely the threshold, and is kept.
        tie: the group of equal scores next below, dropped whole because it would have crossed the budget; None for a
            threshold that was given, where everything fits, and where `exact` is false.
        exact: the threshold is the lowest that fits the budget; else the lowest bin border that does.
        thresholds: with quotas: the higher thresholds of the values whose quota binds.
        by: with quotas: the column.
        quotas: what each value of the column keeps, of those with a quota.
    """

    target: Target
    threshold: float
    kept: Weights
    total: Weights
    at_threshold: Weights
    tie: Tie | None
    exact: bool
    by: str | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    quotas: Mapping[str, Weights] = field(default_factory=dict)

    def keeps(self, scores: Float32, values: npt.NDArray[Any] | None = None) -> npt.NDArray[np.bool_]:
        """bool[n]: which documents are kept.

        Args:
            scores: float32[n]; NaN is not kept.
            values: object[n], the column of the quotas; needed where there are some.
        """
        if self.thresholds and values is None:
            raise ValueError(f"the quotas need the column {self.by}")
        return np.asarray(
            np.asarray(scores, np.float32) >= _floors(len(scores), values, self.threshold, self.thresholds)
        )

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        result: dict[str, Any] = {
            "target": {self.target.rule: self.target.value},
            "threshold": self.threshold,
            "exact": self.exact,
            "kept": vars(self.kept),
            "total": vars(self.total),
            "at_threshold": vars(self.at_threshold),
            "tie": None if self.tie is None else {"score": self.tie.score, **vars(self.tie.weights)},
        }
        if self.by is not None:
            result["quotas"] = {
                value: {"threshold": max(self.thresholds.get(value, self.threshold), self.threshold), **vars(kept)}
                for value, kept in self.quotas.items()
            }
            result["by"] = self.by
        return result


class ThresholdSearch:
    """The search for one threshold; see the module.

    Args:
        histogram: of all documents that may be kept.
        target: what shall be kept.
        budget: a ceiling in units of `target.weight` that takes the place of the target's own.
    """

    def __init__(self, histogram: Histogram, target: Target, budget: int | None = None) -> None:
        self.target = target
        self._histogram = histogram
        self._total = histogram.counts.sum(axis=1)
        self._row = WEIGHTS.index(target.weight)
        total = int(self._total[self._row])
        self._budget = target.budget(total) if budget is None else budget
        self._given: np.float32 | None = None
        if target.rule == "min_score":
            self._given = np.float32(target.value)
        elif self._budget >= total:
            self._given = np.float32(histogram.lowest if self._total[0] else EDGES[0])
        self._above: Int64 = np.zeros(len(WEIGHTS), dtype=np.int64)
        self._range: tuple[int, int] | None = None
        self._solution: Solution | None = None
        self._start()

    def _start(self) -> None:
        """Solve it from the histogram alone, or open the bin in which the threshold lies."""
        histogram, nothing = self._histogram, np.zeros(len(WEIGHTS), dtype=np.int64)
        if self._given is not None:
            border = int(np.searchsorted(EDGES, self._given))
            if not histogram.lowest <= self._given <= histogram.highest:
                kept = self._total if self._given < histogram.lowest else nothing
                return self._finish(self._given, kept, nothing)
            if 0 < border < len(EDGES) - 1 and EDGES[border] == self._given:
                return self._finish(self._given, histogram.counts[:, border:].sum(axis=1), histogram.ties[:, border])
            bin_ = int(bins_of(np.array([self._given]))[0])
        else:
            from_top = np.cumsum(histogram.counts[self._row][::-1])[::-1]
            bin_ = int(np.flatnonzero(from_top > self._budget)[-1])
        self._above = histogram.counts[:, bin_ + 1 :].sum(axis=1)
        # What lies outside the scale counts at the end bins: they reach to the lowest and highest score there is.
        low = EDGES[bin_] if bin_ > 0 else min(np.float32(histogram.lowest), EDGES[0])
        high = EDGES[bin_ + 1]
        if bin_ == len(EDGES) - 2:
            high = max(np.nextafter(np.float32(histogram.highest), np.float32(np.inf)), high)
        first, end = (int(key) for key in order_keys(np.array([low, high], np.float32)))
        self._range = first, end
        return None

    @property
    def window(self) -> tuple[float, float] | None:
        """The range low <= score < high in which the threshold is still to be found; None when it is."""
        return (
            None if self._range is None else (float(score_of_key(self._range[0])), float(score_of_key(self._range[1])))
        )

    def cells(self) -> Cells:
        """Empty counts for the next pass.

        Raises:
            ValueError: the search is over.
        """
        if self._range is None:
            raise ValueError("the threshold is found; there is nothing left to count")
        return Cells(*self._range)

    def narrow(self, cells: Cells) -> None:
        """Go on with the counts of all documents.

        Raises:
            ValueError: they are not of this step, or of other documents than the histogram's.
        """
        if self._range != (cells.first, cells.end):
            raise ValueError("cells of another step of the search")
        low, high = score_of_key(cells.first), score_of_key(cells.end)
        if self._given is not None:
            place = (int(order_keys(np.array([self._given]))[0]) - cells.first) // cells.step
        else:
            from_top = int(self._above[self._row]) + np.cumsum(cells.counts[self._row][::-1])[::-1]
            crossing = np.flatnonzero(from_top > self._budget)
            if not len(crossing):
                raise ValueError(f"scores from {low} to {high} are not those that the histogram counted")
            place = int(crossing[-1])
        higher = self._above + cells.counts[:, place + 1 :].sum(axis=1)
        if cells.step > 1:
            first = cells.first + place * cells.step
            self._above, self._range = higher, (first, min(first + cells.step, cells.end))
            return
        group = cells.counts[:, place]
        if self._given is not None:
            self._finish(self._given, higher + group, group)
            return
        cut = score_of_key(cells.first + place)
        next_cells = np.flatnonzero(cells.counts[0, place + 1 :])
        if len(next_cells):
            place += 1 + int(next_cells[0])
            threshold, tied = score_of_key(cells.first + place), cells.counts[:, place]
        elif np.isfinite(cells.next_above):
            threshold, tied = np.float32(cells.next_above), cells.next_weights
        else:  # even the best group is too much
            threshold, tied = np.nextafter(cut, np.float32(np.inf)), np.zeros(len(WEIGHTS), dtype=np.int64)
        self._finish(threshold, higher, tied, Tie(float(cut), Weights.of(group)))

    def _finish(self, threshold: np.float32, kept: Int64, tied: Int64, tie: Tie | None = None) -> None:
        self._range = None
        self._solution = self._make(threshold, kept, tied, tie, exact=True)

    def _make(self, threshold: np.float32, kept: Int64, tied: Int64, tie: Tie | None, *, exact: bool) -> Solution:
        weights = Weights.of(kept), Weights.of(self._total), Weights.of(tied)
        return Solution(self.target, float(threshold), *weights, tie, exact)

    def solution(self) -> Solution:
        """The threshold; from the histogram alone (`exact` is false) while the search is not over.

        Then a given threshold is moved to the nearest bin border, and for a budget it is the lowest border at which
        what is kept still fits.
        """
        if self._solution is not None:
            return self._solution
        histogram = self._histogram
        if self._given is not None:
            border = nearest_edge(float(self._given))
        else:
            from_top = np.append(np.cumsum(histogram.counts[self._row][::-1])[::-1], 0)
            border = int(np.flatnonzero(from_top <= self._budget)[0])
        threshold, kept = EDGES[border], histogram.counts[:, border:].sum(axis=1)
        if border == len(EDGES) - 1:  # scores beyond the scale are in the last bin, which is not kept
            threshold = np.nextafter(np.float32(max(histogram.highest, EDGES[-1])), np.float32(np.inf))
        return self._make(threshold, kept, histogram.ties[:, border] * (border < len(EDGES) - 1), None, exact=False)


class Scored(NamedTuple):
    """A batch of n documents that may be kept, as `solve` counts them.

    Attributes:
        scores: float32[n], none NaN.
        tokens: int[n].
        text_bytes: int64[n].
        values: object[n], the column of the quotas.
    """

    scores: Float32
    tokens: npt.NDArray[np.integer]
    text_bytes: Int64
    values: npt.NDArray[Any] | None = None


def solve(
    target: Target,
    batches: Callable[[], Iterable[Scored]],
    *,
    histogram: Histogram | None = None,
    by: str | None = None,
    quotas: Mapping[str, float] | None = None,
) -> Solution:
    """The threshold that keeps as much as the target allows.

    Args:
        target: what shall be kept.
        batches: called for each pass; yields all documents that may be kept, in any order and any cut.
        histogram: of these documents, where it is known; saves a pass.
        by: name of the column that `Scored.values` holds.
        quotas: value of that column -> largest share of the budget it may take. Its best documents fill it; the rest of
            the budget goes to the best of all others, and of those whose quota is not full.

    Raises:
        ConfigError: quotas with a rule that is no budget, or a quota that is no share.
    """
    if quotas:
        return _solve_quotas(target, batches, histogram, by or "", quotas)
    return _run(
        {"": ThresholdSearch(histogram or _count(batches()), target)}, lambda: ((b, {"": None}) for b in batches())
    )[""]


def _solve_quotas(
    target: Target,
    batches: Callable[[], Iterable[Scored]],
    histogram: Histogram | None,
    by: str,
    quotas: Mapping[str, float],
) -> Solution:
    if target.rule == "min_score":
        raise ConfigError(f"keep {target}: a quota is a share of a budget. Remedy: use fraction or tokens with quotas")
    for value, share in quotas.items():
        if not 0 <= share <= 1:
            raise ConfigError(f"quota {value}={share:g}: must be a share of the budget, from 0 to 1")
    names = list(quotas)
    parts = {value: Histogram() for value in names}
    everything = histogram or Histogram()
    for batch in batches():
        if histogram is None:
            everything.add(batch.scores, tokens=batch.tokens, text_bytes=batch.text_bytes)
        for value, rows in _rows(batch, names).items():
            parts[value].add(batch.scores[rows], tokens=batch.tokens[rows], text_bytes=batch.text_bytes[rows])
    budget = target.budget(everything.total(target.weight))
    searches = {
        value: ThresholdSearch(part, target, int(Fraction(repr(quotas[value])) * budget))
        for value, part in parts.items()
    }
    caps = _run(searches, lambda: ((batch, _rows(batch, names)) for batch in batches()))
    floors = {value: cap.threshold for value, cap in caps.items() if cap.tie is not None}

    def eligible() -> Iterable[Scored]:
        for batch in batches():
            rows = batch.scores >= _floors(len(batch.scores), batch.values, -np.inf, floors)
            yield Scored(batch.scores[rows], batch.tokens[rows], batch.text_bytes[rows], _object(batch)[rows])

    rest = ThresholdSearch(_count(eligible()), target, budget)
    found = _run({"": rest}, lambda: ((batch, {"": None}) for batch in eligible()))[""]
    kept = {value: np.zeros(len(WEIGHTS), dtype=np.int64) for value in names}
    for batch in eligible():
        above = batch.scores >= np.float32(found.threshold)
        for value, rows in _rows(batch, names).items():
            chosen = rows & above
            kept[value] += (chosen.sum(), batch.tokens[chosen].sum(dtype=np.int64), batch.text_bytes[chosen].sum())
    return replace(
        found,
        total=Weights.of(everything.counts.sum(axis=1)),
        by=by,
        thresholds={value: floor for value, floor in floors.items() if floor > found.threshold},
        quotas={value: Weights.of(weights) for value, weights in kept.items()},
    )


def _run(
    searches: Mapping[str, ThresholdSearch],
    batches: Callable[[], Iterable[tuple[Scored, Mapping[str, npt.NDArray[np.bool_] | None]]]],
) -> dict[str, Solution]:
    """Pass over the batches until every search is over; each counts the rows that the batch has for it."""
    while open_ := {name: search for name, search in searches.items() if search.window is not None}:
        cells = {name: search.cells() for name, search in open_.items()}
        for batch, rows in batches():
            for name, part in cells.items():
                chosen = rows[name] if rows[name] is not None else slice(None)
                part.add(batch.scores[chosen], tokens=batch.tokens[chosen], text_bytes=batch.text_bytes[chosen])
        for name, search in open_.items():
            search.narrow(cells[name])
    return {name: search.solution() for name, search in searches.items()}


def _count(batches: Iterable[Scored]) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch.scores, tokens=batch.tokens, text_bytes=batch.text_bytes)
    return histogram


def _object(batch: Scored) -> npt.NDArray[Any]:
    if batch.values is None:
        raise ValueError("quotas need Scored.values")
    return batch.values


def _rows(batch: Scored, values: Iterable[str]) -> dict[str, npt.NDArray[np.bool_]]:
    column = _object(batch)
    return {value: np.asarray(column == value) for value in values}


def _floors(rows: int, values: npt.NDArray[Any] | None, threshold: float, thresholds: Mapping[str, float]) -> Float32:
    floors = np.full(rows, threshold, dtype=np.float32)
    for value, higher in thresholds.items():
        floors[values == value] = higher
    return floors


CELLS = 2**18
"""Ranges of float32 values counted in a pass: 6 MiB of counts."""


class Cells:
    """Counts over equal ranges of float32 values between two scores; made by `ThresholdSearch.cells`.

    Attributes:
        counts: int64[3, cells]; rows as in `WEIGHTS`.
        next_above: the lowest score at or above the upper end, inf if there is none.
        next_weights: int64[3], what has precisely that score.
    """

    def __init__(self, first: int, end: int) -> None:
        self.first, self.end = first, end
        self.step = -(-(end - first) // CELLS)
        self.counts: Int64 = np.zeros((len(WEIGHTS), -(-(end - first) // self.step)), dtype=np.int64)
        self.next_above = np.inf
        self.next_weights: Int64 = np.zeros(len(WEIGHTS), dtype=np.int64)

    def add(self, scores: Float32, *, tokens: npt.NDArray[np.integer], text_bytes: Int64) -> None:
        """Count n documents, all arrays of shape [n]; those below the range are passed over."""
        low, high = score_of_key(self.first), score_of_key(self.end)
        inside = (scores >= low) & (scores < high)
        cells = (order_keys(scores[inside]) - self.first) // self.step
        for row, weight in enumerate((np.ones(len(cells), np.int64), tokens[inside], text_bytes[inside])):
            np.add.at(self.counts[row], cells, np.asarray(weight, dtype=np.int64))
        if (above := scores >= high).any():
            lowest = scores[above].min()
            tied = scores == lowest
            weights = np.array([tied.sum(), tokens[tied].sum(dtype=np.int64), text_bytes[tied].sum(dtype=np.int64)])
            self._next(float(lowest), weights)

    def merge(self, other: Cells) -> Self:
        """Add another's counts to this one's.

        Raises:
            ValueError: they are not of the same step of the same search.
        """
        if (self.first, self.end) != (other.first, other.end):
            raise ValueError("cells of different ranges")
        self.counts += other.counts
        self._next(other.next_above, other.next_weights)
        return self

    def _next(self, score: float, weights: Int64) -> None:
        if score < self.next_above:
            self.next_above, self.next_weights = score, weights.copy()
        elif score == self.next_above:
            self.next_weights = self.next_weights + weights


def order_keys(scores: Float32) -> Int64:
    """int64[n]: numbers from 0 to 2^32 in the order of the scores; neighbouring float32 numbers differ by one."""
    bits = (np.asarray(scores, dtype=np.float32) + np.float32(0)).view(np.uint32)  # + 0: -0.0 becomes 0.0
    return np.where(bits >> 31, 0xFFFFFFFF - bits.astype(np.int64), bits.astype(np.int64) | 0x80000000)


def score_of_key(key: int) -> np.float32:
    """The float32 number whose `order_keys` is `key`."""
    bits = key & 0x7FFFFFFF if key >> 31 else 0xFFFFFFFF - key
    return np.float32(np.array([bits], dtype=np.uint32).view(np.float32)[0])
