"""Agreement of scores with a judge's labels, and of judges with themselves and each other.

Intervals are percentile bootstraps over groups of documents (host and near copies), all from the same resamples.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from filters.arrays import Bool, Float64, Int64
from filters.statistics.resampling import Bootstrap, Estimate, connected, estimate, ratio

Scores = npt.NDArray[np.floating]

LOWEST, HIGHEST = 0, 5
"""Ends of the judge's scale."""
RATINGS = 6
CALIBRATION_BIN = 0.25
METRICS = {
    "precision": "precision of the kept class at the keep rule",
    "recall": "recall of the kept class at the keep rule",
    "f1": "F1 of the kept class at the keep rule",
    "best_f1": "F1 of the kept class at its best threshold",
    "best_threshold": "threshold of that F1",
    "pr_auc": "average precision of the kept class",
    "roc_auc": "area under the ROC curve",
    "spearman": "rank correlation with the judge's expected score",
    "qwk": "quadratic weighted kappa of rounded scores",
    "mae": "mean absolute error against the judge's expected score",
    "calibration_error": "expected calibration error: mean distance of score and judge's mean over bins of the score",
    "kept_share": "share kept at the keep rule",
    "judge_kept_share": "share the judge would keep",
}


def correlation_bound(reliability: Estimate) -> Estimate:
    """The highest correlation with a rating that anything can reach, from the correlation of two such ratings.

    Its square root: what predicts the rater's mean without error still misses the noise of the one rating it is held
    against, and no longer that of a second one (Spearman 1904, on attenuation).
    """
    value, low, high = (
        None if each is None else max(each, 0.0) ** 0.5
        for each in (reliability.value, reliability.low, reliability.high)
    )
    return Estimate(value=value, low=low, high=high)


def score_bins(scores: Scores) -> Int64:
    """int64[n]: bin of each score, of width `CALIBRATION_BIN` from 0 on; what lies beyond 0 to 5 goes into the ends."""
    last = round(HIGHEST / CALIBRATION_BIN) - 1
    return np.clip(np.floor(np.asarray(scores, np.float64) / CALIBRATION_BIN), LOWEST, last).astype(np.int64)


class LabelMetrics:
    """Scores against labels, sorted once, so that metrics under many weightings are cheap.

    Args:
        scores: float[n], calibrated scores.
        expected: float64[n], the judge's expected scores.
        judged: int64[n], the judge's whole-number scores.
        min_score: the keep rule; scores are compared as float32, labels as they are.
        wanted: the judge's side of the keep rule where it differs from `min_score`.
    """

    def __init__(
        self, scores: Scores, expected: Float64, judged: Int64, min_score: float, wanted: float | None = None
    ) -> None:
        values = np.asarray(scores, dtype=np.float32).astype(np.float64)
        self._excess = values - expected
        self._error = np.abs(self._excess)
        self._bin = score_bins(values)
        self._kept = np.asarray(scores, dtype=np.float32) >= np.float32(min_score)
        self._wanted = expected >= (min_score if wanted is None else wanted)
        self._cell = np.clip(judged, 0, RATINGS - 1) * RATINGS + np.clip(np.rint(values), 0, RATINGS - 1).astype(
            np.int64
        )
        self._order = np.argsort(-values, kind="stable")
        ordered = values[self._order]
        self._ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
        self._thresholds = ordered[self._ends]
        self._ranks = (np.unique(values, return_inverse=True)[1], np.unique(expected, return_inverse=True)[1])

    @property
    def kept(self) -> int:
        """Number of rows kept."""
        return int(self._kept.sum())

    def metrics(self, weights: Float64) -> dict[str, float]:
        """Every metric of `METRICS`, in its order; NaN where undefined.

        Args:
            weights: float64[n], not negative; a row of weight 2 counts as two rows.
        """
        total = weights.sum()
        hit = weights[self._kept & self._wanted].sum()
        kept, wanted = weights[self._kept].sum(), weights[self._wanted].sum()
        best, threshold, pr_auc, roc_auc = self._curves(weights)
        seen: Float64 = np.bincount(self._cell, weights, RATINGS**2).reshape(1, RATINGS, RATINGS).astype(np.float64)
        return {
            "precision": hit / kept if kept else 0.0,
            "recall": hit / wanted if wanted else np.nan,
            "f1": 2 * hit / (kept + wanted) if wanted else np.nan,
            "best_f1": best,
            "best_threshold": threshold,
            "pr_auc": pr_auc,
            "roc_auc": roc_auc,
            "spearman": rank_correlation(*self._ranks, weights),
            "qwk": float(kappas(seen)[0]),
            "mae": float(weights @ self._error / total),
            "calibration_error": float(np.abs(np.bincount(self._bin, weights * self._excess)).sum() / total),
            "kept_share": kept / total,
            "judge_kept_share": wanted / total,
        }

    def _curves(self, weights: Float64) -> tuple[float, float, float, float]:
        """Best F1, its threshold, average precision and ROC-AUC, over the distinct scores from high to low."""
        ordered = weights[self._order]
        kept = np.cumsum(ordered)[self._ends]
        hit = np.cumsum(ordered * self._wanted[self._order])[self._ends]
        wanted = hit[-1]
        dropped = kept[-1] - wanted
        if wanted <= 0:
            return np.nan, np.nan, np.nan, np.nan
        f1 = 2 * hit / (kept + wanted)
        best = int(np.argmax(f1))
        precision = np.divide(hit, kept, out=np.zeros_like(hit), where=kept > 0)
        average = float(np.diff(hit, prepend=0.0) @ precision / wanted)
        false = np.r_[0.0, kept - hit]
        roc = float(np.trapezoid(np.r_[0.0, hit], false) / (wanted * dropped)) if dropped > 0 else np.nan
        return float(f1[best]), float(self._thresholds[best]), average, roc


