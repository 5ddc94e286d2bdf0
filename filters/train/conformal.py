"""Split-conformal intervals: for one document, where the judge's score lies, at a chosen error rate.

Residuals (judge minus model) of pages the model has not seen give a band round a score that holds the judge's score of
a new page with probability 1 - alpha, whatever the model (Vovk, Gammerman and Shafer 2005; Lei et al. 2018). Residuals
grow with the score, so quantiles are taken per bin of the score (Mondrian). A document whose whole band lies above the
threshold is a keep, one whose whole band lies below it a drop, and the rest is undecided: a job for a better model or
the judge.

The guarantee asks for exchangeable pages: it holds for pages drawn as the annotations were. `measure_coverage` checks
it on hosts that the quantiles have not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from filters.errors import ModelError
from filters.statistics.agreement import HIGHEST, LOWEST, Scores
from filters.statistics.bootstrap import Estimate, mean_estimates
from filters.statistics.splits import group_folds
from filters.train.annotations import Annotations

Float64 = npt.NDArray[np.float64]
Int8 = npt.NDArray[np.int8]
Residual = Literal["absolute", "signed"]

KEEP, UNDECIDED, DROP = 1, 0, -1
ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
BINS = 8
_FOLDS = 5


class ConformalTable(BaseModel):
    """Residual quantiles per bin of the score: a few hundred bytes that go into a model folder.

    Attributes:
        residual: "absolute" (the band reaches as far down as up) or "signed" (each end misses alpha / 2).
        edges: upper ends of all bins but the last; a score on an edge belongs to the bin above.
        rows: residuals behind each bin.
        alphas: error rates for which quantiles are stored, ascending.
        below: [bin][alpha], how far the band reaches below the score; None: to the end of the scale.
        above: the same above the score.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    residual: Residual
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
        residual: Residual = "absolute",
        alphas: Sequence[float] = ALPHAS,
    ) -> Self:
        """Take the quantiles.

        Args:
            scores: float[n], calibrated scores of pages the model has not seen (out-of-fold or held out).
            expected: float64[n], the judge's scores of the same pages.
            bins: bins of the score with about the same number of rows; 1: one band width for all scores.
            residual: see the attributes.
            alphas: error rates to store.
        """
        values = np.asarray(scores, dtype=np.float64)
        edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
        place = np.searchsorted(edges, values, side="right")
        rest = np.asarray(expected, dtype=np.float64) - values
        rows, below, above = [], [], []
        for number in range(len(edges) + 1):
            inside = rest[place == number]
            rows.append(len(inside))
            if residual == "absolute":
                down = up = tuple(_quantile(np.abs(inside), alpha) for alpha in sorted(alphas))
            else:
                down = tuple(_quantile(-inside, alpha / 2) for alpha in sorted(alphas))
                up = tuple(_quantile(inside, alpha / 2) for alpha in sorted(alphas))
            below.append(down)
            above.append(up)
        return cls(
            residual=residual,
            edges=tuple(edges.tolist()),
            rows=tuple(rows),
            alphas=tuple(sorted(alphas)),
            below=tuple(below),
            above=tuple(above),
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

    def to_json(self) -> dict[str, Any]:
        """A value for model.json."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read what `to_json` gave.

        Raises:
            ModelError: it is no such table.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            detail = error.errors()[0]
            where = ".".join(map(str, detail["loc"]))
            raise ModelError(
                f"conformal table: {where + ': ' if where else ''}{detail['msg']}. Remedy: train the model again"
            ) from error


def _quantile(residuals: Float64, alpha: float) -> float | None:
    """The ceil((n + 1)(1 - alpha))-th smallest residual; None where there are too few to say."""
    # A hair less, so that (9 + 1)(1 - .1) is 9 and not 10 by rounding.
    rank = int(np.ceil((len(residuals) + 1) * (1 - alpha) - 1e-9))
    return float(np.sort(residuals)[rank - 1]) if rank <= len(residuals) else None


class BinCoverage(BaseModel):
    """Coverage in one bin of the score."""

    model_config = ConfigDict(frozen=True)

    low: float
    high: float
    rows: int
    coverage: float
    width: float


class Coverage(BaseModel):
    """What the bands do on hosts they have not seen.

    Attributes:
        alpha: the error rate asked for.
        residual: kind of band.
        coverage: share of pages whose judge's score lies in the band; 1 - alpha or a little more is right.
        width: mean width of the band.
        keep: share decided "keep".
        drop: share decided "drop".
        undecided: the rest.
        wrong_keep: share of the keep decisions that the judge would drop; undefined without any.
        wrong_drop: share of the drop decisions that the judge would keep.
        bins: coverage by bins of the score.
    """

    model_config = ConfigDict(frozen=True)

    alpha: float
    residual: Residual
    coverage: Estimate
    width: float
    keep: float
    drop: float
    undecided: float
    wrong_keep: Estimate
    wrong_drop: Estimate
    bins: tuple[BinCoverage, ...]


def measure_coverage(
    scores: Scores,
    labels: Annotations,
    min_score: float,
    alphas: Sequence[float],
    *,
    residual: Residual = "absolute",
    bins: int = BINS,
    resamples: int,
    random_state: int,
) -> tuple[Coverage, ...]:
    """Cross-conformal evaluation: quantiles from four fifths of the groups, coverage on the fifth, five times.

    Args:
        scores: float[n], scores by models that have not seen the rows.
        labels: the judge's labels of the n texts; folds are of whole groups (host and near copies).
        min_score: the keep rule.
        alphas: error rates.
        residual: see `ConformalTable`.
        bins: see `ConformalTable.fit`.
        resamples: of the bootstrap over groups.
        random_state: of folds and bootstrap.

    Raises:
        ValueError: fewer groups than folds.
    """
    values = np.asarray(scores, dtype=np.float64)
    wanted = labels.expected >= min_score
    low, high = np.zeros((len(alphas), len(values))), np.zeros((len(alphas), len(values)))
    decision = np.zeros((len(alphas), len(values)), dtype=np.int8)
    for training, test in group_folds(labels.groups, wanted, _FOLDS, random_state):
        table = ConformalTable.fit(
            values[training], labels.expected[training], bins=bins, residual=residual, alphas=alphas
        )
        for k, alpha in enumerate(alphas):
            low[k, test], high[k, test] = table.interval(values[test], alpha)
            decision[k, test] = table.decide(values[test], alpha, min_score)
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
    place = np.searchsorted(edges, values, side="right")
    results = []
    for k, alpha in enumerate(alphas):
        # Bands end in sums of floats: a label on the end is inside.
        covered = (labels.expected >= low[k] - 1e-9) & (labels.expected <= high[k] + 1e-9)
        keep, drop = decision[k] == KEEP, decision[k] == DROP
        coverage, wrong_keep, wrong_drop = mean_estimates(
            [covered, ~wanted, wanted],
            [np.ones(len(values)), keep, drop],
            labels.groups,
            resamples,
            random_state,
        )
        results.append(
            Coverage(
                alpha=alpha,
                residual=residual,
                coverage=coverage,
                width=float(np.mean(high[k] - low[k])),
                keep=float(keep.mean()),
                drop=float(drop.mean()),
                undecided=float(np.mean(~keep & ~drop)),
                wrong_keep=wrong_keep,
                wrong_drop=wrong_drop,
                bins=tuple(
                    BinCoverage(
                        low=float(values[inside].min()),
                        high=float(values[inside].max()),
                        rows=int(inside.sum()),
                        coverage=float(covered[inside].mean()),
                        width=float(np.mean((high[k] - low[k])[inside])),
                    )
                    for inside in (place == number for number in range(len(edges) + 1))
                    if inside.any()
                ),
            )
        )
    return tuple(results)
