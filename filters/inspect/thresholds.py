"""What other thresholds would keep, and how right they would be by the model's own evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from filters.arrays import Float64
from filters.model.reliability import Reliability
from filters.scores.histogram import EDGES, HIGH, SCORE_UNIT, Histogram, nearest_edge

CONFIDENCE = 0.95
DRAWS = 400
THRESHOLDS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
OF_PROBABILITIES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9)
_CENTRES: Float64 = (EDGES[:-1].astype(np.float64) + EDGES[1:]) / 2


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class WhatIf:
    """What a threshold keeps of the documents that survived deduplication.

    Attributes:
        min_score: the threshold, moved to the nearest bin border.
        document_share: of all survivors.
        token_share: of all survivors' tokens.
        mean_score: of those kept; None if nothing is.
        precision: expected share of those kept that the judge would keep; None if the model does not say.
        recall: expected share, of those the judge would keep, that is kept.
    """

    min_score: float
    documents: int
    tokens: int
    bytes: int
    document_share: float
    token_share: float
    mean_score: float | None
    precision: Interval | None
    recall: Interval | None


def what_if(
    histogram: Histogram, thresholds: Iterable[float], reliability: Reliability | None = None, *, random_state: int = 0
) -> list[WhatIf]:
    """A row for each threshold, ascending.

    Args:
        histogram: of the survivors.
        thresholds: min_scores.
        reliability: of the model; without it there is no precision and recall.
        random_state: of the intervals, which say how far the model's own evaluation is uncertain.
    """
    total = histogram.counts.sum(axis=1)
    documents = histogram.counts[0].astype(np.float64)
    means = np.divide(histogram.score_sums * SCORE_UNIT, documents, out=_CENTRES.copy(), where=documents > 0)
    shares = None
    if reliability is not None:
        shares = np.vstack([reliability.share(means), reliability.draws(means, DRAWS, random_state)])
    rows = []
    for border in sorted({nearest_edge(threshold) for threshold in thresholds}):
        kept = histogram.counts[:, border:].sum(axis=1)
        mean = histogram.mean_at_least(float(EDGES[border]))
        precision = recall = None
        if shares is not None and kept[0]:
            good = (shares[:, border:] * documents[border:]).sum(axis=1)
            precision = _interval(good / float(kept[0]))
            recall = _interval(good / np.maximum((shares * documents).sum(axis=1), 1e-12))
        rows.append(
            WhatIf(
                min_score=float(EDGES[border]),
                documents=int(kept[0]),
                tokens=int(kept[1]),
                bytes=int(kept[2]),
                document_share=float(kept[0] / max(total[0], 1)),
                token_share=float(kept[1] / max(total[1], 1)),
                mean_score=None if np.isnan(mean) else mean,
                precision=precision,
                recall=recall,
            )
        )
    return rows


def _interval(values: Float64) -> Interval:
    """The first value is the estimate, the others are draws."""
    low, high = np.quantile(values[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(values[0]), float(min(low, values[0])), float(max(high, values[0])))


def scale(histogram: Histogram, min_score: float) -> float:
    """Upper end of the scale to show: 1 where all scores, and the threshold, are probabilities."""
    return histogram.top if min_score <= histogram.top else HIGH


def thresholds(histogram: Histogram, min_score: float) -> tuple[float, ...]:
    """Thresholds worth comparing: up to the first that keeps nothing."""
    every = OF_PROBABILITIES if scale(histogram, min_score) == 1 else THRESHOLDS
    empty = [place for place, threshold in enumerate(every) if not histogram.at_least(threshold)]
    return every[: empty[0] + 1] if empty else every
