"""Fits a monotone map from a classifier's raw score to the judge's 0-5 scale (`filters.model.Calibration`).

Regression to noisy labels shrinks towards the mean, so raw scores seldom reach the ends of the judge's scale and a keep
rule such as "score >= 1.5" would keep too little. The map, fitted on out-of-fold predictions, is a rising broken
line with few knots (monotone regression spline of order 2, Ramsay 1988), its changes of slope penalised (P-splines,
Eilers and Marx 1996). It is `anchored`: it keeps what the judge keeps at one place, the keep rule, and is the expected
label as nearly as that allows everywhere else. A weak classifier's kept pages are worth less than the keep rule says:
where their mean score would promise more than `_MOST_PROMISED` too much, the map goes over into the line without an
anchor as far as it must. docs/experiments.md has the maps it was chosen among.
"""

from __future__ import annotations

import numpy as np

from filters.arrays import Float64
from filters.model import Calibration
from filters.statistics.agreement import HIGHEST, LOWEST

METHOD = "anchored"
"""As model.json names it."""

_KNOTS = 12
_LEAST_SLOPE = 0.1
"""Smallest slope of the spline, as a share of the mean slope: the order of scores is kept everywhere."""
_MOST_PROMISED = 0.25
"""How far the mean score of the kept may lie above the judge's mean of them on the fitted rows, as far as is sure
(two standard errors below)."""
_SMOOTHNESS = 0.01
"""Weight of a squared change of slope (per standard deviation of the raw score) beside a row's squared error. Without
it the anchor makes a step next to a plateau, on which hundreds of documents pile up just above the keep rule."""


def fit_calibration(
    raw: Float64,
    expected: Float64,
    weights: Float64 | None = None,
    min_score: float = 1.5,
    highest: float = HIGHEST,
) -> Calibration:
    """Fit the map on out-of-fold predictions.

    Args:
        raw: float64[n], raw scores of rows the classifier was not fitted on.
        expected: float64[n], the judge's scores of the same rows.
        weights: float64[n], positive; None: all 1.
        min_score: the keep rule, with labels on both sides of it.
        highest: upper end of the scale.

    Raises:
        ValueError: all raw scores are equal, so nothing can be ordered by them.
    """
    raw, expected = np.asarray(raw, np.float64), np.asarray(expected, np.float64)
    weights = np.ones(len(raw)) if weights is None else np.asarray(weights, np.float64)
    if len(raw) == 0 or raw.min() == raw.max():
        raise ValueError("all raw scores are equal: the classifier has learnt nothing that could be calibrated")
    anchor = _cut(raw, weights, float(weights[expected >= min_score].sum() / weights.sum())), min_score
    anchored, free = (_spline(raw, expected, weights, at, highest) for at in (anchor, None))
    x, y = _bounded(anchored, free, raw, expected, weights, min_score)
    # Beyond the last knots the map goes on at its mean slope to the ends of the scale, so that order is kept there.
    slope = (y[-1] - y[0]) / (x[-1] - x[0]) if x[-1] > x[0] and y[-1] > y[0] else 1.0
    if y[0] > LOWEST:
        x, y = np.r_[x[0] - (y[0] - LOWEST) / slope, x], np.r_[LOWEST, y]
    if y[-1] < highest:
        x, y = np.r_[x, x[-1] + (highest - y[-1]) / slope], np.r_[y, highest]
    return Calibration(x, np.clip(y, LOWEST, highest))


def _cut(raw: Float64, weights: Float64, share: float) -> float:
    """The raw score that `share` of the rows reach; half-way to the next lower one, so that rounding moves no row."""
    values, place = np.unique(raw, return_inverse=True)
    above = np.cumsum(np.bincount(place, weights)[::-1])[::-1] / weights.sum()
    first = int(np.clip(np.argmin(np.abs(above - share)), 1, len(values) - 1))
    return float((values[first - 1] + values[first]) / 2)


def _spline(
    raw: Float64, expected: Float64, weights: Float64, anchor: tuple[float, float] | None, highest: float
) -> tuple[Float64, Float64]:
    """Knots of the rising, smooth broken line of least squared error, through `anchor` (raw, score) if there is one."""
    from scipy.optimize import nnls

    # Even in rank and dense at the top, where scores are rare and matter most.
    shares = 1 - (1 - np.linspace(0, 1, _KNOTS)) ** 2
    knots = np.unique(np.r_[np.quantile(raw, shares), [] if anchor is None else anchor[0]])
    widths = np.diff(knots)
    ramps = np.clip((raw[:, None] - knots[:-1]) / widths, 0, 1)
    if anchor is not None:
        ramps = ramps - (knots[:-1] < anchor[0])
    spread = float(np.sqrt(np.average((expected - np.average(expected, weights=weights)) ** 2, weights=weights)))
    least = _LEAST_SLOPE * widths * max(spread, 1e-3) / raw.std()
    root = np.sqrt(weights)
    start = 0.0 if anchor is None else anchor[1]
    rest = (expected - start - ramps @ least) * root
    # Without an anchor the level is free: two columns, of which only one is used.
    level = np.empty((len(raw), 0)) if anchor is not None else np.stack([root, -root], axis=1)
    bends = np.diff(np.diag(1 / widths), axis=0) * raw.std() * np.sqrt(_SMOOTHNESS * weights.sum())
    sides = np.hstack([np.r_[ramps * root[:, None], bends], np.pad(level, ((0, len(bends)), (0, 0)))])
    found, _ = nnls(sides, np.r_[rest, -bends @ least])
    steps = found[: len(widths)] + least
    y = np.r_[0.0, np.cumsum(steps)]
    y += start - y[np.searchsorted(knots, anchor[0])] if anchor is not None else found[-2] - found[-1]
    return _within(knots, y, highest)


def _bounded(
    anchored: tuple[Float64, Float64],
    free: tuple[Float64, Float64],
    raw: Float64,
    expected: Float64,
    weights: Float64,
    min_score: float,
) -> tuple[Float64, Float64]:
    """As much of the anchored map, mixed with the free one, as promises no more than `_MOST_PROMISED` too much."""
    x = np.unique(np.r_[anchored[0], free[0]])
    sides = [np.interp(x, *line) for line in (anchored, free)]
    for part in np.linspace(1, 0, 21):
        y = part * sides[0] + (1 - part) * sides[1]
        scores = np.interp(raw, x, y)
        kept = scores >= min_score
        if not kept.any():
            return x, y
        excess, mass = scores[kept] - expected[kept], weights[kept] / weights[kept].sum()
        mean = float(mass @ excess)
        if mean - 2 * float(np.sqrt(mass**2 @ (excess - mean) ** 2)) <= _MOST_PROMISED:
            return anchored if part == 1 else (x, y)
    return free


def _within(x: Float64, y: Float64, highest: float) -> tuple[Float64, Float64]:
    """The part of a broken line that lies on the judge's scale, cut where it leaves it."""
    ends = [float(np.interp(level, y, x)) for level in (LOWEST, highest)]
    inside = (y > LOWEST) & (y < highest)
    low = ([ends[0]], [float(LOWEST)]) if y[0] <= LOWEST else ([], [])
    high = ([ends[1]], [float(highest)]) if y[-1] >= highest else ([], [])
    return np.r_[low[0], x[inside], high[0]], np.r_[low[1], y[inside], high[1]]
