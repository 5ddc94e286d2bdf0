"""From a budget to a threshold: exact, with ties stated, in a few passes over the scores and bounded memory.

A threshold keeps whole groups of equal scores: kept is `score >= threshold`, compared in float32. A budget (a share of
the documents, a number of tokens) is a ceiling: the threshold is the lowest score at which what is kept still fits. The
group of equal scores that would have crossed the ceiling is dropped whole, and named in the solution (`Solution.tie`).

A histogram narrows the threshold down to one bin. The score itself follows from passes that count `CELLS` equal ranges
of float32 numbers each: one pass for a bin above 0.25, at most two below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from filters.arrays import Bool, Float32, Int64
from filters.errors import ConfigError
from filters.scores.histogram import EDGES, WEIGHTS, Histogram

CELLS = 2**18
"""Ranges of float32 numbers that are counted in a pass: 6 MiB of counts."""

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
            threshold that was given, and where everything fits.
        by: with quotas: the column.
        thresholds: with quotas: the higher thresholds of the values whose quota binds.
        quotas: what each value of the column keeps, of those with a quota.
    """

    target: Target
    threshold: float
    kept: Weights
    total: Weights
    at_threshold: Weights
    tie: Tie | None
    by: str | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    quotas: Mapping[str, Weights] = field(default_factory=dict)

    def keeps(self, scores: Float32, values: npt.NDArray[Any] | None = None) -> Bool:
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

    def where(self, rows: Bool) -> Scored:
        """Some of the documents."""
        values = None if self.values is None else self.values[rows]
        return Scored(self.scores[rows], self.tokens[rows], self.text_bytes[rows], values)

    def having(self, value: str) -> Scored:
        """Those with a value of the quotas' column."""
        return self.where(np.asarray(self.values == value))

    def add_to(self, histogram: Histogram) -> None:
        """Add them to a histogram."""
        histogram.add(self.scores, tokens=self.tokens, text_bytes=self.text_bytes)

    def sums(self) -> Int64:
        """int64[3]: documents, tokens and bytes."""
        return np.array([len(self.scores), self.tokens.sum(dtype=np.int64), self.text_bytes.sum()], np.int64)


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
        return _solve_quotas(target, batches, by or "", quotas)
    histogram = histogram or _count(batches())
    if target.rule == "min_score":
        return _given(target, np.float32(target.value), batches, histogram)
    return _budget(target, target.budget(histogram.total(target.weight)), batches, histogram)


def _given(
    target: Target, threshold: np.float32, batches: Callable[[], Iterable[Scored]], histogram: Histogram
) -> Solution:
    """What a threshold keeps: from the histogram where it is a border, else from a pass."""
    border = int(np.searchsorted(EDGES, threshold))
    if 0 < border < len(EDGES) - 1 and EDGES[border] == threshold:
        kept, tied = histogram.counts[:, border:].sum(axis=1), histogram.ties[:, border]
    else:
        kept, tied = np.zeros((2, len(WEIGHTS)), np.int64)
        for batch in batches():
            kept += batch.where(batch.scores >= threshold).sums()
            tied += batch.where(batch.scores == threshold).sums()
    total = Weights.of(histogram.counts.sum(axis=1))
    return Solution(target, float(threshold), Weights.of(kept), total, Weights.of(tied), None)


def _budget(target: Target, budget: int, batches: Callable[[], Iterable[Scored]], histogram: Histogram) -> Solution:
    """The lowest threshold at which what is kept fits the budget."""
    if budget >= histogram.total(target.weight):
        lowest = np.float32(histogram.lowest if histogram.total() else EDGES[0])
        return _given(target, lowest, batches, histogram)
    search = _Search(histogram, target.weight, budget)
    _run({None: search}, batches)
    threshold, kept, tied, tie = search.found
    total = Weights.of(histogram.counts.sum(axis=1))
    return Solution(target, threshold, Weights.of(kept), total, Weights.of(tied), tie)


def _solve_quotas(
    target: Target, batches: Callable[[], Iterable[Scored]], by: str, quotas: Mapping[str, float]
) -> Solution:
    if target.rule == "min_score":
        raise ConfigError(f"keep {target}: a quota is a share of a budget. Remedy: use fraction or tokens with quotas")
    for value, share in quotas.items():
        if not 0 <= share <= 1:
            raise ConfigError(f"quota {value}={share:g}: must be a share of the budget, from 0 to 1")
    everything, parts = Histogram(), {value: Histogram() for value in quotas}
    for batch in batches():
        batch.add_to(everything)
        for value, part in parts.items():
            batch.having(value).add_to(part)
    budget = target.budget(everything.total(target.weight))
    shares = {value: int(Fraction(repr(share)) * budget) for value, share in quotas.items()}
    caps = {
        value: _Search(part, target.weight, shares[value])
        for value, part in parts.items()
        if shares[value] < part.total(target.weight)
    }
    _run(caps, batches)
    floors = {value: search.found[0] for value, search in caps.items()}

    def eligible() -> Iterable[Scored]:
        for batch in batches():
            yield batch.where(batch.scores >= _floors(len(batch.scores), batch.values, -np.inf, floors))

    found = _budget(target, budget, eligible, _count(eligible()))
    kept = {value: np.zeros(len(WEIGHTS), np.int64) for value in quotas}
    for batch in eligible():
        above = batch.where(batch.scores >= np.float32(found.threshold))
        for value in kept:
            kept[value] += above.having(value).sums()
    return replace(
        found,
        total=Weights.of(everything.counts.sum(axis=1)),
        by=by,
        thresholds={value: floor for value, floor in floors.items() if floor > found.threshold},
        quotas={value: Weights.of(weights) for value, weights in kept.items()},
    )


