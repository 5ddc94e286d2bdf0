"""Baselines that a classifier must beat: chance, the length of a text, its readability, its topic."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from filters.arrays import Float32
from filters.statistics.bootstrap import Measure
from filters.statistics.splits import group_folds
from filters.train.annotations import Annotations
from filters.train.calibration import fit_calibration
from filters.train.slices import facets_of

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