def rank_correlation(first: Int64, second: Int64, weights: Float64) -> float:
    """Pearson correlation of mid-ranks, a row of weight w standing for w equal rows; NaN where undefined.

    Args:
        first: int64[n], rank of each row among the distinct values (`np.unique(values, return_inverse=True)[1]`).
        second: the same of the other column.
        weights: float64[n], not negative.
    """
    total = weights.sum()
    if total <= 0:
        return float("nan")
    ranks = []
    for place in (first, second):
        mass = np.bincount(place, weights)
        rank = (np.cumsum(mass) - mass / 2)[place]
        ranks.append(rank - weights @ rank / total)
    a, b = ranks
    scale = np.sqrt((weights @ (a * a)) * (weights @ (b * b)))
    return float(weights @ (a * b) / scale) if scale > 0 else float("nan")


def kappas(seen: Float64) -> Float64:
    """float64[b]: Cohen's kappa with quadratic weights (Cohen 1968) of contingency tables float64[b, k, k].

    NaN where it is undefined.
    """
    size = seen.shape[1]
    distance = np.subtract.outer(np.arange(size), np.arange(size)) ** 2.0
    observed = np.einsum("bij,ij->b", seen, distance)
    return 1 - ratio(observed * seen.sum((1, 2)), np.einsum("bi,bj,ij->b", seen.sum(2), seen.sum(1), distance))


COEFFICIENTS = {
    "qwk": "quadratic weighted kappa of whole-number scores (Cohen 1968)",
    "alpha": "Krippendorff's alpha of expected scores, interval metric",
    "spearman": "rank correlation of expected scores",
    "f1": "F1 of the kept class: 2 both / (one + other)",
}


@dataclass(frozen=True)
class Panel:
    """Ratings of n documents in r columns, one for each repeat of each judge; NaN where there is none.

    Attributes:
        judges: their names.
        judge: int64[r], whose column it is, as an index into `judges`.
        score: float64[n, r], whole numbers on the scale.
        expected: float64[n, r].
        low: lowest score of the scale.
        high: highest score of the scale.
        cut: kept is what is at least this.
        groups: int64[n]; documents of a group are not independent.
    """

    judges: tuple[str, ...]
    judge: Int64
    score: Float64
    expected: Float64
    low: int
    high: int
    cut: float
    groups: Int64

    def __len__(self) -> int:
        return len(self.groups)

    @cached_property
    def means(self) -> Float64:
        """float64[n, judges]: each judge's mean expected score of each document."""
        return np.stack([_row_means(self.expected[:, self.judge == j]) for j in range(len(self.judges))], axis=1)

    def select(self, rows: Bool) -> Panel:
        """The panel of some of the documents (bool[n])."""
        return replace(self, score=self.score[rows], expected=self.expected[rows], groups=self.groups[rows])

    def rounded(self, means: Float64) -> Float64:
        """Whole-number scores of mean scores."""
        whole: Float64 = np.clip(np.rint(means), self.low, self.high)
        return whole


