"""Measures what more labels would buy: cross-validation with parts of the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from filters.arrays import Float64, Int64
from filters.model.kinds import classifier_class
from filters.model.kinds.linear import LinearConfig
from filters.statistics.agreement import Agreement
from filters.statistics.bootstrap import Estimate, group_resamples, interval
from filters.statistics.splits import group_folds
from filters.train.procedure import one_blas_thread

MEASURES = ("spearman", "best_f1")
SMALLEST = 40
"""Fewest labels a point of the curve is trained on."""
MIN_LABELS = 100
"""Below this a curve would say nothing."""
_SIZES, _FOLDS, _REPEATS, _WINDOW = 6, 5, 3, 3000


class CurvePoint(BaseModel):
    """What a classifier trained on so many labels reaches; `measures` has the names in `MEASURES`."""

    model_config = ConfigDict(frozen=True)

    labels: int
    measures: dict[str, Estimate]


class LearningCurve(BaseModel):
    """The learning curve: quality of a classifier by the number of labels it is trained on.

    Attributes:
        classifier: what was trained.
        method: how.
        points: ascending; their intervals cover the sample of pages and the draw of training labels.
    """

    model_config = ConfigDict(frozen=True)

    classifier: str
    method: str
    points: tuple[CurvePoint, ...]


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
    """Train the linear classifier on parts of the labels, and measure it on the others.

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

    def point(labels: int, of: Float64) -> CurvePoint:
        measures = {name: interval(of[0, k], of[1:, k]) for k, name in enumerate(MEASURES)}
        return CurvePoint(labels=labels, measures=measures)

    return LearningCurve(
        classifier="linear (ridge regression on hashed words and word pairs)",
        method=f"{_FOLDS}-fold cross-validation by host and near copy, {_REPEATS} draws of each size",
        points=tuple(point(size, values[:, place]) for place, size in enumerate(sizes.tolist())),
    )


def _out_of_fold(
    texts: Sequence[str], targets: Float64, groups: Int64, kept: npt.NDArray[np.bool_], size: int, seed: int
) -> npt.NDArray[np.float32]:
    """float32[n]: scores by classifiers that were trained on `size` labels of other groups."""
    rng = np.random.default_rng([seed, size])
    scores = np.zeros(len(texts), np.float32)
    for training, test in group_folds(groups, kept, _FOLDS, seed):
        rows = rng.choice(training, min(size, len(training)), replace=False)
        (classifier, *_) = classifier_class("linear").candidates(LinearConfig(min_df=2), _WINDOW)
        classifier.fit([texts[row] for row in rows], targets[rows], np.ones(len(rows)), seed)
        scores[test] = classifier.score([texts[row] for row in test])
    return scores
