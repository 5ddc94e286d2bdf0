"""How well scores agree with the judge, and how sure that is: the kept class first, with bootstrap intervals.

The kept class is what a filter is for: always its precision, recall and F1, never an average over keep and drop.
Intervals are percentile bootstraps over groups (host and near copies), because pages of one host are not independent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from filters.train.annotations import HIGHEST, LOWEST, Annotations

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Scores = npt.NDArray[np.floating]

RATINGS = 6
CONFIDENCE = 0.95
CALIBRATION_BIN = 0.25
COMPARED = ("f1", "best_f1", "pr_auc", "spearman")
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


class Estimate(BaseModel):
    """A value with the ends of its bootstrap interval; None where it is undefined (no kept page in the sample)."""

    model_config = ConfigDict(frozen=True)

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return "undefined"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def estimates(
    predictions: Sequence[Scores], labels: Annotations, min_score: float, *, resamples: int, random_state: int
) -> tuple[dict[str, Estimate], dict[str, Estimate] | None]:
    """Metrics of one or several predictions of the same labels, under equal and under natural weights.

    Args:
        predictions: float[n] each; with several (repeated cross-validation) the metrics are averaged over them, in the
            point estimate and in every resample alike.
        labels: the judge's labels of n texts.
        min_score: the keep rule.
        resamples: of the bootstrap over groups.
        random_state: of the bootstrap.

    Returns:
        metric -> estimate, and the same for the natural mix: randomly sampled rows under `labels.natural_weight` (None
        without such weights).
    """
    agreements = [Agreement(scores, labels.expected, labels.score, min_score) for scores in predictions]
    uniform = np.ones(len(labels))
    sample = _bootstrap(agreements, uniform, labels.groups, resamples, random_state)
    if labels.natural_weight is None:
        return sample, None
    natural = labels.natural_weight * labels.random
    return sample, _bootstrap(agreements, natural, labels.groups, resamples, random_state)


class Difference(BaseModel):
    """A metric of one model minus the same metric of another, on the same rows.

    Attributes:
        first: value of the first model.
        second: value of the second model.
        difference: first - second, with its interval.
        wins: share of resamples in which the first is higher; ties count half.
    """

    model_config = ConfigDict(frozen=True)

    first: float | None
    second: float | None
    difference: Estimate
    wins: float


def compare(
    first: Sequence[Scores],
    second: Sequence[Scores],
    labels: Annotations,
    min_scores: tuple[float, float],
    *,
    resamples: int,
    random_state: int,
) -> dict[str, Difference]:
    """Paired bootstrap of two models: both are measured on the same resamples of groups (host and near copies).

    Args:
        first: float[n] each; one or several predictions, averaged as in `estimates`.
        second: the same of the other model.
        labels: the judge's labels of n texts.
        min_scores: keep rules of the two models; labels are compared with the first's.
        resamples: of the bootstrap over groups.
        random_state: of the bootstrap.

    Returns:
        metric of `COMPARED` -> difference.
    """
    sides = [
        [Agreement(scores, labels.expected, labels.score, min_score, wanted=min_scores[0]) for scores in predictions]
        for predictions, min_score in zip((first, second), min_scores, strict=True)
    ]
    uniform = np.ones(len(labels))
    point = np.array([_mean(side, uniform) for side in sides])
    drawn = np.array(
        [
            [_mean(side, weights) for side in sides]
            for weights in group_resamples(labels.groups, resamples, random_state)
        ]
    )
    result = {}
    for k, name in enumerate(METRICS):
        if name not in COMPARED:
            continue
        gaps = drawn[:, 0, k] - drawn[:, 1, k]
        gaps = gaps[np.isfinite(gaps)]
        result[name] = Difference(
            first=_number(point[0, k]),
            second=_number(point[1, k]),
            difference=interval(point[0, k] - point[1, k], gaps),
            wins=float(np.mean((gaps > 0) + 0.5 * (gaps == 0))) if len(gaps) else 0.5,
        )
    return result


def group_resamples(groups: Int64, resamples: int, random_state: int) -> Iterator[Float64]:
    """How often each row counts in each bootstrap resample of whole groups: float64[n], `resamples` times.

    The same groups and random_state give the same resamples, so intervals of one report belong together.
    """
    names, member = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(random_state)
    even = np.full(len(names), 1 / len(names))
    for _ in range(resamples):
        yield rng.multinomial(len(names), even)[member].astype(np.float64)


def interval(value: float, drawn: Float64) -> Estimate:
    """`value` with the percentile interval of `drawn`, values of the resamples; undefined resamples are left out."""
    defined = drawn[np.isfinite(drawn)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail]) if len(defined) else (np.nan, np.nan)
    return Estimate(value=_number(value), low=_number(low), high=_number(high))


def mean_estimates(
    values: Sequence[npt.NDArray[Any]],
    weights: Sequence[npt.NDArray[Any]],
    groups: Int64,
    resamples: int,
    random_state: int,
) -> list[Estimate]:
    """Weighted means with their intervals, all from the same resamples; undefined where the weights sum to 0.

    Args:
        values: m times number[n].
        weights: m times number[n], not negative.
        groups: int64[n].
        resamples: of the bootstrap over groups.
        random_state: of the bootstrap.
    """
    mass = np.array(weights, dtype=np.float64)
    sums = mass * np.array(values, dtype=np.float64)
    # A resample draws groups, so rows are added up by group once.
    names, member = np.unique(groups, return_inverse=True)
    by_group = np.array([np.bincount(member, row, minlength=len(names)) for row in (*sums, *mass)])
    every = np.ones((len(names), 1))
    counts = np.array(list(group_resamples(np.arange(len(names)), resamples, random_state))).T
    totals = by_group @ np.hstack([every, counts])
    top, bottom = totals[: len(sums)], totals[len(sums) :]
    means = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
    return [interval(row[0], row[1:]) for row in means]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _bootstrap(
    agreements: Sequence[Agreement], weights: Float64, groups: Int64, resamples: int, random_state: int
) -> dict[str, Estimate]:
    point = _mean(agreements, weights)
    drawn = np.array(
        [_mean(agreements, weights * counts) for counts in group_resamples(groups, resamples, random_state)]
    ).reshape(resamples, len(METRICS))
    return {name: interval(point[k], drawn[:, k]) for k, name in enumerate(METRICS)}


def _mean(agreements: Sequence[Agreement], weights: Float64) -> Float64:
    values = [list(agreement.metrics(weights).values()) for agreement in agreements]
    return np.asarray(np.mean(values, axis=0), dtype=np.float64)


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
        self._ranks = [np.unique(column, return_inverse=True)[1] for column in (values, expected)]

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
        return {
            "precision": hit / kept if kept else 0.0,
            "recall": hit / wanted if wanted else np.nan,
            "f1": 2 * hit / (kept + wanted) if wanted else np.nan,
            "best_f1": best,
            "best_threshold": threshold,
            "pr_auc": pr_auc,
            "roc_auc": roc_auc,
            "spearman": self._spearman(weights),
            "qwk": self._kappa(weights),
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

    def _spearman(self, weights: Float64) -> float:
        """Pearson correlation of mid-ranks, a row of weight w standing for w equal rows."""
        ranks = []
        for place in self._ranks:
            mass = np.bincount(place, weights)
            ranks.append((np.cumsum(mass) - mass / 2)[place])
        total = weights.sum()
        a, b = (rank - weights @ rank / total for rank in ranks)
        scale = np.sqrt((weights @ (a * a)) * (weights @ (b * b)))
        return float(weights @ (a * b) / scale) if scale > 0 else np.nan

    def _kappa(self, weights: Float64) -> float:
        """Cohen's kappa with quadratic weights (Cohen 1968)."""
        seen = np.bincount(self._cell, weights, minlength=RATINGS**2).reshape(RATINGS, RATINGS)
        distance = np.subtract.outer(np.arange(RATINGS), np.arange(RATINGS)) ** 2
        by_chance = float((np.outer(seen.sum(1), seen.sum(0)) * distance).sum() / seen.sum())
        return 1 - float((seen * distance).sum()) / by_chance if by_chance > 0 else np.nan