def _row_means(values: Float64) -> Float64:
    """float64[n]: mean of what is there of each row; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(1).astype(np.float64)
    total: Float64 = np.where(known, values, 0).sum(1)
    return ratio(total, count)


def between(panel: Panel, first: int, second: int, bootstrap: Bootstrap) -> tuple[int, dict[str, Estimate]]:
    """Agreement of two judges over the documents both rated: (documents, coefficient -> estimate).

    A judge with several answers counts with their mean, which is what is exported.
    """
    pair = panel.means[:, [first, second]]
    rows = np.flatnonzero(np.isfinite(pair).all(1))
    whole = panel.rounded(pair[rows])
    found = _paired(panel, rows, whole, pair[rows], np.ones(len(rows)), bootstrap)
    return len(rows), found | _alpha(rows, pair[rows], bootstrap)


def within(panel: Panel, judge: int, bootstrap: Bootstrap) -> tuple[int, dict[str, Estimate]]:
    """Agreement of a judge's repeats: (documents with at least two, coefficient -> estimate).

    Every pair of repeats of a document counts in both orders, and all pairs of a document weigh as much as one.
    """
    columns = np.flatnonzero(panel.judge == judge)
    whole, expected = panel.score[:, columns], panel.expected[:, columns]
    known = np.isfinite(expected)
    several = known.sum(1) >= 2
    rows, firsts, seconds = [], [], []
    for a, b in itertools.permutations(range(len(columns)), 2):
        both = np.flatnonzero(known[:, a] & known[:, b])
        rows.append(both)
        firsts.append(np.full(len(both), a))
        seconds.append(np.full(len(both), b))
    if not several.any():
        return 0, {name: Estimate(value=None, low=None, high=None) for name in COEFFICIENTS}
    row, first, second = (np.concatenate(part).astype(np.int64) for part in (rows, firsts, seconds))
    weight = 1.0 / np.bincount(row, minlength=len(panel))[row]
    pairs = [np.stack([values[row, first], values[row, second]], axis=1) for values in (whole, expected)]
    found = _paired(panel, row, pairs[0], pairs[1], weight, bootstrap)
    kept = np.flatnonzero(several)
    return len(kept), found | _alpha(kept, expected[kept], bootstrap)


def among(panel: Panel, bootstrap: Bootstrap) -> tuple[int, dict[str, Estimate]]:
    """Agreement of all judges, all pairs of them pooled: (documents with at least two, coefficient -> estimate)."""
    means = panel.means
    columns = np.zeros(len(panel.judges), np.int64)
    pooled = replace(panel, judges=("all",), judge=columns, score=panel.rounded(means), expected=means)
    return within(pooled, 0, bootstrap)


def _paired(
    panel: Panel, rows: Int64, whole: Float64, expected: Float64, weight: Float64, bootstrap: Bootstrap
) -> dict[str, Estimate]:
    """qwk, spearman and f1 of pairs of ratings (float64[m, 2]) of documents `rows`."""
    size = panel.high - panel.low + 1
    cells = ((whole - panel.low) @ [size, 1]).astype(np.int64)
    one_hot = np.zeros((len(rows), size**2))
    one_hot[np.arange(len(rows)), cells] = weight
    seen = bootstrap.sums(one_hot, rows).reshape(-1, size, size)
    kept = expected >= panel.cut
    decisions = np.stack([kept.all(1) * 2.0, kept.sum(1).astype(np.float64)], axis=1) * weight[:, None]
    sums = bootstrap.sums(decisions, rows)
    ranks = [np.unique(column, return_inverse=True)[1] for column in expected.T]
    spearman = [rank_correlation(ranks[0], ranks[1], counts * weight) for counts in bootstrap.weights(rows)]
    return {
        "qwk": estimate(kappas(seen)),
        "spearman": estimate(np.array(spearman)),
        "f1": estimate(ratio(sums[:, 0], sums[:, 1])),
    }


def _alpha(rows: Int64, values: Float64, bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Krippendorff's alpha (2004) by moments: disagreement within documents over disagreement among all ratings.

    Args:
        rows: int64[m], numbers of the documents.
        values: float64[m, raters], NaN for missing.
        bootstrap: over the documents.
    """
    known = np.isfinite(values)
    count = known.sum(1).astype(np.float64)
    centred = np.where(known, values - np.nanmean(values) if known.any() else 0.0, 0.0)
    first, second = centred.sum(1), (centred**2).sum(1)
    inside = 2 * (count * second - first**2) / np.maximum(count - 1, 1)
    paired = count >= 2  # a rating nothing is compared with does not count
    parts = np.stack([count, first, second, inside], axis=1) * paired[:, None]
    total, sum1, sum2, disagreement = bootstrap.sums(parts, rows).T
    expected = 2 * (total * sum2 - sum1**2) / np.maximum(total - 1, 1)
    return {"alpha": estimate(1 - ratio(disagreement, expected))}


