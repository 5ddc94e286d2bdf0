"""The keep curve: the share of pages of each score that the judge would keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator

from filters.arrays import Float64
from filters.config.yaml_file import Section
from filters.errors import ModelError


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
