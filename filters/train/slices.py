"""Slices of labelled pages: does a model judge pages, or does it only recognise their topic?

A filter that has learnt "science is good, fashion is bad" ranks well over all pages and not at all inside a topic, so
the rank correlation *within* slices counts as much as the overall one. Slices come from the columns `topic`, `format`
and `language` where the annotations have them, and from the length of the text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from filters.arrays import Float64
from filters.statistics.agreement import METRICS, Agreement, Scores
from filters.statistics.bootstrap import Estimate, Measure, estimate, group_resamples
from filters.train.annotations import Annotations

LENGTHS = (1000, 2000, 4000, 8000)
OTHER = "(all others)"
SHOWN = 30
MIN_ROWS = 30
MIN_WANTED = 5
"""A slice with fewer rows, or fewer that the judge keeps or drops, gets no PR-AUC or F1: it would be noise."""
SLICE_METRICS = ("f1", "precision", "recall", "pr_auc", "spearman", "mae")
_KEPT_CLASS = ("f1", "precision", "recall", "pr_auc")


class Slice(BaseModel):
    """One slice.

    Attributes:
        name: of the slice, as the column has it.
        rows: texts in it.
        judge_kept_share: share that the judge keeps.
        kept_share: share that the model keeps.
        metrics: the names in `SLICE_METRICS`; undefined in slices that are too small.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    rows: int
    judge_kept_share: float
    kept_share: float
    metrics: dict[str, Estimate]


class Facet(BaseModel):
    """The slices of one column.

    Attributes:
        facet: name of the column, or "length" (characters).
        within_spearman: Spearman inside slices of at least `MIN_ROWS` rows, averaged by rows.
        within_pr_auc: PR-AUC inside slices, averaged by rows that the judge keeps.
        slices: the slices, largest first; beyond `SHOWN` they are taken together.
    """

    model_config = ConfigDict(frozen=True)

    facet: str
    within_spearman: Estimate
    within_pr_auc: Estimate
    slices: tuple[Slice, ...]


def facets_of(labels: Annotations) -> dict[str, tuple[str, ...]]:
    """Name -> n slice names: of the columns of `labels` with more than one value, and of the length of the text."""
    facets = {
        name: tuple(value or "(none)" for value in values)
        for name, values in labels.facets.items()
        if len(set(values)) > 1
    }
    return facets | {"length": tuple(_length(len(text)) for text in labels.texts)}


def _length(characters: int) -> str:
    for low, high in zip((0, *LENGTHS), LENGTHS, strict=False):
        if characters < high:
            return f"{low:,} to {high - 1:,}" if low else f"under {high:,}"
    return f"{LENGTHS[-1]:,} or more"


def measure_slices(
    predictions: Sequence[Scores],
    labels: Annotations,
    measure: Measure,
) -> tuple[Facet, ...]:
    """Metrics in every slice, and averaged within the slices of a facet.

    Args:
        predictions: float[n] each; metrics are averaged over them.
        labels: the judge's labels of n texts.
        measure: the keep rule and the bootstrap, which draws groups of all slices together.
    """
    drawn = group_resamples(labels.groups, measure.resamples, measure.random_state)
    counts = np.array([np.ones(len(labels), dtype=np.int32), *(weights.astype(np.int32) for weights in drawn)])
    return tuple(
        _facet(name, values, predictions, labels, measure.min_score, counts)
        for name, values in facets_of(labels).items()
    )


def _facet(
    name: str,
    values: Sequence[str],
    predictions: Sequence[Scores],
    labels: Annotations,
    min_score: float,
    counts: npt.NDArray[np.int32],
) -> Facet:
    sizes = Counter(values)
    # Lengths in their own order; others by size, then by name.
    order = sorted(sizes, key=lambda value: (-sizes[value], value))
    if name == "length":
        order = [value for value in dict.fromkeys(map(_length, (0, *LENGTHS))) if value in sizes]
    shown = order if len(order) <= SHOWN else order[: SHOWN - 1]
    members = {value: np.flatnonzero([other == value for other in values]) for value in shown}
    if len(shown) < len(order):
        members[OTHER] = np.flatnonzero([value not in members for value in values])
    wanted = labels.expected >= min_score
    names = list(METRICS)
    slices, ranks, curves, mass, hits = [], [], [], [], []
    for value, rows in members.items():
        agreements = [
            Agreement(np.asarray(scores)[rows], labels.expected[rows], labels.score[rows], min_score)
            for scores in predictions
        ]
        kept = sum(agreement.kept for agreement in agreements) / len(agreements)
        drawn = np.full((len(counts), len(names)), np.nan)
        large = len(rows) >= MIN_ROWS
        if large:
            for k, weights in enumerate(counts[:, rows].astype(np.float64)):
                if weights.any():
                    drawn[k] = np.mean([list(a.metrics(weights).values()) for a in agreements], axis=0)
        if min(wanted[rows].sum(), (~wanted[rows]).sum()) < MIN_WANTED:
            drawn[:, [names.index(metric) for metric in _KEPT_CLASS]] = np.nan
        if value != OTHER:
            ranks.append(drawn[:, names.index("spearman")])
            curves.append(drawn[:, names.index("pr_auc")])
            mass.append(counts[:, rows].sum(axis=1))
            hits.append(counts[:, rows] @ wanted[rows])
        slices.append(
            Slice(
                name=value,
                rows=len(rows),
                judge_kept_share=float(wanted[rows].mean()),
                kept_share=float(kept / len(rows)),
                metrics={metric: estimate(drawn[:, names.index(metric)]) for metric in SLICE_METRICS},
            )
        )
    spearman, pr_auc = _average(ranks, mass), _average(curves, hits)
    return Facet(
        facet=name,
        within_spearman=estimate(spearman),
        within_pr_auc=estimate(pr_auc),
        slices=tuple(slices),
    )


def _average(values: Sequence[Float64], weights: Sequence[npt.NDArray[np.integer]]) -> Float64:
    """float64[resamples]: weighted mean over slices, those left out that are undefined."""
    table, mass = np.array(values), np.array(weights, dtype=np.float64)
    mass[~np.isfinite(table)] = 0
    total = mass.sum(axis=0)
    sums = (np.nan_to_num(table) * mass).sum(axis=0)
    result: Float64 = np.divide(sums, total, out=np.full(len(total), np.nan), where=total > 0)
    return result
