"""Do conformal bands (`filters.model.conformal`) cover, and decide rightly, on hosts their quantiles have not seen?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from filters.model.conformal import BINS, DROP, KEEP, ConformalTable, Residual
from filters.statistics.agreement import Scores
from filters.statistics.bootstrap import Estimate, Measure
from filters.statistics.splits import group_folds
from filters.train.annotations import Annotations

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
    measure: Measure,
    alphas: Sequence[float] = REPORTED,
    *,
    residual: Residual = "absolute",
    bins: int = BINS,
) -> tuple[Coverage, ...]:
    """Cross-conformal evaluation: quantiles from four fifths of the groups, coverage on the fifth, five times.

    Args:
        scores: float[n], scores by models that have not seen the rows.
        labels: the judge's labels of the n texts; folds are of whole groups (host and near copies).
        measure: the keep rule, the bootstrap, and the seed of the folds.
        alphas: error rates.
        residual: see `ConformalTable`.
        bins: see `ConformalTable.fit`.

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
        table = ConformalTable.fit(
            values[training], labels.expected[training], bins=bins, residual=residual, alphas=alphas
        )
        for k, alpha in enumerate(alphas):
            low[k, test], high[k, test] = table.interval(values[test], alpha)
            decision[k, test] = table.decide(values[test], alpha, measure.min_score)
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
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
