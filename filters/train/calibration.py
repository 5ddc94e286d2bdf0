"""Fits a monotone map from a classifier's raw score to the judge's 0-5 scale (`filters.model.Calibration`).

Regression to noisy labels shrinks towards the mean, so raw scores seldom reach the ends of the judge's scale and a keep
rule such as "score >= 1.5" would keep too little. Two maps are offered, both to be fitted on out-of-fold predictions:

- `isotonic`: the expected label given the raw score (pool adjacent violators, interpolated between the centres of the
  pools: Oron and Flournoy 2017). Least squared error; it cannot undo the shrinkage, since that is what the expectation
  of a noisy prediction is.
- `equipercentile`: the label at the same quantile (equipercentile linking; Kolen and Brennan, Test Equating).
  Calibrated scores are distributed as the judge's, so a threshold keeps the share of pages that the judge would keep.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from filters.model import Calibration

Float64 = npt.NDArray[np.float64]
Method = Literal["equipercentile", "isotonic"]

LOWEST, HIGHEST = 0.0, 5.0


def fit_calibration(method: Method, raw: Float64, expected: Float64, weights: Float64 | None = None) -> Calibration:
    """Fit the map on out-of-fold predictions.

    Args:
        method: see the module.
        raw: float64[n], raw scores of rows the classifier was not fitted on.
        expected: float64[n], the judge's scores of the same rows.
        weights: float64[n], positive; None: all 1.

    Raises:
        ValueError: all raw scores are equal, so nothing can be ordered by them.
    """
    raw, expected = np.asarray(raw, np.float64), np.asarray(expected, np.float64)
    weights = np.ones(len(raw)) if weights is None else np.asarray(weights, np.float64)
    if len(raw) == 0 or raw.min() == raw.max():
        raise ValueError("all raw scores are equal: the classifier has learnt nothing that could be calibrated")
    x, y = (_isotonic if method == "isotonic" else _equipercentile)(raw, expected, weights)
    # Beyond the last knots the map goes on at its mean slope to the ends of the scale, so that order is kept there.
    slope = (y[-1] - y[0]) / (x[-1] - x[0]) if x[-1] > x[0] and y[-1] > y[0] else 1.0
    if y[0] > LOWEST:
        x, y = np.r_[x[0] - (y[0] - LOWEST) / slope, x], np.r_[LOWEST, y]
    if y[-1] < HIGHEST:
        x, y = np.r_[x, x[-1] + (HIGHEST - y[-1]) / slope], np.r_[y, HIGHEST]
    return Calibration(x, np.clip(y, LOWEST, HIGHEST))


def _isotonic(raw: Float64, expected: Float64, weights: Float64) -> tuple[Float64, Float64]:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression().fit_transform(raw, expected, sample_weight=weights)
    y, pool = np.unique(fitted, return_inverse=True)
    mass = np.bincount(pool, weights)
    return np.bincount(pool, weights * raw) / mass, y


def _equipercentile(raw: Float64, expected: Float64, weights: Float64) -> tuple[Float64, Float64]:
    """Knots at the midpoints between neighbouring labels, each at the raw score that cuts off the same share."""
    labels, inverse = np.unique(expected, return_inverse=True)
    below = np.cumsum(np.bincount(inverse, weights))[:-1] / weights.sum()
    order = np.argsort(raw, kind="stable")
    ranks = np.cumsum(weights[order]) - weights[order] / 2
    cuts = np.interp(below * weights.sum(), ranks, raw[order])
    x = np.r_[raw[order[0]], cuts, raw[order[-1]]]
    y = np.r_[labels[0], (labels[:-1] + labels[1:]) / 2, labels[-1]]
    # Equal raw scores at several shares: the last, highest label counts.
    last = np.r_[x[1:] > x[:-1], True]
    return x[last], y[last]
