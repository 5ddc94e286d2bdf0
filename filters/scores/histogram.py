"""Histograms of scores that merge exactly: weighted counts on fixed fine bins, whole or by the values of a column.

A bin border is the float32 number that a user writes as a threshold (0.35 is float32(0.35)), and a score is compared
with it in float32, as the keep rule does. So what a histogram says of a threshold on a border is exact, and so is the
number of documents that lie precisely on it. All counts are integers: merging in any order gives the same histogram.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from filters.arrays import Float32, Int64
from filters.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


LOW, HIGH, BINS = 0.0, 5.0, 500
WEIGHTS = ("documents", "tokens", "bytes")
SCORE_UNIT = 2.0**-20
"""Sums of scores are counted in this unit, so that they add up to the same in any order."""

EDGES: Float32 = ((HIGH - LOW) * np.arange(BINS + 1) / BINS + LOW).astype(np.float32)
"""float32[BINS + 1]: borders of the bins; bin i holds EDGES[i] <= score < EDGES[i + 1]."""


def bins_of(scores: Float32) -> Int64:
    """int64[n]: the bin of each score, none NaN; what lies outside the scale belongs to the end bins."""
    return np.searchsorted(EDGES[1:-1], np.asarray(scores, np.float32), side="right").astype(np.int64)


class Histogram:
    """Weighted counts of scores on `BINS` equal bins of [`LOW`, `HIGH`]; what lies outside counts at the end bins.

    Attributes:
        counts: int64[3, BINS]; rows as in `WEIGHTS`.
        ties: int64[3, BINS + 1]; what lies precisely on each border, in the rows of `WEIGHTS`.
        score_sums: int64[BINS]; sum of the scores of a bin's documents, in `SCORE_UNIT`.
        lowest: the lowest score, inf if there is none.
        highest: the highest score, -inf if there is none.
    """

    edges = EDGES

    def __init__(self) -> None:
        self.counts: Int64 = np.zeros((len(WEIGHTS), BINS), dtype=np.int64)
        self.ties: Int64 = np.zeros((len(WEIGHTS), BINS + 1), dtype=np.int64)
        self.score_sums: Int64 = np.zeros(BINS, dtype=np.int64)
        self.lowest, self.highest = np.inf, -np.inf

    def add(self, scores: Float32, *, tokens: npt.NDArray[np.integer], text_bytes: Int64) -> None:
        """Count n documents, all arrays of shape [n].

        Raises:
            ValueError: a score is NaN.
        """
        self.merge(_count(np.zeros(len(scores), np.int64), 1, scores, tokens, text_bytes)[0])

    def merge(self, other: Histogram) -> Self:
        """Add another histogram's counts to this one's."""
        self.counts += other.counts
        self.ties += other.ties
        self.score_sums += other.score_sums
        self.lowest, self.highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and all(
            np.array_equal(mine, theirs) for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def total(self, weight: str = "documents") -> int:
        """Documents, tokens or bytes of all bins."""
        return int(self.counts[WEIGHTS.index(weight)].sum())

    @property
    def top(self) -> float:
        """Upper end of the scale that the scores are on: 1 for probabilities, such as fastText's, else `HIGH`."""
        return 1.0 if -np.inf < self.highest <= 1 else HIGH

    def coarse(self, bins: int, weight: str = "documents", top: float = HIGH) -> Int64:
        """int64[bins]: counts on `bins` equal bins up to `top`; `bins` must divide the fine bins there are."""
        fine = round(BINS * (top - LOW) / (HIGH - LOW))
        if fine % bins:
            raise ValueError(f"{bins} bins do not divide {fine}")
        counts = self.counts[WEIGHTS.index(weight), :fine].copy()
        counts[-1] += self.counts[WEIGHTS.index(weight), fine:].sum()
        return np.asarray(counts.reshape(bins, -1).sum(axis=1))

    def at_least(self, min_score: float, weight: str = "documents") -> int:
        """How much scores at least `min_score`: exact where it is a bin border, else at the border next to it."""
        return int(self.counts[WEIGHTS.index(weight), nearest_edge(min_score) :].sum())

    def mean_at_least(self, min_score: float) -> float:
        """Mean score of the documents `at_least` counts; NaN if there are none."""
        first = nearest_edge(min_score)
        documents = int(self.counts[0, first:].sum())
        return float(self.score_sums[first:].sum()) * SCORE_UNIT / documents if documents else float("nan")

    def quantile(self, share: float, weight: str = "documents") -> float:
        """The score below which `share` of the weight lies, within half a bin (interpolated); NaN if it is empty.

        Raises:
            ValueError: `share` is not between 0 and 1.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share must be between 0 and 1, got {share}")
        counts = self.counts[WEIGHTS.index(weight)]
        filled = np.flatnonzero(counts)
        if not len(filled):
            return float("nan")
        cumulated = np.cumsum(counts[filled])
        position = share * int(cumulated[-1])
        place = min(int(np.searchsorted(cumulated, position)), len(filled) - 1)
        bin_ = filled[place]
        part = 1 - (int(cumulated[place]) - position) / int(counts[bin_])
        low, high = float(EDGES[bin_]), float(EDGES[bin_ + 1])
        return float(np.clip(low + part * (high - low), self.lowest, self.highest))

    def to_pandas(self) -> pd.DataFrame:
        """A row for each bin: low, high, documents, tokens, bytes."""
        import pandas as pd

        columns = {name: self.counts[row] for row, name in enumerate(WEIGHTS)}
        return pd.DataFrame({"low": EDGES[:-1], "high": EDGES[1:], **columns})

    def plot(self, weight: str = "documents", *, bins: int = 100, log: bool = False, axes: Axes | None = None) -> Axes:
        """Draw it with matplotlib; returns the axes.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        return _plot({"": self}, weight, bins, log, axes)

    def to_json(self) -> dict[str, Any]:
        """Plain types; `from_json` reads it back.

        counts: [bin, documents, tokens, bytes, sum of scores in `SCORE_UNIT`] of every bin that is not empty; ties:
        [border, documents, tokens, bytes] of every border on which a score lies.
        """
        filled, tied = np.flatnonzero(self.counts[0]), np.flatnonzero(self.ties[0])
        return {
            "low": LOW,
            "high": HIGH,
            "bins": BINS,
            "counts": np.vstack([filled, self.counts[:, filled], self.score_sums[filled]]).T.tolist(),
            "ties": np.vstack([tied, self.ties[:, tied]]).T.tolist(),
            "lowest": self.lowest if len(filled) else None,
            "highest": self.highest if len(filled) else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: other bins than this version's.
        """
        if (data["low"], data["high"], data["bins"]) != (LOW, HIGH, BINS):
            raise ValueError(f"histogram with {data['bins']} bins on [{data['low']}, {data['high']}]")
        histogram = cls()
        for bin_, *weights, score_sum in data["counts"]:
            histogram.counts[:, bin_], histogram.score_sums[bin_] = weights, score_sum
        for border, *weights in data["ties"]:
            histogram.ties[:, border] = weights
        histogram.lowest = np.inf if data["lowest"] is None else float(data["lowest"])
        histogram.highest = -np.inf if data["highest"] is None else float(data["highest"])
        return histogram


class SlicedHistogram(Mapping[str | None, Histogram]):
    """A histogram for each value of a column: a mapping value -> `Histogram`, values sorted, None (no value) last.

    Args:
        by: name of the column.
    """

    def __init__(self, by: str) -> None:
        self.by = by
        self._parts: dict[str | None, Histogram] = {}

    def add(
        self,
        values: Sequence[str | None],
        indices: npt.NDArray[np.integer],
        scores: Float32,
        *,
        tokens: npt.NDArray[np.integer],
        text_bytes: Int64,
    ) -> None:
        """Count n documents.

        Args:
            values: distinct values of the column, in any order.
            indices: int[n], for each document the place of its value in `values`; -1: the document is passed over.
            scores: float32[n]; none NaN where the document counts.
            tokens: int[n].
            text_bytes: int64[n].
        """
        # Values that no document has make no slice: dictionaries of a file hold those of removed documents too.
        present = np.flatnonzero(np.bincount(indices[indices >= 0], minlength=len(values)))
        # One place more: where the index is -1, the document belongs to no slice.
        rows = np.full(len(values) + 1, -1, np.int64)
        rows[present] = np.arange(len(present))
        counted = _count(rows[indices], len(present), scores, tokens, text_bytes)
        for place, part in zip(present.tolist(), counted, strict=True):
            self._merge(values[place], part)

    def _merge(self, value: str | None, part: Histogram) -> None:
        self._parts.setdefault(value, Histogram()).merge(part)

    def merge(self, other: SlicedHistogram) -> Self:
        """Add another's counts to this one's."""
        for value, part in other._parts.items():
            self._merge(value, part)
        return self

    def __getitem__(self, value: str | None) -> Histogram:
        return Histogram().merge(self._parts[value])

    def __iter__(self) -> Iterator[str | None]:
        return iter(sorted(self._parts, key=lambda value: (value is None, value or "")))

    def __len__(self) -> int:
        return len(self._parts)

    def largest(self, count: int, weight: str = "documents") -> list[str | None]:
        """The `count` values with most weight, largest first; ties as they are sorted."""
        return sorted(self, key=lambda value: -self._parts[value].total(weight))[:count]

    def total(self) -> Histogram:
        """The histogram of all slices together."""
        histogram = Histogram()
        for part in self._parts.values():
            histogram.merge(part)
        return histogram

    def quantile(self, share: float, weight: str = "documents") -> dict[str | None, float]:
        """`Histogram.quantile` of each slice."""
        return {value: histogram.quantile(share, weight) for value, histogram in self.items()}

    def to_pandas(self) -> pd.DataFrame:
        """A row for each slice and bin: the column, low, high, documents, tokens, bytes."""
        import pandas as pd

        parts = [histogram.to_pandas().assign(**{self.by: value}) for value, histogram in self.items()]
        columns = [self.by, "low", "high", *WEIGHTS]
        return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)

    def plot(
        self,
        weight: str = "documents",
        *,
        bins: int = 100,
        log: bool = False,
        axes: Axes | None = None,
        largest: int = 8,
    ) -> Axes:
        """Draw the `largest` slices with matplotlib, each as a share of itself; returns the axes.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        shown = {str(value or "(none)"): self[value] for value in self.largest(largest, weight)}
        return _plot(shown, weight, bins, log, axes, shares=True)

    def to_json(self) -> list[dict[str, Any]]:
        """Plain types; `from_json` reads it back."""
        return [{"value": value, "histogram": histogram.to_json()} for value, histogram in self.items()]

    @classmethod
    def from_json(cls, by: str, data: Sequence[Mapping[str, Any]]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: other bins than this version's.
        """
        sliced = cls(by)
        sliced._parts = {part["value"]: Histogram.from_json(part["histogram"]) for part in data}
        return sliced


def _count(
    slices: Int64, number: int, scores: Float32, tokens: npt.NDArray[np.integer], text_bytes: Int64
) -> list[Histogram]:
    """Histograms of documents whose slices are from 0 to `number` - 1; -1: the document is passed over."""
    from filters.kernels.histogram import count_scores

    scores = np.asarray(scores, dtype=np.float32)
    if np.isnan(scores[slices >= 0]).any():
        raise ValueError("scores must not be NaN")
    counts = np.zeros((number, len(WEIGHTS), BINS), np.int64)
    ties, sums = np.zeros((number, len(WEIGHTS), BINS + 1), np.int64), np.zeros((number, BINS), np.int64)
    ends = np.tile([np.inf, -np.inf], (number, 1))
    weights = np.asarray(tokens, np.int64), np.asarray(text_bytes, np.int64)
    count_scores(slices, scores, *weights, EDGES, 1 / SCORE_UNIT, counts, ties, sums, ends)
    histograms = []
    for row in range(number):
        histogram = Histogram()
        histogram.counts, histogram.ties, histogram.score_sums = counts[row], ties[row], sums[row]
        histogram.lowest, histogram.highest = ends[row].tolist()
        histograms.append(histogram)
    return histograms


def nearest_edge(score: float) -> int:
    """Number of the border (0 to BINS) nearest to `score`."""
    return int(np.clip(round((score - LOW) / (HIGH - LOW) * BINS), 0, BINS))


def _plot(
    histograms: Mapping[str, Histogram], weight: str, bins: int, log: bool, axes: Axes | None, *, shares: bool = False
) -> Axes:
    """Step lines of several histograms on one pair of axes, with a legend where they have names."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plot()", "plots", str(error)) from error
    if axes is None:
        axes = Figure(figsize=(7, 3.5), layout="constrained").subplots()
    for name, histogram in histograms.items():
        counts = histogram.coarse(bins, weight)
        heights = counts / max(int(counts.sum()), 1) if shares else counts
        axes.stairs(heights, np.linspace(LOW, HIGH, bins + 1), label=name, fill=not shares)
    axes.set(xlabel="score", ylabel=f"share of {weight}" if shares else weight, xlim=(LOW, HIGH))
    if log:
        axes.set_yscale("log")
    if any(histograms):
        axes.legend()
    return axes
