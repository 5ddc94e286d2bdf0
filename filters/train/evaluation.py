"""How well scores agree with the judge, and how sure that is: the kept class first, with bootstrap intervals.

The kept class is what a filter is for: always its precision, recall and F1, never an average over keep and drop.
Intervals are percentile bootstraps over groups (host and near copies), because pages of one host are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from filters.model import QualityModel
from filters.train.annotations import Annotations, read_annotations

if TYPE_CHECKING:
    from rich.table import Table

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Scores = npt.NDArray[np.floating]

RATINGS = 6
CONFIDENCE = 0.95
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
    "kept_share": "share kept at the keep rule",
    "judge_kept_share": "share the judge would keep",
}

_SHORT = {
    "precision": "precision of the kept",
    "recall": "recall of the kept",
    "f1": "F1 of the kept",
    "best_f1": "best F1 of the kept",
    "best_threshold": "at threshold",
    "pr_auc": "PR-AUC of the kept",
    "roc_auc": "ROC-AUC",
    "spearman": "Spearman",
    "qwk": "QWK",
    "mae": "mean absolute error",
    "kept_share": "share kept",
    "judge_kept_share": "share the judge keeps",
}


class Estimate(BaseModel):
    """A value with the ends of its bootstrap interval; None where it is undefined (no kept page in the sample)."""

    model_config = ConfigDict(frozen=True)

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return "undefined"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Evaluation(BaseModel):
    """Agreement of one model with one annotations file.

    Attributes:
        model: name of the model.
        digest: of the model folder.
        annotations: name of the annotations file.
        annotations_sha256: of the file as stored.
        rows: labelled texts measured on.
        groups: independent groups of them.
        min_score: the keep rule, for scores and labels.
        confidence: of the intervals.
        resamples: of the bootstrap.
        random_state: of the bootstrap.
        sample: metric -> estimate, every row counting once. The names are the keys of `METRICS`.
        natural: the same for the natural mix of the crawl; None where the file has no `natural_weight`.
        notes: what a reader of the numbers must know.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    digest: str
    annotations: str
    annotations_sha256: str
    rows: int
    groups: int
    min_score: float
    confidence: float
    resamples: int
    random_state: int
    sample: dict[str, Estimate]
    natural: dict[str, Estimate] | None
    notes: tuple[str, ...]


def evaluate(
    model: QualityModel, annotations: str | Path, *, resamples: int = 1000, random_state: int = 0
) -> Evaluation:
    """Score an annotations file and compare with its labels, at the model's own keep rule.

    Raises:
        AnnotationsError: the file cannot be evaluated against.
    """
    labels = read_annotations(annotations, model.keep.min_score)
    notes = list(labels.notes)
    training = model.metadata.training
    if training is not None and training.sha256 == labels.sha256:
        notes.insert(
            0, "the model was trained on this very file: the numbers say how well it remembers, not how good it is"
        )
    sample, natural = estimates(
        [model.score(labels.texts)], labels, model.keep.min_score, resamples=resamples, random_state=random_state
    )
    return Evaluation(
        model=model.name,
        digest=model.digest,
        annotations=labels.name,
        annotations_sha256=labels.sha256,
        rows=len(labels),
        groups=len(np.unique(labels.groups)),
        min_score=model.keep.min_score,
        confidence=CONFIDENCE,
        resamples=resamples,
        random_state=random_state,
        sample=sample,
        natural=natural,
        notes=tuple(notes),
    )


def estimates(
    predictions: Sequence[Scores], labels: Annotations, min_score: float, *, resamples: int, random_state: int
) -> tuple[dict[str, Estimate], dict[str, Estimate] | None]:
    """Metrics of one or several predictions of the same labels, under equal and under natural weights.

    Args:
        predictions: float[n] each; with several (repeated cross-validation) the metrics are averaged over them, in the
            point estimate and in every resample alike.
        labels: the judge's labels of n texts.
        min_score: the keep rule.
        resamples: of the bootstrap over groups.
        random_state: of the bootstrap.

    Returns:
        metric -> estimate, and the same for the natural mix: randomly sampled rows under `labels.natural_weight` (None
        without such weights).
    """
    agreements = [Agreement(scores, labels.expected, labels.score, min_score) for scores in predictions]
    uniform = np.ones(len(labels))
    sample = _bootstrap(agreements, uniform, labels.groups, resamples, random_state)
    if labels.natural_weight is None:
        return sample, None
    natural = labels.natural_weight * labels.random
    return sample, _bootstrap(agreements, natural, labels.groups, resamples, random_state)


