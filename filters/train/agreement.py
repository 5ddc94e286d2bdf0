"""Checks the labels: the judge's second ratings against its first, with a floor below which to warn.

A classifier may agree with a judge's rating better than a second rating of the judge does, for the second one is noisy
too; its correlation with a rating is bounded by the square root of the correlation of two
(`filters.statistics.agreement.correlation_bound`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from filters.errors import AnnotationsError
from filters.statistics.agreement import METRICS
from filters.statistics.bootstrap import Estimate, Measure
from filters.train.annotations import Annotations
from filters.train.config import AgreementConfig
from filters.train.evaluation import estimates

FEWEST = 20
"""Texts rated twice that a floor can be held against."""


class SelfAgreement(BaseModel, frozen=True):
    """The judge's second rating measured against its first, as if it were a model.

    It is no ceiling: the second rating is as noisy as the first. The highest Spearman a model can reach is about
    `filters.statistics.agreement.correlation_bound` of this one.

    Attributes:
        source: the columns.
        rows: texts with two ratings.
        metrics: the names of `METRICS`.
    """

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
