"""Slices of labelled pages: does a model judge pages, or does it only recognise their topic?

A filter that has learnt "science is good, fashion is bad" ranks well over all pages and not at all inside a topic, so
the rank correlation *within* slices counts as much as the overall one. Slices come from the columns `topic`, `format`
and `language` where the annotations have them, and from the length of the text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from filters.arrays import Float64
from filters.errors import AnnotationsError
from filters.read.labels import read_labels
from filters.statistics.agreement import HIGHEST, LOWEST, METRICS, Agreement, Scores
from filters.statistics.bootstrap import Estimate, Measure, estimate, group_resamples
from filters.train.annotations import Annotations

FACETS = ("topic", "format", "language")
LENGTHS = (1000, 2000, 4000, 8000)
OTHER = "(all others)"
SHOWN = 30
MIN_ROWS = 30
MIN_WANTED = 5
"""A slice with fewer rows, or fewer that the judge keeps or drops, gets no PR-AUC or F1: it would be noise."""
SLICE_METRICS = ("f1", "precision", "recall", "pr_auc", "spearman", "mae")
_KEPT_CLASS = ("f1", "precision", "recall", "pr_auc")


@dataclass(frozen=True)
class Columns:
    """What an annotations file says of its n texts besides the label.

    Attributes:
        facets: name -> n slice names.
        ratings: float64[n, 2], two independent ratings of each text, NaN where there is none; None: of no text.
        ratings_source: the columns they came from.
    """

    facets: dict[str, tuple[str, ...]]
    ratings: Float64 | None
    ratings_source: str | None


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


def read_columns(path: str | Path, labels: Annotations) -> Columns:
    """Read the columns of `labels`' file that slices and the judge's self-agreement need.

    A second rating is looked for in `expected_score_2`, `score_2`, a list column `scores` (its first two), and in rows
    that repeat a text.

    Raises:
        AnnotationsError: such a column holds something else than ratings between 0 and 5.
    """
    path = Path(path)
    table = read_labels(path).table
    place = {text: slot for slot, text in enumerate(labels.texts)}
    slots = [place.get(text, -1) for text in table.column("text").to_pylist()]
    facets = {}
    for name in FACETS:
        if name in table.column_names:
            values = [""] * len(labels)
            for slot, value in zip(slots, table.column(name).to_pylist(), strict=True):
                if slot >= 0 and value is not None:
                    values[slot] = str(value)
            if len(set(values)) > 1:
                facets[name] = tuple(value or "(none)" for value in values)
    facets["length"] = tuple(_length(len(text)) for text in labels.texts)
    ratings, source = _ratings(path, table, slots, labels)
    return Columns(facets, ratings, source)


def _length(characters: int) -> str:
    for low, high in zip((0, *LENGTHS), LENGTHS, strict=False):
        if characters < high:
            return f"{low:,} to {high - 1:,}" if low else f"under {high:,}"
    return f"{LENGTHS[-1]:,} or more"


def _ratings(path: Path, table: pa.Table, slots: Sequence[int], labels: Annotations) -> tuple[Float64 | None, str]:
    found = np.full((len(labels), 2), np.nan)
    names = table.column_names
    target = table.column(labels.target).to_pylist()
    second = ("scores",) if labels.target == "scores" else ("expected_score_2", "score_2", "scores")
    column = next((name for name in second if name in names), None)
    if column is None:
        source = "rows that repeat a text"
        seen = np.zeros(len(labels), dtype=np.int64)
        for slot, value in zip(slots, target, strict=True):
            if slot >= 0 and seen[slot] < 2:
                found[slot, seen[slot]] = value
                seen[slot] += 1
    else:
        source = f"column {column}" if column == "scores" else f"columns {labels.target} and {column}"
        for row, (slot, first, value) in enumerate(zip(slots, target, table.column(column).to_pylist(), strict=True)):
            if slot < 0 or value is None:
                continue
            pair = value[:2] if isinstance(value, list) else [first, value]
            if len(pair) == 2 and None not in pair:
                found[slot] = [_rating(path, column, row, rating) for rating in pair]
    both = np.isfinite(found).all(axis=1)
    found[~both] = np.nan
    return (found, source) if both.any() else (None, source)


def _rating(path: Path, column: str, row: int, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not LOWEST <= value <= HIGHEST:
        raise AnnotationsError(
            f"{path}: column {column!r} must hold ratings between {LOWEST} and {HIGHEST}; {value!r:.40} found in row "
            f"{row}. Remedy: mend or drop the column"
        )
    return float(value)


def measure_slices(
    predictions: Sequence[Scores],
    labels: Annotations,
    facets: dict[str, tuple[str, ...]],
    measure: Measure,
) -> tuple[Facet, ...]:
    """Metrics in every slice, and averaged within the slices of a facet.

    Args:
        predictions: float[n] each; metrics are averaged over them.
        labels: the judge's labels of n texts.
        facets: name -> n slice names.
        measure: the keep rule and the bootstrap, which draws groups of all slices together.
    """
    drawn = group_resamples(labels.groups, measure.resamples, measure.random_state)
    counts = np.array([np.ones(len(labels), dtype=np.int32), *(weights.astype(np.int32) for weights in drawn)])
    return tuple(
        _facet(name, values, predictions, labels, measure.min_score, counts) for name, values in facets.items()
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