def _run(searches: Mapping[Any, _Search], batches: Callable[[], Iterable[Scored]]) -> None:
    """Pass over the batches until every search is over; each counts the documents of its value."""
    while open_ := {value: search for value, search in searches.items() if not search.over}:
        for batch in batches():
            for value, search in open_.items():
                search.add(batch if value is None else batch.having(value))
        for search in open_.values():
            search.step()


def _count(batches: Iterable[Scored]) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        batch.add_to(histogram)
    return histogram


def _floors(rows: int, values: npt.NDArray[Any] | None, threshold: float, thresholds: Mapping[str, float]) -> Float32:
    floors = np.full(rows, threshold, dtype=np.float32)
    for value, higher in thresholds.items():
        floors[values == value] = higher
    return floors


class _Search:
    """The search for the lowest threshold that fits a budget, of which the total is more.

    Float32 numbers have keys in their order, one apart. A step counts equal ranges of the keys where the threshold may
    lie, and goes on within the one at which the budget is crossed, until a range is a single number.
    """

    def __init__(self, histogram: Histogram, weight: str, budget: int) -> None:
        self._row, self._budget = WEIGHTS.index(weight), budget
        self._above: Int64 = np.zeros(len(WEIGHTS), np.int64)
        self.over = False
        # What lies outside the scale counts at the end bins.
        borders = order_keys(np.array([-np.inf, *EDGES[1:-1], np.inf], np.float32))
        borders[-1] += 1
        self._narrow(histogram.counts, borders)

    def _narrow(self, counts: Int64, borders: Int64) -> None:
        """Go on with the counts between borders."""
        crossing = np.flatnonzero(self._above[self._row] + np.cumsum(counts[self._row][::-1])[::-1] > self._budget)
        if not len(crossing):
            raise ValueError("these scores are not those that the histogram counted")
        place = int(crossing[-1])
        higher = self._above + counts[:, place + 1 :].sum(axis=1)
        first, end = int(borders[place]), int(borders[place + 1])
        if end - first == 1:
            self._finish(first, higher, counts[:, place], counts[:, place + 1 :])
            return
        self._above = higher
        step = -(-(end - first) // CELLS)
        self._borders = np.append(np.arange(first, end, step), end)
        self._counts: Int64 = np.zeros((len(WEIGHTS), len(self._borders) - 1), np.int64)
        self._next = 2**32, np.zeros(len(WEIGHTS), np.int64)

    def add(self, batch: Scored) -> None:
        """Count documents."""
        first, end = int(self._borders[0]), int(self._borders[-1])
        batch = batch.where(batch.scores >= score_of_key(first))
        keys = order_keys(batch.scores)
        if (higher := keys[keys >= end]).size:
            lowest = int(higher.min())
            if lowest <= self._next[0]:
                before = self._next[1] if lowest == self._next[0] else 0
                self._next = lowest, before + batch.where(keys == lowest).sums()
        inside = keys < end
        batch, cells = batch.where(inside), (keys[inside] - first) // int(self._borders[1] - first)
        for row, weight in enumerate((np.ones_like(cells), batch.tokens, batch.text_bytes)):
            np.add.at(self._counts[row], cells, np.asarray(weight, np.int64))

    def step(self) -> None:
        """Go on with what was counted in a pass over all documents."""
        self._narrow(self._counts, self._borders)

    def _finish(self, key: int, kept: Int64, group: Int64, higher: Int64) -> None:
        threshold, tied = self._next
        if len(filled := np.flatnonzero(higher[0])):
            threshold, tied = key + 1 + int(filled[0]), higher[:, filled[0]]
        elif threshold == 2**32:  # even the best group is too much
            threshold = key + 1
        tie = Tie(float(score_of_key(key)), Weights.of(group))
        self.over = True
        self.found = float(score_of_key(threshold)), kept, tied, tie
        """(threshold, what is kept, what has precisely this score, the group next below)."""


def order_keys(scores: Float32) -> Int64:
    """int64[n]: numbers from 0 to 2^32 in the order of the scores; neighbouring float32 numbers differ by one."""
    bits = (np.asarray(scores, dtype=np.float32) + np.float32(0)).view(np.uint32)  # + 0: -0.0 becomes 0.0
    return np.where(bits >> 31, 0xFFFFFFFF - bits.astype(np.int64), bits.astype(np.int64) | 0x80000000)


def score_of_key(key: int) -> np.float32:
    """The float32 number whose `order_keys` is `key`."""
    bits = key & 0x7FFFFFFF if key >> 31 else 0xFFFFFFFF - key
    return np.float32(np.array([bits], dtype=np.uint32).view(np.float32)[0])
