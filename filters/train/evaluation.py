"""Measures agreement of scores with the judge, the kept class first, with bootstrap intervals.

The kept class is what a filter is for: always its precision, recall and F1, never an average over keep and drop.
Intervals are percentile bootstraps over groups (host and near copies), because pages of one host are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from filters.arrays import Float64
from filters.errors import AnnotationsError
from filters.model.reliability import BINS, DROP, KEEP, ConformalTable
from filters.statistics.agreement import METRICS, LabelMetrics, Scores
from filters.statistics.resampling import Estimate, Measure, estimate, group_folds, group_resamples, interval, number
from filters.train.annotations import Annotations
from filters.train.config import AgreementConfig

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
    agreements = [LabelMetrics(scores, labels.expected, labels.score, measure.min_score) for scores in predictions]

    def measured(weights: Float64) -> dict[str, Estimate]:
        draws = group_resamples(labels.groups, measure.resamples, measure.random_state)
        table = np.array([_mean(agreements, weights), *(_mean(agreements, weights * counts) for counts in draws)])
        return {name: estimate(column) for name, column in zip(METRICS, table.T, strict=True)}

    natural = labels.natural_weight
    return measured(np.ones(len(labels))), None if natural is None else measured(natural * labels.random)


class Difference(BaseModel):
    """A metric of one model minus the same metric of another, on the same rows.

    Attributes:
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
        [LabelMetrics(scores, labels.expected, labels.score, rule, wanted=cut) for scores in predictions]
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


def _mean(agreements: Sequence[LabelMetrics], weights: Float64) -> Float64:
    values = [list(agreement.metrics(weights).values()) for agreement in agreements]
    return np.asarray(np.mean(values, axis=0), dtype=np.float64)


REPORTED = (0.05, 0.1, 0.2, 0.3)
"""Error rates shown in reports and cards."""
_FOLDS = 5


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
        coverage: share of pages whose judge's score lies in the band; 1 - alpha or a little more is right.
        width: mean width of the band.
        wrong_keep: share of the keep decisions that the judge would drop; undefined without any.
        wrong_drop: share of the drop decisions that the judge would keep.
    """

    model_config = ConfigDict(frozen=True)

    alpha: float
    residual: Literal["absolute"]
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
    measure: Measure,
    alphas: Sequence[float] = REPORTED,
) -> tuple[Coverage, ...]:
    """Cross-conformal evaluation: quantiles from four fifths of the groups, coverage on the fifth, five times.

    Args:
        scores: float[n], scores by models that have not seen the rows.
        labels: the judge's labels of the n texts; folds are of whole groups (host and near copies).
        measure: the keep rule, the bootstrap, and the seed of the folds.
        alphas: error rates.

    Returns:
        One for each error rate; none where there are fewer groups than folds.
    """
    if len(np.unique(labels.groups)) < _FOLDS:
        return ()
    values = np.asarray(scores, dtype=np.float64)
    wanted = labels.expected >= measure.min_score
    low, high = np.zeros((len(alphas), len(values))), np.zeros((len(alphas), len(values)))
    decision = np.zeros((len(alphas), len(values)), dtype=np.int8)
    for training, test in group_folds(labels.groups, wanted, _FOLDS, measure.random_state):
        table = ConformalTable.fit(values[training], labels.expected[training], alphas=alphas)
        for k, alpha in enumerate(alphas):
            low[k, test], high[k, test] = table.interval(values[test], alpha)
            decision[k, test] = table.decide(values[test], alpha, measure.min_score)
    edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS))
    place = np.searchsorted(edges, values, side="right")
    results = []
    for k, alpha in enumerate(alphas):
        # Bands end in sums of floats: a label on the end is inside.
        covered = (labels.expected >= low[k] - 1e-9) & (labels.expected <= high[k] + 1e-9)
        keep, drop = decision[k] == KEEP, decision[k] == DROP
        coverage, wrong_keep, wrong_drop = measure.means(
            [covered, ~wanted, wanted], [np.ones(len(values)), keep, drop], labels.groups
        )
        results.append(
            Coverage(
                alpha=alpha,
                residual="absolute",
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


FEWEST = 20
"""Texts rated twice that a floor can be held against."""


class SelfAgreement(BaseModel, frozen=True):
    """The judge's second rating measured against its first, as if it were a model.

    It is no ceiling: the second rating is as noisy as the first. The highest Spearman a model can reach is about
    `filters.statistics.agreement.correlation_bound` of this one."""

    source: str
    rows: int
    metrics: dict[str, Estimate]


def self_agreement(labels: Annotations, measure: Measure) -> SelfAgreement | None:
    """The second ratings measured against the first, as if they were a model's; None where nothing was rated twice."""
    rows = np.flatnonzero(np.isfinite(labels.ratings[:, 0]))
    if not len(rows):
        return None
    first, second = labels.ratings[rows].T
    # The judge's first rating takes the place of the label.
    rated = replace(labels.take(rows), score=np.rint(first).astype(np.int64), expected=first, natural_weight=None)
    metrics, _ = estimates([second], rated, measure)
    return SelfAgreement(source=labels.ratings_source, rows=len(rows), metrics=metrics)


def check_agreement(
    path: str | Path,
    labels: Annotations,
    config: AgreementConfig,
    measure: Measure,
    echo: Callable[[str], None],
) -> tuple[str, ...]:
    """Measure the agreement of labels that were rated twice, and warn or refuse below the floor.

    Args:
        path: the annotations file.
        labels: what was read of it.
        config: the floor.
        measure: the keep rule and the bootstrap.
        echo: told what was found.

    Returns:
        A warning for the model's card, or nothing.

    Raises:
        AnnotationsError: the agreement is below the floor, or unknown, and `config.refuse` is set.
    """
    found = self_agreement(labels, measure)
    estimate = None if found is None else found.metrics[config.metric]
    if found is None or estimate is None or estimate.value is None or found.rows < FEWEST:
        if config.refuse:
            raise AnnotationsError(
                f"{path}: agreement.refuse is set, and {found.rows if found else 0} texts were rated twice, where "
                f"{FEWEST} are needed to know the judge's agreement with itself. Remedy: annotate with mode: sample "
                "and repeats: 2, or with a second judge, or agreement.refuse: false"
            )
        return ()
    what = f"{METRICS[config.metric]} of {found.rows} texts rated twice ({found.source}): {estimate}"
    if estimate.value >= config.floor:
        echo(f"agreement: {what}")
        return ()
    said = f"agreement below the floor of {config.floor:g}: {what}"
    if config.refuse:
        raise AnnotationsError(
            f"{path}: {said}. Remedy: a better judge or rubric (finesieve annotate --report says where they differ), "
            "more repeats, or a lower agreement.floor"
        )
    echo(f"WARNING: {said}; a classifier learns the noise of its labels")
    return (said,)
