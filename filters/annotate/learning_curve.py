"""What more labels would buy: cross-validated sizes of training, and a power law through them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from filters.statistics.agreement import Agreement
from filters.statistics.bootstrap import Estimate, group_resamples, interval
from filters.statistics.splits import group_folds
from filters.train.blas import one_blas_thread
from filters.train.classifier import classifier_class
from filters.train.config import LinearConfig

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

MEASURES = ("spearman", "best_f1")
SMALLEST = 40
"""Fewest labels a point of the curve is trained on."""
MIN_LABELS = 100
"""Below this a curve would say nothing."""
AHEAD = (2, 4)
"""How many times the labels there are the law is followed."""
_SIZES, _FOLDS, _REPEATS, _WINDOW = 6, 5, 3, 3000
_EXPONENTS = np.linspace(0.1, 1.5, 57)


class CurvePoint(BaseModel):
    """What a classifier trained on so many labels reaches; `measures` has the names in `MEASURES`."""

    model_config = ConfigDict(frozen=True)

    labels: int
    measures: dict[str, Estimate]


class LearningCurve(BaseModel):
    """A learning curve and where it leads.

    Attributes:
        classifier: what was trained.
        method: how.
        points: measured, ascending.
        forecast: by the law; its intervals hold what the sample of pages and the draw of training labels leave open,
            not whether the law holds.
        limit: where the law ends with labels without end.
    """

    model_config = ConfigDict(frozen=True)

    classifier: str
    method: str
    points: tuple[CurvePoint, ...]
    forecast: tuple[CurvePoint, ...]
    limit: dict[str, Estimate]


@one_blas_thread
def learning_curve(
    texts: Sequence[str],
    targets: Float64,
    groups: Int64,
    cut: float,
    *,
    scale: tuple[int, int] = (0, 5),
    resamples: int = 200,
    random_state: int = 0,
) -> LearningCurve | None:
    """Train the linear classifier on parts of the labels, and fit y = c - a n^-b to what it reaches on the others.

    Args:
        texts: n labelled texts.
        targets: float64[n], the judges' scores.
        groups: int64[n], host and near copies: never on both sides of a split.
        cut: kept is what is at least this.
        scale: lowest and highest score; scores are mapped to 0-5 for training.
        resamples: of the bootstrap over groups.
        random_state: of splits, draws and bootstrap.

    Returns:
        None with fewer than `MIN_LABELS` labels, too few groups, or labels on one side of `cut` only.
    """
    low, high = scale
    targets, cut = (targets - low) * 5 / (high - low), (cut - low) * 5 / (high - low)
    kept = targets >= cut
    if len(texts) < MIN_LABELS or len(np.unique(groups)) < 2 * _FOLDS or kept.sum() < _FOLDS or kept.all():
        return None
    largest = len(texts) * (_FOLDS - 1) // _FOLDS
    sizes = np.unique(np.geomspace(max(SMALLEST, largest // 16), largest, _SIZES).astype(int))
    # measured[resample, repeat, size, measure]; resample 0 is the sample as it is
    measured = np.full((1 + resamples, _REPEATS, len(sizes), len(MEASURES)), np.nan)
    for repeat in range(_REPEATS):
        for place, size in enumerate(sizes.tolist()):
            scores = _out_of_fold(texts, targets, groups, kept, size, random_state + repeat)
            agreement = Agreement(scores, targets, np.rint(targets).astype(np.int64), cut)
            weightings = [np.ones(len(texts)), *group_resamples(groups, resamples, random_state)]
            for number, weights in enumerate(weightings):
                found = agreement.metrics(weights)
                measured[number, repeat, place] = [found[name] for name in MEASURES]
    rng = np.random.default_rng(random_state)
    values = measured.mean(axis=1)
    for number in range(1, 1 + resamples):
        values[number] = measured[number, rng.integers(0, _REPEATS, _REPEATS)].mean(axis=0)
    ahead = np.array([factor * len(texts) for factor in (1, *AHEAD)])
    laws = np.array([[_power_law(sizes, row[:, k], ahead) for k in range(len(MEASURES))] for row in values])

    def point(labels: int, of: Float64) -> CurvePoint:
        measures = {name: interval(of[0, k], of[1:, k]) for k, name in enumerate(MEASURES)}
        return CurvePoint(labels=labels, measures=measures)

    return LearningCurve(
        classifier="linear (ridge regression on hashed words and word pairs)",
        method=f"{_FOLDS}-fold cross-validation by host and near copy, {_REPEATS} draws of each size",
        points=tuple(point(size, values[:, place]) for place, size in enumerate(sizes.tolist())),
        forecast=tuple(point(int(size), laws[:, :, 1 + place]) for place, size in enumerate(ahead)),
        limit=point(0, laws[:, :, 0]).measures,
    )


def _out_of_fold(
    texts: Sequence[str], targets: Float64, groups: Int64, kept: npt.NDArray[np.bool_], size: int, seed: int
) -> npt.NDArray[np.float32]:
    """float32[n]: scores by classifiers that were trained on `size` labels of other groups."""
    rng = np.random.default_rng([seed, size])
    scores = np.zeros(len(texts), np.float32)
    for training, test in group_folds(groups, kept, _FOLDS, seed):
        rows = rng.choice(training, min(size, len(training)), replace=False)
        (classifier, *_) = classifier_class("linear").candidates(LinearConfig(min_df=2), _WINDOW, 1.5)
        classifier.fit([texts[row] for row in rows], targets[rows], np.ones(len(rows)), seed)
        scores[test] = classifier.score([texts[row] for row in test])
    return scores


def _power_law(sizes: Int64, values: Float64, ahead: Int64) -> Float64:
    """float64[1 + len(ahead)]: c of the least-squares fit y = c - a n^-b, and y at `ahead`; a >= 0, c <= 1."""
    if not np.isfinite(values).all():
        return np.full(1 + len(ahead), np.nan)
    best, found = np.inf, np.full(1 + len(ahead), np.nan)
    for exponent in _EXPONENTS:
        x = sizes.astype(np.float64) ** -exponent
        slope, c = np.polyfit(x, values, 1)
        if slope > 0:  # the more labels, the worse: nothing to gain
            slope, c = 0.0, float(values.mean())
        elif c > 1:
            slope, c = float(x @ (values - 1) / (x @ x)), 1.0
        error = float(((values - c - slope * x) ** 2).sum())
        if error < best:
            best, found = error, np.r_[c, c + slope * ahead.astype(np.float64) ** -exponent]
    return found
