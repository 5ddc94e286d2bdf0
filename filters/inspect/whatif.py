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
_MOST_MET = 8
"""Clusters met so often, or more often, are counted together."""
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
class Seen:
    """What a sample holds besides its histograms that says how sure it is of the whole.

    Attributes:
        squares: float64[BINS]; sum of the squared tokens of the survivors in each bin.
        scores: float32[k], score of the survivor of each cluster of copies.
        times: int64[k], documents of the cluster in the sample (where whole files were drawn: files that have one).
    """

    squares: Float64
    scores: npt.NDArray[np.float32]
    times: Int64


@dataclass(frozen=True)
class SampleInterval:
    """What a threshold solved on a sample might be, and keep, on the whole.

    Attributes:
        share: of the whole that the sample is.
        resampled: "input files" or "documents", whatever was drawn again.
        threshold: that the target has on the whole, within a bin's width.
        documents: of the whole, that the threshold solved on the sample keeps.
        tokens: of these.
        distinct: of the documents that would be kept if the sample had no more copies in the rest of the whole than in
            itself, the share that is kept; the interval has every number of copies that the sample does not rule out.
    """

    share: float
    resampled: str
    threshold: Interval
    documents: Interval
    tokens: Interval
    distinct: Interval

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def sample_interval(
    target: Target, files: Sequence[Histogram], share: float, seen: Seen | None = None, *, random_state: int = 0
) -> SampleInterval:
    """Intervals of a threshold, and of what the one solved on the sample keeps of the whole.

    Documents of one input file resemble each other, so whole files are drawn again where there are at least
    `FEWEST_FILES` (bootstrap, widened as Student's t is for so few); else documents are, with the lengths that their
    bin has. The threshold is solved in each draw, and what it keeps there is compared with what it keeps of the sample,
    so that a budget that is met on the sample is no certainty on the whole. Copies meet more copies in the whole:
    `_distinct` says between which bounds.

    Not covered: a whole whose files are unlike those of the sample, and copies that are more frequent at some scores
    above the threshold than at others.

    Args:
        target: asked of the whole: tokens count there, a fraction is of there.
        files: histograms of the survivors of each input file of the sample.
        share: of the whole that the sample is, by whatever it was cut (files, bytes).
        seen: lengths and copies; without it all documents of a bin are as long as their mean, and nothing has copies.
        random_state: of the bootstrap.
    """
    counts = np.stack([file.counts[:2] for file in files]).astype(np.float64) if files else np.zeros((1, 2, BINS))
    whole = counts.sum(axis=0)
    generator = np.random.default_rng(random_state)
    by_file = len(counts) >= FEWEST_FILES
    if by_file:
        weights = generator.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=DRAWS)
        drawn = np.einsum("df,fwb->dwb", weights.astype(np.float64), counts)
        wider = _student(len(counts) - 1) * np.sqrt(len(counts) / (len(counts) - 1))
    else:
        drawn = _documents_again(whole, seen, generator)
        wider = 1.0
    wider *= np.sqrt(1 - share)
    threshold, *kept = _kept(target, whole, share)
    ratio = Interval(1.0, 1.0, 1.0)
    if seen is not None and kept[0]:
        above = seen.scores >= np.float32(threshold)
        ratio = _distinct(kept[0], seen.times[above], share)
    found = np.array([[threshold, *kept], *(_error(target, part, whole, share) for part in drawn)])
    found[1:] = found[0] + wider * (found[1:] - found[0])
    # Where copies take a part of a budget less, it reaches further down.
    low = threshold if target.rule != "tokens" else _kept(target, whole, share / ratio.low)[0]
    thresholds, documents, tokens = (_symmetric(found[:, 0]), *(_symmetric(found[:, k] / share) for k in (1, 2)))
    return SampleInterval(
        share,
        "input files" if by_file else "documents",
        Interval(thresholds.value, thresholds.low - (threshold - low), thresholds.high),
        _scaled(documents, ratio),
        _scaled(tokens, ratio),
        ratio,
    )


def _symmetric(values: Float64) -> Interval:
    """The first value and how far the draws are from it either way: lengths are skewed, and one side is too short."""
    half = float(np.quantile(np.abs(values[1:] - values[0]), CONFIDENCE))
    return Interval(float(values[0]), max(float(values[0]) - half, 0.0), float(values[0]) + half)


def _scaled(linear: Interval, ratio: Interval) -> Interval:
    return Interval(linear.value * ratio.value, linear.low * ratio.low, linear.high * ratio.high)


