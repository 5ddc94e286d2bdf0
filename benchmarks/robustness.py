"""What was tried against decisions that flip under the robustness probes, with what each try costs in ranking.

    python benchmarks/robustness.py ANNOTATIONS PAGES.parquet TABLE [--output RESULTS.json]

A head on the TABLE's features is cross-validated on the annotations (five folds of whole hosts, one repetition) and
calibrated on these scores; flips are those of a head fitted to all annotations, on PAGES that are in neither. Copies
for training are dressed in other words than the probes use. A labelled page is in the table, so a copy's features are
the page's own as a table without it has them, plus what the change does to features by the whole table.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt

from filters.arrays import Float32
from filters.evaluate.probes import PROBES
from filters.kernels.packed import PackedText
from filters.kernels.static import SHAPE, StaticTable, static_features
from filters.model.kinds.encoder import text_key
from filters.model.kinds.heads import HeadConfig, LandmarkHead, SvrHead, fit_head
from filters.model.kinds.static import read_table
from filters.statistics.resampling import Measure, connected, group_folds, mean_estimates, near_pairs
from filters.train.annotations import read_annotations, read_pages
from filters.train.calibration import fit_calibration
from filters.train.evaluation import estimates

Score = Callable[[Float32], Float32]

MIN_SCORE = 1.5
SVR = SvrHead(c=(2.0,), gamma=1.0, scale="root", centres=1500)
LANDMARKS = LandmarkHead(landmarks=1500, gamma=1.0)
FRAMES = (
    (
        "Unit 2, Lesson 5\n\nGoals\nBy the end of this lesson you should be able to:\n* say what the topic is about\n"
        "* give reasons and compare cases\n\n",
        "\n\nCheck your understanding\n1) Explain the topic to a classmate.\n2) Which parts were new to you?\n",
    ),
    (
        "Module 7. Study guide\n\nKey terms\nSee the glossary at the back of the book.\n\nWhat you will learn\nThis "
        "part introduces the subject, shows how it works and why it matters.\n\n",
        "\n\nKey points\nYou have now seen how the parts fit together.\n\nQuestions for discussion\na. Describe it.\n",
    ),
    (
        "Teaching notes\nGrade level: 6-8. Time: 45 minutes.\nPupils read the passage and discuss it.\n\nPassage\n",
        "\n\nActivities\nWrite a short essay. Draw a diagram. Quiz: true or false?\n",
    ),
)
SCHOOL = """
pupil school course study syllabus quiz tutorial grade exam assignment university lecture physics biology geography
grammar reading writing vocabulary concept principle experiment research academic college unit topic skills method
""".split()  # noqa: SIM905
MENUS = (
    "Home\nProducts\nServices\nSign in\nCart (0)\nThis website stores data on your device to improve your experience. "
    "OK | More information\nJoin our mailing list for weekly updates!\n\n",
    "Jump to navigation\nToggle menu\nBlog\nFAQ\nTerms of use\nSign up and get the latest stories in your inbox.\n\n",
)


def dressed(text: str, rng: np.random.Generator) -> str:
    """A copy of a page in a frame, among school words or under a menu."""
    which = rng.integers(3)
    if which == 0:
        before, after = FRAMES[rng.integers(len(FRAMES))]
        return before + text + after
    if which == 1:
        words = ", ".join(rng.permutation(SCHOOL)[: rng.integers(12, 25)])
        return f"{words}\n\n{text}\n\n{words}"
    return MENUS[rng.integers(len(MENUS))] + text


def sentences_only(text: str) -> str:
    """Without repeated lines and lines of fewer than six words."""
    lines = dict.fromkeys(line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if len(line.split()) >= 6) or text


@dataclass(frozen=True)
class Data:
    """Features of n labelled pages, of dressed copies of them, and of m others, plain ("") and under each probe."""

    labelled: Float32
    copies: Float32
    pages: dict[str, Float32]


@dataclass(frozen=True)
class Try:
    """One way to train.

    Attributes:
        meaning: in words.
        head: of the classifier.
        share: of the labelled pages that have a dressed copy.
        instead: the copy takes its page's place.
        change: features to features, fitted to the data; None: as they are.
        trimmed: pages are read by `sentences_only`.
        second: a head on all pages and copies whose scores are averaged in.
    """

    meaning: str
    head: HeadConfig = SVR
    share: float = 0.0
    instead: bool = False
    change: Callable[[Data], Callable[[Float32], Float32]] | None = None
    trimmed: bool = False
    second: HeadConfig | None = None


def without_columns(count: int) -> Callable[[Data], Callable[[Float32], Float32]]:
    """Leave the last `count` columns out."""
    return lambda data: lambda features: features[:, : features.shape[1] - count]


def clipped(data: Data) -> Callable[[Float32], Float32]:
    """Keep every feature within what 96 % of the labelled pages have."""
    low, high = np.quantile(data.labelled, [0.02, 0.98], axis=0).astype(np.float32)
    return lambda features: np.clip(features, low, high)


def projected(directions: int) -> Callable[[Data], Callable[[Float32], Float32]]:
    """Take out the directions in which a dressed copy differs from its page."""

    def fit(data: Data) -> Callable[[Float32], Float32]:
        spread = data.labelled.std(axis=0) + 1e-6
        scale = np.sqrt(spread * np.sqrt(np.mean(spread**2))).astype(np.float32)
        _, _, v = np.linalg.svd((data.copies - data.labelled) / scale, full_matrices=False)
        main = v[:directions]
        return lambda features: (features - ((features / scale) @ main.T) @ main * scale).astype(np.float32)

    return fit


CAPITALS = "with the share of capitals"
TRIES = {
    CAPITALS: Try("the features of the model before: the share of capital letters among them"),
    "as it is": Try("without it", change=without_columns(1)),
    "no style": Try("nothing but words: none of the counts of characters", change=without_columns(1 + len(SHAPE))),
    "clipped": Try("all features, capitals too, kept within what 96 % of the labelled pages have", change=clipped),
    "sentences only": Try("repeated lines, and lines of fewer than six words, are not read", trimmed=True),
    "copies for 15 %": Try("15 % of the training pages dressed in other words", share=0.15, instead=True),
    "copies for 30 %": Try("30 % of them", share=0.3, instead=True),
    "copies beside": Try("a dressed copy beside half of the training pages", share=0.5),
    "projected 1": Try("the main direction of dressing taken out of all features, capitals too", change=projected(1)),
    "projected 3": Try("the three main directions", change=projected(3)),
    "smooth head": Try("kernel ridge on landmarks in place of support vectors", head=LANDMARKS),
    "smooth head, copies": Try("the same, with a copy beside every page", head=LANDMARKS, share=1.0),
    "two heads": Try("mean of as it is and the last; twice the size, half the speed", second=LANDMARKS),
}


def features(texts: Sequence[str], table: StaticTable, window: int) -> Float32:
    """What the table makes of the texts, and the share of capitals."""
    part = [text[:window] for text in texts]
    found = static_features(PackedText.from_strings(part), table)
    share = [sum(map(str.isupper, text)) / max(sum(map(str.isalpha, text)), 1) for text in part]
    return np.c_[found, np.array(share, np.float32)]


def fit(attempt: Try, data: Data, rows: npt.NDArray[np.int64], targets: npt.NDArray[np.float64], seed: int) -> Score:
    """The scoring function that a try learns from `rows`."""
    change = attempt.change(data) if attempt.change is not None else lambda given: given
    rng = np.random.default_rng(seed)
    dressed_rows = rows[rng.random(len(rows)) < attempt.share]
    own = np.setdiff1d(rows, dressed_rows) if attempt.instead else rows

    def learn(head: HeadConfig, own: npt.NDArray[np.int64], extra: npt.NDArray[np.int64]) -> Score:
        x = change(np.r_[data.labelled[own], data.copies[extra]])
        strength = head.c[0] if isinstance(head, SvrHead) else 0.3
        fitted = fit_head(head, strength, x, np.r_[targets[own], targets[extra]], np.ones(len(x)), seed)
        return lambda given: fitted(change(given))

    first = learn(attempt.head, own, dressed_rows)
    if attempt.second is None:
        return first
    other = learn(attempt.second, rows, rows)
    return lambda given: (first(given) + other(given)) / 2


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations")
    parser.add_argument("pages")
    parser.add_argument("table")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "robustness.json")
    options = parser.parse_args()
    labels = read_annotations(options.annotations, MIN_SCORE)
    pages = read_pages(options.pages)
    texts = list(dict.fromkeys(pages.texts))
    groups = connected(len(texts), near_pairs(texts))
    folder = read_table(options.table)
    table, window = folder.vectors.table(), folder.window
    whole = features(labels.texts, table, window)
    own = whole.copy()
    for row, text in enumerate(PackedText.from_strings(labels.texts).head(window)):
        known = folder.left_out.get(text_key(text.decode("utf-8", "replace")))
        if known is not None:
            own[row, : len(known)] = known
    rng = np.random.default_rng(0)
    copies = own + features([dressed(text, rng) for text in labels.texts], table, window) - whole

    def read(trim: Callable[[str], str]) -> Data:
        def changed(change: Callable[[str], str]) -> Float32:
            return features([trim(change(text)) for text in texts], table, window)

        labelled = own if trim is str else own + features([trim(text) for text in labels.texts], table, window) - whole
        return Data(labelled, copies, {"": changed(str)} | {name: changed(p.change) for name, p in PROBES.items()})

    plain, trimmed = read(str), read(sentences_only)
    rows: dict[str, Any] = {}
    every = np.arange(len(labels))
    folds = group_folds(labels.groups, labels.expected >= MIN_SCORE, 5, 0)
    for name, attempt in TRIES.items():
        data = trimmed if attempt.trimmed else plain
        if name not in (CAPITALS,) and attempt.change is None:
            attempt = Try(**{**vars(attempt), "change": without_columns(1)})
        raw = np.zeros(len(labels))
        for number, (training, test) in enumerate(folds):
            raw[test] = fit(attempt, data, training, labels.expected, number)(data.labelled[test])
        calibration = fit_calibration(raw, labels.expected, min_score=MIN_SCORE)
        sample, _ = estimates([calibration(raw)], labels, Measure(MIN_SCORE, 500, 0))
        score = fit(attempt, data, every, labels.expected, 0)
        kept = {probe: calibration(score(given)) >= MIN_SCORE for probe, given in data.pages.items()}
        flips = [kept[""] != kept[probe] for probe in PROBES]
        found = mean_estimates(flips, [np.ones(len(texts))] * len(flips), groups, 500, 0)
        rows[name] = {
            "meaning": attempt.meaning,
            **{metric: sample[metric].model_dump() for metric in ("pr_auc", "spearman", "f1")},
            "flips": {probe: estimate.model_dump() for probe, estimate in zip(PROBES, found, strict=True)},
        }
        cells = "  ".join(f"{probe} {estimate.value:.1%}" for probe, estimate in zip(PROBES, found, strict=True))
        print(f"{name:28} PR-AUC {sample['pr_auc']}  {cells}", flush=True)
    result = {
        "annotations_sha256": labels.sha256,
        "pages": Path(options.pages).name,
        "pages_sha256": pages.sha256,
        "texts": len(texts),
        "table": folder.digest,
        "rows": rows,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