def _bootstrap(
    agreements: Sequence[Agreement], weights: Float64, groups: Int64, resamples: int, random_state: int
) -> dict[str, Estimate]:
    names, member = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(random_state)
    point = _mean(agreements, weights)
    drawn = np.array(
        [
            _mean(agreements, weights * rng.multinomial(len(names), np.full(len(names), 1 / len(names)))[member])
            for _ in range(resamples)
        ]
    ).reshape(resamples, len(METRICS))
    tail = (1 - CONFIDENCE) / 2
    result = {}
    for k, name in enumerate(METRICS):
        defined = drawn[:, k][np.isfinite(drawn[:, k])]
        low, high = np.quantile(defined, [tail, 1 - tail]) if len(defined) else (np.nan, np.nan)
        value, low, high = (float(x) if np.isfinite(x) else None for x in (point[k], low, high))
        result[name] = Estimate(value=value, low=low, high=high)
    return result


def _mean(agreements: Sequence[Agreement], weights: Float64) -> Float64:
    values = [list(agreement.metrics(weights).values()) for agreement in agreements]
    return np.asarray(np.mean(values, axis=0), dtype=np.float64)


class Agreement:
    """Scores against labels, sorted once, so that metrics under many weightings are cheap.

    Args:
        scores: float[n], calibrated scores.
        expected: float64[n], the judge's expected scores.
        judged: int64[n], the judge's whole-number scores.
        min_score: the keep rule; scores are compared as float32, labels as they are.
    """

    def __init__(self, scores: Scores, expected: Float64, judged: Int64, min_score: float) -> None:
        values = np.asarray(scores, dtype=np.float32).astype(np.float64)
        self._error = np.abs(values - expected)
        self._kept = np.asarray(scores, dtype=np.float32) >= np.float32(min_score)
        self._wanted = expected >= min_score
        self._cell = np.clip(judged, 0, RATINGS - 1) * RATINGS + np.clip(np.rint(values), 0, RATINGS - 1).astype(
            np.int64
        )
        self._order = np.argsort(-values, kind="stable")
        ordered = values[self._order]
        self._ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
        self._thresholds = ordered[self._ends]
        self._ranks = [np.unique(column, return_inverse=True)[1] for column in (values, expected)]

    def metrics(self, weights: Float64) -> dict[str, float]:
        """Every metric of `METRICS`, in its order; NaN where undefined.

        Args:
            weights: float64[n], not negative; a row of weight 2 counts as two rows.
        """
        total = weights.sum()
        hit = weights[self._kept & self._wanted].sum()
        kept, wanted = weights[self._kept].sum(), weights[self._wanted].sum()
        best, threshold, pr_auc, roc_auc = self._curves(weights)
        return {
            "precision": hit / kept if kept else 0.0,
            "recall": hit / wanted if wanted else np.nan,
            "f1": 2 * hit / (kept + wanted) if wanted else np.nan,
            "best_f1": best,
            "best_threshold": threshold,
            "pr_auc": pr_auc,
            "roc_auc": roc_auc,
            "spearman": self._spearman(weights),
            "qwk": self._kappa(weights),
            "mae": float(weights @ self._error / total),
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

    def _spearman(self, weights: Float64) -> float:
        """Pearson correlation of mid-ranks, a row of weight w standing for w equal rows."""
        ranks = []
        for place in self._ranks:
            mass = np.bincount(place, weights)
            ranks.append((np.cumsum(mass) - mass / 2)[place])
        total = weights.sum()
        a, b = (rank - weights @ rank / total for rank in ranks)
        scale = np.sqrt((weights @ (a * a)) * (weights @ (b * b)))
        return float(weights @ (a * b) / scale) if scale > 0 else np.nan

    def _kappa(self, weights: Float64) -> float:
        """Cohen's kappa with quadratic weights (Cohen 1968)."""
        seen = np.bincount(self._cell, weights, minlength=RATINGS**2).reshape(RATINGS, RATINGS)
        distance = np.subtract.outer(np.arange(RATINGS), np.arange(RATINGS)) ** 2
        by_chance = float((np.outer(seen.sum(1), seen.sum(0)) * distance).sum() / seen.sum())
        return 1 - float((seen * distance).sum()) / by_chance if by_chance > 0 else np.nan


def table(evaluation: Evaluation) -> Table:
    """The evaluation for a terminal: a row per metric, a column for the sample and one for the natural mix."""
    from rich.table import Table

    caption = [
        f"{evaluation.confidence:.0%} intervals: bootstrap over {evaluation.groups} groups, "
        f"{evaluation.resamples} resamples",
        *evaluation.notes,
    ]
    view = Table(
        title=f"{evaluation.model} against {evaluation.annotations}: {evaluation.rows} texts, "
        f"kept at {evaluation.min_score:g}",
        caption="\n".join(caption),
        caption_justify="left",
    )
    view.add_column("metric", no_wrap=True)
    view.add_column("sample", justify="right", no_wrap=True)
    if evaluation.natural is not None:
        view.add_column("natural mix", justify="right", no_wrap=True)
    for name in METRICS:
        cells = [str(evaluation.sample[name])]
        if evaluation.natural is not None:
            cells.append(str(evaluation.natural[name]))
        view.add_row(_SHORT[name], *cells)
    return view
