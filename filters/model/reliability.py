"""What a score says of the judge: conformal bands round it, and the keep curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator

from filters.arrays import Float64, Int8
from filters.config.yaml_file import Section
from filters.errors import ModelError
from filters.statistics.agreement import HIGHEST, LOWEST, Scores

KEEP, UNDECIDED, DROP = 1, 0, -1
ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
BINS = 8
_WORDS = {KEEP: "keep", UNDECIDED: "undecided", DROP: "drop"}


@dataclass(frozen=True)
class Decisions:
    """Three-way decisions on n documents.

    Attributes:
        scores: float32[n].
        low: float64[n], lower ends of the bands.
        high: float64[n], upper ends.
        decision: int8[n]: `KEEP` where the whole band reaches the keep rule, `DROP` where none of it does, else
            `UNDECIDED`.
    """

    scores: npt.NDArray[np.float32]
    low: Float64
    high: Float64
    decision: Int8

    @property
    def words(self) -> list[str]:
        """n times "keep", "drop" or "undecided"."""
        return [_WORDS[value] for value in self.decision.tolist()]


class ConformalTable(Section):
    """Residual quantiles per bin of the score: a few hundred bytes that go into a model folder.

    Attributes:
        residual: "absolute": the band reaches as far down as up.
        edges: upper ends of all bins but the last; a score on an edge belongs to the bin above.
        rows: residuals behind each bin.
        alphas: error rates for which quantiles are stored, ascending.
        below: [bin][alpha], how far the band reaches below the score; None: to the end of the scale.
        above: the same above the score.
    """

    residual: Literal["absolute"]
    edges: tuple[float, ...]
    rows: tuple[int, ...]
    alphas: tuple[float, ...] = Field(min_length=1)
    below: tuple[tuple[float | None, ...], ...]
    above: tuple[tuple[float | None, ...], ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        bins = len(self.edges) + 1
        if list(self.edges) != sorted(set(self.edges)) or list(self.alphas) != sorted(set(self.alphas)):
            raise ValueError("edges and alphas must ascend")
        if not all(0 < alpha < 1 for alpha in self.alphas):
            raise ValueError("alphas lie between 0 and 1")
        if not len(self.rows) == len(self.below) == len(self.above) == bins:
            raise ValueError(f"{len(self.edges)} edges make {bins} bins")
        if any(len(row) != len(self.alphas) for row in (*self.below, *self.above)):
            raise ValueError("every bin has a quantile for every alpha")
        return self

    @classmethod
    def fit(
        cls,
        scores: Scores,
        expected: Float64,
        *,
        bins: int = BINS,
        alphas: Sequence[float] = ALPHAS,
    ) -> Self:
        """Take the quantiles.

        Args:
            scores: float[n], calibrated scores of pages the model has not seen (out-of-fold or held out).
            expected: float64[n], the judge's scores of the same pages.
            bins: bins of the score with about the same number of rows; 1: one band width for all scores.
            alphas: error rates to store.
        """
        values = np.asarray(scores, dtype=np.float64)
        edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
        place = np.searchsorted(edges, values, side="right")
        rest = np.abs(np.asarray(expected, dtype=np.float64) - values)
        inside = [rest[place == number] for number in range(len(edges) + 1)]
        reach = tuple(tuple(_quantile(each, alpha) for alpha in sorted(alphas)) for each in inside)
        return cls(
            residual="absolute",
            edges=tuple(edges.tolist()),
            rows=tuple(map(len, inside)),
            alphas=tuple(sorted(alphas)),
            below=reach,
            above=reach,
        )

    def interval(self, scores: Scores, alpha: float) -> tuple[Float64, Float64]:
        """Bands (low, high): float64[n] each, within 0 to 5, that miss the judge's score at most with rate `alpha`.

        An alpha between two stored ones takes the smaller, which is on the safe side.

        Raises:
            ValueError: alpha is smaller than all stored ones, or not below 1.
        """
        usable = [k for k, stored in enumerate(self.alphas) if stored <= alpha + 1e-12]
        if not usable or alpha >= 1:
            raise ValueError(f"alpha {alpha:g} must lie between {self.alphas[0]:g} and 1")
        values = np.asarray(scores, dtype=np.float64)
        place = np.searchsorted(np.array(self.edges), values, side="right")
        down, up = (
            np.array([np.inf if row[usable[-1]] is None else row[usable[-1]] for row in side], dtype=np.float64)[place]
            for side in (self.below, self.above)
        )
        return np.clip(values - down, LOWEST, HIGHEST), np.clip(values + up, LOWEST, HIGHEST)

    def decide(self, scores: Scores, alpha: float, min_score: float) -> Int8:
        """int8[n]: `KEEP` where the whole band reaches `min_score`, `DROP` where none of it does, else `UNDECIDED`."""
        low, high = self.interval(scores, alpha)
        return np.where(low >= min_score, KEEP, np.where(high < min_score, DROP, UNDECIDED)).astype(np.int8)


def _quantile(residuals: Float64, alpha: float) -> float | None:
    """The ceil((n + 1)(1 - alpha))-th smallest residual; None where there are too few to say."""
    # A hair less, so that (9 + 1)(1 - .1) is 9 and not 10 by rounding.
    rank = int(np.ceil((len(residuals) + 1) * (1 - alpha) - 1e-9))
    return float(np.sort(residuals)[rank - 1]) if rank <= len(residuals) else None


class Reliability(Section):
    """A non-decreasing map from score to the probability that the judge would keep the page.

    Fitted by isotonic regression (pool adjacent violators) on scores of pages that the model had not seen, and
    interpolated between the centres of the pools. It is stored in model.json (`metrics.reliability`), and a run copies
    it into its manifest, so that precision and recall can be expected for any threshold on any mix of scores. It holds
    as far as pages with the same score are alike in the labels and in the dump.

    Attributes:
        min_score: the judge would keep a page whose expected score is at least this.
        scores: mean score of each pool, ascending.
        rows: labelled pages in each pool.
        kept: share of them that the judge would keep, not decreasing.
    """

    min_score: float
    scores: tuple[float, ...] = Field(min_length=1, max_length=10_000)
    rows: tuple[int, ...]
    kept: tuple[float, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.scores) == len(self.rows) == len(self.kept):
            raise ValueError("scores, rows and kept must be of one length")
        if list(self.scores) != sorted(self.scores) or list(self.kept) != sorted(self.kept):
            raise ValueError("scores and kept must ascend")
        if not all(0 <= share <= 1 for share in self.kept) or min(self.rows) < 1:
            raise ValueError("kept are shares, and every pool has rows")
        return self

    @classmethod
    def fit(
        cls,
        predictions: Sequence[npt.NDArray[np.floating]],
        expected: Float64,
        min_score: float,
        weights: Float64 | None = None,
    ) -> Self:
        """Pool the pages.

        Args:
            predictions: float[n] each: scores by models that have not seen the pages; repetitions are pooled.
            expected: float64[n], the judge's scores.
            min_score: the keep rule.
            weights: float64[n], positive: how many pages of the crawl each stands for; None: all alike.
        """
        from sklearn.isotonic import IsotonicRegression

        pooled = np.concatenate([np.asarray(part, dtype=np.float64) for part in predictions])
        wanted = np.tile(np.asarray(expected) >= min_score, len(predictions)).astype(np.float64)
        mass = np.tile(np.ones(len(expected)) if weights is None else weights, len(predictions))
        fitted = IsotonicRegression(y_min=0, y_max=1).fit_transform(pooled, wanted, sample_weight=mass)
        kept, pool = np.unique(fitted, return_inverse=True)
        # As many pages as would say as much if they counted alike (Kish 1965).
        rows = np.bincount(pool, mass) ** 2 / np.bincount(pool, mass**2)
        centres = np.bincount(pool, mass * pooled) / np.bincount(pool, mass)
        per_repeat = np.maximum(np.rint(rows / len(predictions)), 1).astype(int)
        return cls(
            min_score=min_score,
            scores=tuple(centres.round(6).tolist()),
            rows=tuple(per_repeat.tolist()),
            kept=tuple(kept.round(6).tolist()),
        )

    def share(self, scores: npt.NDArray[np.floating]) -> Float64:
        """float64[n]: probability that the judge would keep a page of each score."""
        return np.asarray(np.interp(scores, self.scores, self.kept))

    def draws(self, scores: npt.NDArray[np.floating], count: int, random_state: int) -> Float64:
        """float64[count, n]: `share` as other pages might have shown it (Jeffreys posterior of each pool)."""
        generator = np.random.default_rng(random_state)
        rows, kept = np.array(self.rows, dtype=np.float64), np.array(self.kept)
        shares = generator.beta(rows * kept + 0.5, rows * (1 - kept) + 0.5, size=(count, len(rows)))
        return np.stack([np.interp(scores, self.scores, draw) for draw in shares])

    def to_json(self) -> dict[str, Any]:
        """A value for model.json."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read what `to_json` gave.

        Raises:
            ModelError: it is no such map.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            detail = error.errors()[0]
            raise ModelError(f"reliability: {detail['msg']}. Remedy: train the model again") from error