@dataclass(frozen=True)
class Consensus:
    """What the judges say together: rating = page + severity of the judge + noise.

    Least squares over each judge's mean ratings, severities adding up to 0; the score of a page is the mean of its
    ratings less their judges' severities. The noise has one variance, estimated from the residuals; with one judge,
    from the repeats; without either it is unknown.

    Attributes:
        score: float64[n].
        error: float64[n], standard error of `score`; NaN where it cannot be known.
        severity: float64[judges]; a strict judge's is negative; NaN of one that shares no page with another.
        noise: standard deviation of one judge's mean rating about page and severity; NaN if unknown.
        source: what `noise` was estimated from.
    """

    score: Float64
    error: Float64
    severity: Float64
    noise: float
    source: str


def consensus(panel: Panel) -> Consensus:
    """Severity-corrected means of a panel's judges."""
    values = panel.means
    known = np.isfinite(values)
    severity = _severities(known, values, np.ones(len(panel)))
    raters = known.sum(1)
    corrected = values - np.nan_to_num(severity)
    score = _row_means(corrected)
    freedom = int(np.maximum(raters - 1, 0).sum()) - (len(panel.judges) - len(set(linked(panel).tolist())))
    if len(panel.judges) > 1 and freedom > 0:
        residual = np.where(known, corrected - score[:, None], 0)
        # a page rated once has no residual and adds nothing to either sum
        noise, source = float(np.sqrt((residual**2).sum() / freedom)), "differences between judges"
        error = noise / np.sqrt(np.maximum(raters, 1))
    else:
        repeats = np.isfinite(panel.expected).sum(1)
        spread = np.where(np.isfinite(panel.expected), panel.expected - _row_means(panel.expected)[:, None], 0)
        degrees = int(np.maximum(repeats - 1, 0).sum())
        noise = float(np.sqrt((spread**2).sum() / degrees)) if degrees else float("nan")
        source = "differences between repeats" if degrees else "nothing: one judge, one answer a page"
        error = noise / np.sqrt(np.maximum(repeats, 1))
    return Consensus(score, np.where(raters > 0, error, np.nan), severity, noise, source)


def linked(panel: Panel) -> Int64:
    """int64[judges]: group of each judge; judges that rated a page in common, or are linked by others, share one."""
    known = np.isfinite(panel.means).astype(np.int64)
    shared = np.argwhere(np.triu(known.T @ known, 1))
    return connected(len(panel.judges), [(int(a), int(b)) for a, b in shared])


def unlinked(panel: Panel) -> list[str]:
    """What must be known of judges whose severities cannot be compared, for want of pages that both rated."""
    group = linked(panel)
    names = [[panel.judges[j] for j in np.flatnonzero(group == g)] for g in range(int(group.max(initial=-1)) + 1)]
    if len(names) < 2:
        return []
    notes = [
        f"{judge} rated no page that another judge rated: its severity is unknown, and its scores are not corrected"
        for (judge,) in (part for part in names if len(part) == 1)
    ]
    several = [" and ".join(part) for part in names if len(part) > 1]
    if len(several) > 1:
        notes.append(f"severities compare judges of one group only, for they share no page: {'; '.join(several)}")
    return notes


def severities(panel: Panel, bootstrap: Bootstrap) -> list[Estimate]:
    """Each judge's severity with its interval."""
    known = np.isfinite(panel.means)
    rows = np.arange(len(panel))
    drawn = np.array([_severities(known, panel.means, weights) for weights in bootstrap.weights(rows)])
    return [estimate(column) for column in drawn.T]


def _severities(known: Bool, values: Float64, weights: Float64) -> Float64:
    """float64[judges] by the normal equations, page effects eliminated; NaN of one that shares no page with another."""
    mask = known.astype(np.float64)
    raters = np.maximum(mask.sum(1), 1)
    filled = np.where(known, values, 0)
    page = filled.sum(1) / raters
    matrix = np.diag(weights @ mask) - (mask * (weights / raters)[:, None]).T @ mask
    right = weights @ (mask * (filled - page[:, None]))
    found: Float64 = np.linalg.lstsq(matrix, right, rcond=None)[0]
    # Of the solutions the shortest is found, in which the severities of judges that share pages add up to 0.
    alone = (matrix - np.diag(np.diag(matrix)) == 0).all(axis=0) & (len(matrix) > 1)
    centred: Float64 = np.where(alone, np.nan, found)
    return centred
