"""Measures agreement of scores with the judge, the kept class first, with bootstrap intervals.

The kept class is what a filter is for: always its precision, recall and F1, never an average over keep and drop.
Intervals are percentile bootstraps over groups (host and near copies), because pages of one host are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from filters.arrays import Float64
from filters.statistics.agreement import METRICS, Agreement, Scores
from filters.statistics.bootstrap import Estimate, Measure, estimate, group_resamples, interval, number
from filters.train.annotations import Annotations

COMPARED = ("f1", "best_f1", "pr_auc", "spearman")


def estimates(
    predictions: Sequence[Scores], labels: Annotations, measure: Measure
) -> tuple[dict[str, Estimate], dict[str, Estimate] | None]:
    """Metrics of one or several predictions of the same labels, under equal and under natural weights.

    Args:
        predictions: float[n] each; with several (repeated cross-validation) the metrics are averaged over them, in the
            point estimate and in every resample alike.
        labels: the judge's labels of n texts.
        measure: the keep rule and the bootstrap.

    Returns:
        metric -> estimate, and the same for the natural mix: randomly sampled rows under `labels.natural_weight` (None
        without such weights).
    """
    agreements = [Agreement(scores, labels.expected, labels.score, measure.min_score) for scores in predictions]

    def measured(weights: Float64) -> dict[str, Estimate]:
        draws = group_resamples(labels.groups, measure.resamples, measure.random_state)
        table = np.array([_mean(agreements, weights), *(_mean(agreements, weights * counts) for counts in draws)])
        return {name: estimate(column) for name, column in zip(METRICS, table.T, strict=True)}

    natural = labels.natural_weight
    return measured(np.ones(len(labels))), None if natural is None else measured(natural * labels.random)


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
    measure: Measure,
    second_min_score: float | None = None,
) -> dict[str, Difference]:
    """Paired bootstrap of two models: both are measured on the same resamples of groups (host and near copies).

    Args:
        first: float[n] each; one or several predictions, averaged as in `estimates`.
        second: the same of the other model.
        labels: the judge's labels of n texts.
        measure: the keep rule of labels and of the first model, and the bootstrap.
        second_min_score: the keep rule of the second model; None: the same.

    Returns:
        metric of `COMPARED` -> difference.
    """
    cut = measure.min_score
    rules = (cut, cut if second_min_score is None else second_min_score)
    sides = [
        [Agreement(scores, labels.expected, labels.score, rule, wanted=cut) for scores in predictions]
        for predictions, rule in zip((first, second), rules, strict=True)
    ]
    uniform = np.ones(len(labels))
    point = np.array([_mean(side, uniform) for side in sides])
    drawn = np.array(
        [
            [_mean(side, weights) for side in sides]
            for weights in group_resamples(labels.groups, measure.resamples, measure.random_state)
        ]
    )
    result = {}
    for k, name in enumerate(METRICS):
        if name not in COMPARED:
            continue
        gaps = drawn[:, 0, k] - drawn[:, 1, k]
        gaps = gaps[np.isfinite(gaps)]
        result[name] = Difference(
            first=number(point[0, k]),
            second=number(point[1, k]),
            difference=interval(point[0, k] - point[1, k], gaps),
            wins=float(np.mean((gaps > 0) + 0.5 * (gaps == 0))) if len(gaps) else 0.5,
        )
    return result


def _mean(agreements: Sequence[Agreement], weights: Float64) -> Float64:
    values = [list(agreement.metrics(weights).values()) for agreement in agreements]
    return np.asarray(np.mean(values, axis=0), dtype=np.float64)