def _student(freedom: int) -> float:
    """How much wider than the normal distribution's the interval of so many degrees of freedom is."""
    from scipy.stats import norm, t

    upper = (1 + CONFIDENCE) / 2
    return float(t.ppf(upper, freedom) / norm.ppf(upper))


def _documents_again(whole: Float64, seen: Seen | None, generator: np.random.Generator) -> Float64:
    """float64[DRAWS, 2, BINS]: documents drawn again, each Poisson(1) times (Hanley and MacGibbon 2006), and tokens."""
    documents = generator.poisson(whole[0], size=(DRAWS, BINS)).astype(np.float64)
    mean = np.divide(whole[1], whole[0], out=np.zeros(BINS), where=whole[0] > 0)
    tokens = documents * mean
    if seen is not None:
        square = np.divide(seen.squares, whole[0], out=np.zeros(BINS), where=whole[0] > 0)
        spread = np.sqrt(np.maximum(square - mean**2, 0) * documents)
        tokens = np.maximum(tokens + spread * generator.standard_normal(documents.shape), 0)
    return np.stack([documents, tokens], axis=1)


def _error(target: Target, draw: Float64, whole: Float64, share: float) -> tuple[float, float, float]:
    """(threshold of a draw, documents, tokens that the sample's threshold keeps of the whole if the draw is to the
    sample as the sample is to the whole)."""
    threshold, *in_draw = _kept(target, draw, share)
    in_sample = _above(whole, threshold)
    first = _kept(target, whole, share)
    return threshold, first[1] - (in_draw[0] - in_sample[0]), first[2] - (in_draw[1] - in_sample[1])


def _above(counts: Float64, threshold: float) -> tuple[float, float]:
    """(documents, tokens) at or above a threshold, of the bin it lies in a part."""
    place = float(np.clip((threshold - float(EDGES[0])) / float(EDGES[1] - EDGES[0]), 0, BINS))
    bin_ = min(int(place), BINS - 1)
    kept = counts[:, bin_ + 1 :].sum(axis=1) + (bin_ + 1 - place) * counts[:, bin_]
    return float(kept[0]), float(kept[1])


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


def _distinct(survivors: float, times: Int64, share: float) -> Interval:
    """Different documents in the whole, as a share of survivors / share, which counts every copy elsewhere as another.

    How often clusters of each size are met in a sample is a mixture of binomial distributions. The bounds are the
    fewest clusters of any mixture that agrees with what was met, at 95 % (the linear programme of Efron and Thisted
    1976, Valiant and Valiant 2017), and 1. The value is the geometric mean of 1 and the fewest at one standard error.

    Args:
        survivors: documents of the sample, one of each cluster.
        times: int64[k], how often each cluster that was met more than once was met.
        share: of the whole that the sample is.
    """
    if share >= 1 or survivors < 1:
        return Interval(1.0, 1.0, 1.0)
    low = _fewest(survivors, times, share, 1 - CONFIDENCE)
    if not (times > 1).any():
        return Interval(1.0, low, 1.0)
    return Interval(float(np.sqrt(_fewest(survivors, times, share, 0.32))), low, 1.0)


def _fewest(survivors: float, times: Int64, share: float, error: float) -> float:
    """The lower bound of `_distinct`, wrong with probability `error`."""
    from scipy.optimize import linprog
    from scipy.stats import binom, chi2

    met = np.bincount(np.minimum(times[times > 1], _MOST_MET), minlength=_MOST_MET + 1).astype(np.float64)
    met[1] = max(survivors - met.sum(), 0)
    often = times[times >= _MOST_MET]
    largest = max(float(often.max(initial=2)), _MOST_MET) / share * 2
    sizes = np.unique(np.r_[np.arange(1, 20), np.geomspace(20, largest, 60)].astype(np.int64))
    chances = np.array([binom.pmf(number, sizes, share) for number in range(1, _MOST_MET)])
    chances = np.vstack([chances, binom.sf(_MOST_MET - 1, sizes, share)])
    each = error / 4
    least = np.where(met[1:] > 0, chi2.ppf(each, 2 * met[1:]) / 2, 0)
    most = chi2.ppf(1 - each, 2 * met[1:] + 2) / 2
    # In units of what was met, or the numbers are too far apart for the solver.
    found = linprog(
        np.ones(len(sizes)),
        A_ub=np.vstack([chances, -chances]) / share,
        b_ub=np.r_[most, -np.nan_to_num(least)] / survivors,
        bounds=(0, None),
    )
    return float(np.clip(found.fun, 0, 1)) if found.success else 0.0
