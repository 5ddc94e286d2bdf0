"""What other thresholds would keep, how good it would be, and how sure that is when the run is a sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.inspect.histogram import BINS, EDGES, SCORE_UNIT, WEIGHTS, Histogram, nearest_edge
from filters.inspect.solver import Target
from filters.model.reliability import Reliability

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

CONFIDENCE = 0.95
DRAWS = 400
FEWEST_FILES = 10
"""With fewer input files their differences say too little; documents are resampled instead."""
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
        documents: kept.
        tokens: of these.
        bytes: of their text.
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

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


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


@dataclass(frozen=True)
class SampleInterval:
    """What a threshold solved on a sample might be, and keep, on the whole.

    Attributes:
        share: of the whole that the sample is.
        resampled: "input files" or "documents", whatever was drawn again.
        threshold: within a bin's width.
        documents: kept of the whole.
        tokens: kept of the whole.
    """

    share: float
    resampled: str
    threshold: Interval
    documents: Interval
    tokens: Interval

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def sample_interval(
    target: Target, files: Sequence[Histogram], share: float, *, random_state: int = 0
) -> SampleInterval:
    """Bootstrap intervals of a threshold and of what it keeps.

    Documents of one input file resemble each other, so whole files are drawn again (each Poisson(1) times, Hanley and
    MacGibbon 2006) where there are at least `FEWEST_FILES`; else documents are, and the interval is too narrow if the
    whole has files unlike these.

    Args:
        target: asked of the whole: tokens count there, a fraction is of there.
        files: histograms of the survivors of each input file of the sample.
        share: of the whole that the sample is, by whatever it was cut (files, bytes).
        random_state: of the bootstrap.
    """
    counts = np.stack([file.counts[:2] for file in files]) if files else np.zeros((1, 2, BINS), np.int64)
    whole = counts.sum(axis=0).astype(np.float64)
    generator = np.random.default_rng(random_state)
    if len(counts) >= FEWEST_FILES:
        weights = generator.poisson(1, size=(DRAWS, len(counts)))
        drawn = np.einsum("df,fwb->dwb", weights.astype(np.float64), counts.astype(np.float64))
    else:
        documents = generator.poisson(whole[0], size=(DRAWS, BINS)).astype(np.float64)
        per_document = np.divide(whole[1], whole[0], out=np.zeros(BINS), where=whole[0] > 0)
        drawn = np.stack([documents, documents * per_document], axis=1)
    found = np.array([_kept(target, part, share) for part in [whole, *drawn]])
    return SampleInterval(
        share,
        "input files" if len(counts) >= FEWEST_FILES else "documents",
        _interval(found[:, 0]),
        _interval(found[:, 1] / share),
        _interval(found[:, 2] / share),
    )


def _kept(target: Target, counts: Float64, share: float) -> tuple[float, float, float]:
    """(threshold, documents, tokens) with the last bin kept in part, so that nothing jumps from draw to draw."""
    if target.rule == "min_score":
        border = nearest_edge(target.value)
        return target.value, float(counts[0, border:].sum()), float(counts[1, border:].sum())
    weight = counts[WEIGHTS.index(target.weight)]
    budget = target.value * weight.sum() if target.rule == "fraction" else target.value * share
    from_top = np.append(np.cumsum(weight[::-1])[::-1], 0.0)
    if budget >= from_top[0]:
        return float(EDGES[0]), float(counts[0].sum()), float(counts[1].sum())
    bin_ = int(np.flatnonzero(from_top > budget)[-1])
    part = (budget - from_top[bin_ + 1]) / weight[bin_]
    above = counts[:, bin_ + 1 :].sum(axis=1) + part * counts[:, bin_]
    return float(EDGES[bin_ + 1] - part * (EDGES[bin_ + 1] - EDGES[bin_])), float(above[0]), float(above[1])
