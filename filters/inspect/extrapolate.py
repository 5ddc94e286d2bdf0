"""From a sample to the whole: how sure a threshold is that was solved on a sample, and what it keeps there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.arrays import Float64, Int64
from filters.inspect.thresholds import CONFIDENCE, DRAWS, Interval
from filters.scores.finished_run import Run
from filters.scores.histogram import BINS, EDGES, WEIGHTS, Histogram, bins_of, nearest_edge
from filters.scores.summary import DUPLICATES, SURVIVOR_COLUMNS, coded, survivors
from filters.scores.threshold import Solution, Target

FEWEST_FILES = 10
"""Fewest input files to resample; with fewer, documents are resampled instead."""
_MOST_MET = 8
"""Clusters met so often, or more often, are counted together."""


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


def seen_in(run: Run, *, by_file: bool) -> Seen:
    """Lengths and copies of a run that is a sample.

    Args:
        run: the run.
        by_file: count the files that have a cluster instead of its documents.

    Raises:
        RunError: the side files are missing or damaged.
    """
    squares = np.zeros(BINS)
    copies: list[Int64] = [np.empty((0, 2), np.int64)]
    alone: list[Int64] = [np.empty((0, 2), np.int64)]
    levels: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)]
    sources: dict[str, int] = {}
    for table in run.tables([*SURVIVOR_COLUMNS, "near_cluster", "source"]):
        found = survivors(table)
        squares += np.bincount(bins_of(found.scores), found.tokens.astype(np.float64) ** 2, BINS)
        names, places = coded(table["source"].combine_chunks())
        numbers = np.array([sources.setdefault(name, len(sources)) for name in names.to_pylist()], np.int64)
        root = table["near_cluster"].fill_null(-1).to_numpy().astype(np.int64)
        members = np.stack([root, numbers[places] if len(numbers) else places.astype(np.int64)], axis=1)
        removed = pc.is_in(table["reason"].cast(pa.string()), value_set=pa.array(DUPLICATES)).to_numpy()
        copies.append(members[removed])
        alone.append(members[found.rows])
        levels.append(found.scores)
    stay, score = np.concatenate(alone), np.concatenate(levels)
    gone = np.concatenate(copies)
    gone = gone[gone[:, 0] >= 0]
    several = np.isin(stay[:, 0], gone[:, 0])
    stay, score = stay[several], score[several]
    every = np.concatenate([stay, gone[np.isin(gone[:, 0], stay[:, 0])]])
    if by_file:
        every = np.unique(every, axis=0)
    roots, times = np.unique(every[:, 0], return_counts=True)
    return Seen(squares, score, times[np.searchsorted(roots, stay[:, 0])].astype(np.int64))
