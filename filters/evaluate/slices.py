"""Slices of labelled pages: does a model judge pages, or does it only recognise their topic?

A filter that has learnt "science is good, fashion is bad" ranks well over all pages and not at all inside a topic, so
the rank correlation *within* slices counts as much as the overall one. Slices come from the columns `topic`, `format`
and `language` where the annotations have them, and from the length of the text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from filters.arrays import Float32, Float64
from filters.statistics.agreement import METRICS, LabelMetrics, Scores
from filters.statistics.resampling import Estimate, Measure, estimate, group_folds, group_resamples
from filters.train.annotations import Annotations
from filters.train.calibration import fit_calibration

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
            LabelMetrics(np.asarray(scores)[rows], labels.expected[rows], labels.score[rows], min_score)
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


MEANINGS = {
    "random": "a random number",
    "length": "characters of the text; longer is better",
    "readability": "Flesch-Kincaid grade of the first window; higher is better",
    "topic": "the judge's mean score of other pages of the same topic and format",
}
_FOLDS = 5
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)|\n+")
_VOWELS = re.compile(r"[aeiouyà-æè-ïò-öø-ýÿœ]+")


def syllables(word: str) -> int:
    """Syllables of an English word: its runs of vowel letters (y counts), less a silent final e, and at least one.

    A final e is silent after a consonant other than l ("make" 1, "table" 2), as is that of a final -es or -ed unless
    its sound needs a syllable after s, x, z, ch, sh, c, g ("roses" 2) or t, d ("wanted" 2).
    """
    word = word.lower()
    count = len(_VOWELS.findall(word))
    silent = re.search(r"[^aeiouyl]e$|[^aeiouysxzhcg]es$|[^aeiouytd]ed$", word)
    return max(count - (1 if silent and count > 1 else 0), 1)


def flesch_kincaid_grade(text: str) -> float:
    """School grade of a text: 0.39 words/sentences + 11.8 syllables/words - 15.59 (Kincaid et al. 1975).

    A sentence ends with a run of . ! or ? before white space, and with a line; a sentence has at least one word. A text
    without words has grade 0.
    """
    words = sentences = total = 0
    for part in _SENTENCE_END.split(text):
        found = _WORD.findall(part)
        words += len(found)
        sentences += bool(found)
        total += sum(map(syllables, found))
    return 0.39 * words / sentences + 11.8 * total / words - 15.59 if words else 0.0


def baseline_scores(labels: Annotations, measure: Measure, window: int) -> dict[str, Float32]:
    """Scores of every baseline on the judge's scale: name in `MEANINGS` -> float32[n].

    All but `topic` are calibrated on these very labels, which favours them. `topic` is there where the annotations have
    the column; it is out of fold.
    """
    # A stream of its own: made-up labels may come from the plain seed.
    rng = np.random.default_rng([measure.random_state, 1])
    raw = {
        "random": rng.random(len(labels)),
        "length": np.array([len(text) for text in labels.texts], dtype=np.float64),
        "readability": np.array([flesch_kincaid_grade(text[:window]) for text in labels.texts]),
    }
    scores = {
        name: fit_calibration(values, labels.expected, min_score=measure.min_score)(values)
        for name, values in raw.items()
        if values.min() < values.max()
    }
    facets = facets_of(labels)
    columns = [facets[name] for name in ("topic", "format") if name in facets]
    if "topic" in facets and len(np.unique(labels.groups)) >= _FOLDS:
        scores["topic"] = _topic_means(labels, columns, measure)
    return scores


def _topic_means(labels: Annotations, columns: Sequence[Sequence[str]], measure: Measure) -> Float32:
    """Additive means: overall, plus what a topic and a format lie above it on average, from the other folds."""
    scores = np.zeros(len(labels))
    codes = [np.unique(np.asarray(column), return_inverse=True)[1] for column in columns]
    wanted = labels.expected >= measure.min_score
    for training, test in group_folds(labels.groups, wanted, _FOLDS, measure.random_state):
        rest = labels.expected[training]
        mean = rest.mean()
        scores[test] = mean
        rest = rest - mean
        for code in codes:
            size = np.bincount(code[training], minlength=code.max() + 1)
            effect = np.bincount(code[training], rest, minlength=code.max() + 1) / (size + 1)
            scores[test] += effect[code[test]]
            rest = rest - effect[code[training]]
    return np.clip(scores, 0, 5).astype(np.float32)
