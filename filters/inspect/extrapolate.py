"""Estimates what other thresholds would keep, with intervals if the run is a sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.arrays import Float64, Int64
from filters.model.reliability import Reliability
from filters.scores.histogram import BINS, EDGES, SCORE_UNIT, WEIGHTS, Histogram, bins_of, nearest_edge
from filters.scores.threshold import Solution, Target

CONFIDENCE = 0.95
DRAWS = 400
FEWEST_FILES = 10
"""Fewest input files to resample; with fewer, documents are resampled instead."""
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
    target: Target,
    files: Sequence[Histogram],
    share: float,
    seen: Seen | None = None,
    solution: Solution | None = None,
    *,
    random_state: int = 0,
) -> SampleInterval:
    """Intervals of a threshold, and of what the one solved on the sample keeps of the whole.

    Documents of one input file resemble each other, so whole files are drawn again where there are at least
    `FEWEST_FILES` (bootstrap, widened as Student's t is for so few); else documents are, with the lengths that their
    bin has. The threshold is solved in each draw, and what it keeps there is compared with what it keeps of the sample,
    so that a budget that is met on the sample is no certainty on the whole. Where few documents are kept, or a few long
    ones hold most tokens, no interval is shorter than that of a Poisson count. Copies meet more copies in the whole:
    `_distinct` says between which bounds.

    Not covered: a whole whose files are unlike those of the sample, copies that are more frequent at some scores
    above the threshold than at others. Covered less often (70 to 90 % in simulations): thresholds for a budget of
    fewer than about 30 documents of the sample, and tokens where few pages hold most (lognormal lengths of sigma 1.5).

    Args:
        target: asked of the whole: tokens count there, a fraction is of there.
        files: histograms of the survivors of each input file of the sample.
        share: of the whole that the sample is, by whatever it was cut (files, bytes).
        seen: lengths and copies; without it all documents of a bin are as long as their mean, and nothing has copies.
        solution: of the target on the sample; without it the threshold lies within a bin, and no scores are equal.
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
    drawn = whole + wider * np.sqrt(1 - share) * (drawn - whole)
    stepped = solution is not None and _is_tied(solution, whole)
    middle = _kept(target, whole, share, stepped=stepped)
    threshold, *kept = middle
    if solution is not None:
        threshold, kept = solution.threshold, [float(solution.kept.documents), float(solution.kept.tokens)]
    ratio = Interval(1.0, 1.0, 1.0)
    if seen is not None and kept[0]:
        above = seen.scores >= np.float32(threshold)
        ratio = _distinct(kept[0], seen.times[above], share)
    errors = np.array([_error(target, part, whole, share, middle, stepped=stepped) for part in drawn])
    # Where copies take a part of a budget less, it reaches further down.
    reach = _kept(target, whole, share / ratio.low, stepped=stepped)[0] if target.rule == "tokens" else middle[0]
    sizes = kept[0], _effective(kept, threshold, whole, seen)
    units = 1.0, kept[1] / sizes[1] if sizes[1] else float(whole[1].sum() / max(whole[0].sum(), 1))
    documents, tokens = (
        _at_least_poisson(_symmetric(kept[k], errors[:, k + 1]), sizes[k], units[k], share) for k in (0, 1)
    )
    thresholds = _symmetric(threshold, errors[:, 0])
    return SampleInterval(
        share,
        "input files" if by_file else "documents",
        Interval(thresholds.value, max(thresholds.low - (middle[0] - reach), 0.0), thresholds.high),
        _scaled(documents, ratio, 1 / share),
        _scaled(tokens, ratio, 1 / share),
        ratio,
    )


def _symmetric(value: float, errors: Float64) -> Interval:
    """As far either way as the errors of the draws go: lengths are skewed, and one side is too short."""
    half = float(np.quantile(np.abs(errors), CONFIDENCE))
    return Interval(value, max(value - half, 0.0), value + half)


def _scaled(linear: Interval, ratio: Interval, factor: float) -> Interval:
    return Interval(*(factor * a * b for a, b in zip(vars(linear).values(), vars(ratio).values(), strict=True)))


def _at_least_poisson(found: Interval, count: float, unit: float, share: float) -> Interval:
    """No shorter than of a Poisson count times a unit, of which the sample holds a share."""
    from scipy.stats import chi2

    tail = (1 - CONFIDENCE) / 2
    # Garwood 1936; of a sum of weights with the count that has the same relative variance (Fay and Feuer 1997).
    ends = chi2.ppf(tail, 2 * count) / 2 if count else 0.0, chi2.ppf(1 - tail, 2 * count + 2) / 2
    low, high = (found.value + unit * float(np.sqrt(1 - share)) * (float(end) - count) for end in ends)
    return Interval(found.value, min(found.low, max(low, 0.0)), max(found.high, high))


def _effective(kept: Sequence[float], threshold: float, whole: Float64, seen: Seen | None) -> float:
    """How many documents of one length have a sum of tokens that varies as that of those kept."""
    if seen is None or not kept[1]:
        return kept[0]
    squares = float(seen.squares[int(bins_of(np.array([threshold], np.float32))[0]) :].sum())
    return float(min(kept[1] ** 2 / squares, kept[0])) if squares else kept[0]


def _is_tied(solution: Solution, whole: Float64) -> bool:
    """Whether the threshold was stopped by a group of equal scores that fills its bin, so that there is none within."""
    if solution.tie is None or solution.tie.weights.documents < 2:
        return False
    bin_ = int(bins_of(np.array([solution.tie.score], np.float32))[0])
    return bool(2 * solution.tie.weights.documents > whole[0, bin_])


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


def _error(
    target: Target, draw: Float64, whole: Float64, share: float, middle: tuple[float, float, float], *, stepped: bool
) -> tuple[float, float, float]:
    """How far the threshold of a draw is from the sample's, and how much fewer documents and tokens it keeps of the
    draw than of the sample."""
    threshold, *in_draw = _kept(target, draw, share, stepped=stepped)
    in_sample = _above(whole, threshold)
    return threshold - middle[0], in_sample[0] - in_draw[0], in_sample[1] - in_draw[1]


def _above(counts: Float64, threshold: float) -> tuple[float, float]:
    """(documents, tokens) at or above a threshold, of the bin it lies in a part."""
    place = float(np.clip((threshold - float(EDGES[0])) / float(EDGES[1] - EDGES[0]), 0, BINS))
    bin_ = min(int(place), BINS - 1)
    kept = counts[:, bin_ + 1 :].sum(axis=1) + (bin_ + 1 - place) * counts[:, bin_]
    return float(kept[0]), float(kept[1])


def _kept(target: Target, counts: Float64, share: float, *, stepped: bool) -> tuple[float, float, float]:
    """(threshold, documents, tokens) with the last bin kept in part, so that nothing jumps from draw to draw.

    If `stepped`, scores of a bin are equal, and it is kept whole or not at all.
    """
    if target.rule == "min_score":
        border = nearest_edge(target.value)
        return target.value, float(counts[0, border:].sum()), float(counts[1, border:].sum())
    weight = counts[WEIGHTS.index(target.weight)]
    budget = target.value * weight.sum() if target.rule == "fraction" else target.value * share
    from_top = np.append(np.cumsum(weight[::-1])[::-1], 0.0)
    if budget >= from_top[0]:
        return float(EDGES[0]), float(counts[0].sum()), float(counts[1].sum())
    bin_ = int(np.flatnonzero(from_top > budget)[-1])
    if stepped:
        above = counts[:, bin_ + 1 :].sum(axis=1)
        filled = bin_ + 1 + np.flatnonzero(counts[0, bin_ + 1 :])
        return float(EDGES[filled[0] if len(filled) else -1]), float(above[0]), float(above[1])
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
