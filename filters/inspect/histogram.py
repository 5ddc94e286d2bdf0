"""A histogram of scores that merges exactly: counts of documents, tokens and bytes on fixed fine bins."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

LOW, HIGH, BINS = 0.0, 5.0, 500
WEIGHTS = ("documents", "tokens", "bytes")


class Histogram:
    """Weighted counts of scores on `BINS` equal bins of [`LOW`, `HIGH`]; what lies outside counts at the end bins.

    Counts are integers, so that merging in any order gives the same histogram.

    Attributes:
        counts: int64[3, BINS]; rows as in `WEIGHTS`.
    """

    def __init__(self) -> None:
        self.counts: npt.NDArray[np.int64] = np.zeros((len(WEIGHTS), BINS), dtype=np.int64)

    def add(
        self, scores: npt.NDArray[np.float32], *, tokens: npt.NDArray[np.int32], text_bytes: npt.NDArray[np.int64]
    ) -> None:
        """Count n documents, all arrays of shape [n]; scores must not be NaN."""
        width = (HIGH - LOW) / BINS
        bins = np.clip(np.floor((scores.astype(np.float64) - LOW) / width), 0, BINS - 1).astype(np.int64)
        weights = (np.ones(len(scores), dtype=np.int64), tokens.astype(np.int64), text_bytes)
        for counts, weight in zip(self.counts, weights, strict=True):
            # np.bincount would sum in float64 and lose integers above 2^53.
            np.add.at(counts, bins, weight)

    def merge(self, other: Histogram) -> Self:
        """Add another histogram's counts to this one's."""
        self.counts += other.counts
        return self

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """float64[BINS + 1]: borders of the bins; bin i holds edges[i] <= score < edges[i + 1]."""
        return np.linspace(LOW, HIGH, BINS + 1)

    def coarse(self, bins: int, weight: str = "documents") -> npt.NDArray[np.int64]:
        """int64[bins]: counts on `bins` equal bins; `bins` must divide `BINS`."""
        if BINS % bins:
            raise ValueError(f"{bins} bins do not divide {BINS}")
        return np.asarray(self.counts[WEIGHTS.index(weight)].reshape(bins, -1).sum(axis=1))

    def at_least(self, min_score: float, weight: str = "documents") -> int:
        """How much lies in bins at or above the one `min_score` falls in: exact where it is a bin border."""
        first = int(np.clip(round((min_score - LOW) / (HIGH - LOW) * BINS), 0, BINS))
        return int(self.counts[WEIGHTS.index(weight), first:].sum())

    def to_json(self) -> dict[str, Any]:
        """Plain types; `from_json` reads it back."""
        counts = {name: self.counts[row].tolist() for row, name in enumerate(WEIGHTS)}
        return {"low": LOW, "high": HIGH, "bins": BINS, "counts": counts}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: other bins than this version's.
        """
        if (data["low"], data["high"], data["bins"]) != (LOW, HIGH, BINS):
            raise ValueError(f"histogram with {data['bins']} bins on [{data['low']}, {data['high']}]")
        histogram = cls()
        histogram.counts = np.array([data["counts"][name] for name in WEIGHTS], dtype=np.int64).reshape(-1, BINS)
        return histogram
