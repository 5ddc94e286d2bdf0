"""Agreement of scores with a judge's labels, under any weighting of the pages."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from filters.arrays import Float64, Int64
from filters.statistics.bootstrap import Estimate, ratio

Scores = npt.NDArray[np.floating]

LOWEST, HIGHEST = 0, 5
"""Ends of the judge's scale."""
RATINGS = 6
CALIBRATION_BIN = 0.25
METRICS = {
    "precision": "precision of the kept class at the keep rule",
    "recall": "recall of the kept class at the keep rule",
    "f1": "F1 of the kept class at the keep rule",
    "best_f1": "F1 of the kept class at its best threshold",
    "best_threshold": "threshold of that F1",
    "pr_auc": "average precision of the kept class",
    "roc_auc": "area under the ROC curve",
    "spearman": "rank correlation with the judge's expected score",
    "qwk": "quadratic weighted kappa of rounded scores",
    "mae": "mean absolute error against the judge's expected score",
    "calibration_error": "expected calibration error: mean distance of score and judge's mean over bins of the score",
    "kept_share": "share kept at the keep rule",
    "judge_kept_share": "share the judge would keep",
}


def correlation_bound(reliability: Estimate) -> Estimate:
    """The highest correlation with a rating that anything can reach, from the correlation of two such ratings.

    Its square root: what predicts the rater's mean without error still misses the noise of the one rating it is held
    against, and no longer that of a second one (Spearman 1904, on attenuation).
    """
    value, low, high = (
        None if each is None else max(each, 0.0) ** 0.5
        for each in (reliability.value, reliability.low, reliability.high)
    )
    return Estimate(value=value, low=low, high=high)


def score_bins(scores: Scores) -> Int64:
    """int64[n]: bin of each score, of width `CALIBRATION_BIN` from 0 on; what lies beyond 0 to 5 goes into the ends."""
    last = round(HIGHEST / CALIBRATION_BIN) - 1
    return np.clip(np.floor(np.asarray(scores, np.float64) / CALIBRATION_BIN), LOWEST, last).astype(np.int64)


class Agreement:
    """Scores against labels, sorted once, so that metrics under many weightings are cheap.

    Args:
        scores: float[n], calibrated scores.
        expected: float64[n], the judge's expected scores.
        judged: int64[n], the judge's whole-number scores.
        min_score: the keep rule; scores are compared as float32, labels as they are.
        wanted: the judge's side of the keep rule where it differs from `min_score`.
    """

    def __init__(
        self, scores: Scores, expected: Float64, judged: Int64, min_score: float, wanted: float | None = None
    ) -> None:
        values = np.asarray(scores, dtype=np.float32).astype(np.float64)
        self._excess = values - expected
        self._error = np.abs(self._excess)
        self._bin = score_bins(values)
        self._kept = np.asarray(scores, dtype=np.float32) >= np.float32(min_score)
        self._wanted = expected >= (min_score if wanted is None else wanted)
        self._cell = np.clip(judged, 0, RATINGS - 1) * RATINGS + np.clip(np.rint(values), 0, RATINGS - 1).astype(
            np.int64
        )
        self._order = np.argsort(-values, kind="stable")
        ordered = values[self._order]
        self._ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
        self._thresholds = ordered[self._ends]
        self._ranks = (np.unique(values, return_inverse=True)[1], np.unique(expected, return_inverse=True)[1])

    @property
    def kept(self) -> int:
        """Number of rows kept."""
        return int(self._kept.sum())

    def metrics(self, weights: Float64) -> dict[str, float]:
        """Every metric of `METRICS`, in its order; NaN where undefined.

        Args:
            weights: float64[n], not negative; a row of weight 2 counts as two rows.
        """
        total = weights.sum()
        hit = weights[self._kept & self._wanted].sum()
        kept, wanted = weights[self._kept].sum(), weights[self._wanted].sum()
        best, threshold, pr_auc, roc_auc = self._curves(weights)
        seen: Float64 = np.bincount(self._cell, weights, RATINGS**2).reshape(1, RATINGS, RATINGS).astype(np.float64)
        return {
            "precision": hit / kept if kept else 0.0,
            "recall": hit / wanted if wanted else np.nan,
            "f1": 2 * hit / (kept + wanted) if wanted else np.nan,
            "best_f1": best,
            "best_threshold": threshold,
            "pr_auc": pr_auc,
            "roc_auc": roc_auc,
            "spearman": rank_correlation(*self._ranks, weights),
            "qwk": float(kappas(seen)[0]),
            "mae": float(weights @ self._error / total),
            "calibration_error": float(np.abs(np.bincount(self._bin, weights * self._excess)).sum() / total),
            "kept_share": kept / total,
            "judge_kept_share": wanted / total,
        }

    def _curves(self, weights: Float64) -> tuple[float, float, float, float]:
        """Best F1, its threshold, average precision and ROC-AUC, over the distinct scores from high to low."""
        ordered = weights[self._order]
        kept = np.cumsum(ordered)[self._ends]
        hit = np.cumsum(ordered * self._wanted[self._order])[self._ends]
        wanted = hit[-1]
        dropped = kept[-1] - wanted
        if wanted <= 0:
            return np.nan, np.nan, np.nan, np.nan
        f1 = 2 * hit / (kept + wanted)
        best = int(np.argmax(f1))
        precision = np.divide(hit, kept, out=np.zeros_like(hit), where=kept > 0)
        average = float(np.diff(hit, prepend=0.0) @ precision / wanted)
        false = np.r_[0.0, kept - hit]
        roc = float(np.trapezoid(np.r_[0.0, hit], false) / (wanted * dropped)) if dropped > 0 else np.nan
        return float(f1[best]), float(self._thresholds[best]), average, roc


def rank_correlation(first: Int64, second: Int64, weights: Float64) -> float:
    """Pearson correlation of mid-ranks, a row of weight w standing for w equal rows; NaN where undefined.

    Args:
        first: int64[n], rank of each row among the distinct values (`np.unique(values, return_inverse=True)[1]`).
        second: the same of the other column.
        weights: float64[n], not negative.
    """
    total = weights.sum()
    if total <= 0:
        return float("nan")
    ranks = []
    for place in (first, second):
        mass = np.bincount(place, weights)
        rank = (np.cumsum(mass) - mass / 2)[place]
        ranks.append(rank - weights @ rank / total)
    a, b = ranks
    scale = np.sqrt((weights @ (a * a)) * (weights @ (b * b)))
    return float(weights @ (a * b) / scale) if scale > 0 else float("nan")


def kappas(seen: Float64) -> Float64:
    """float64[b]: Cohen's kappa with quadratic weights (Cohen 1968) of contingency tables float64[b, k, k].

    NaN where it is undefined.
    """
    size = seen.shape[1]
    distance = np.subtract.outer(np.arange(size), np.arange(size)) ** 2.0
    observed = np.einsum("bij,ij->b", seen, distance)
    return 1 - ratio(observed * seen.sum((1, 2)), np.einsum("bi,bj,ij->b", seen.sum(2), seen.sum(1), distance))
