"""A reading test: a person reads documents from both sides of the threshold and says which to keep.

Documents come in equal numbers from four strata of the score around the threshold, seeded, and in an order that says
nothing; score and source stay hidden. Answers go into the answer store of `finesieve annotate`, as those of a human
judge, one by one: a test that was broken off goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from filters.annotate.store import KEEP_RUBRIC, Document, Pending, Store
from filters.errors import RunError
from filters.inspect.samples import documents, random_ranks, sample_rows
from filters.scores.finished_run import Run

WIDTH = 0.2
STRATA = ("far below", "just below", "just above", "far above")
"""Each `WIDTH` wide."""
ABOVE = STRATA[2:]
"""Those that the model keeps."""
CHARACTERS = 6000
"""Most characters of a document's text that are shown."""
Z = 1.959964
"""Quantile of the normal distribution for 95 % intervals."""


@dataclass(frozen=True)
class Share:
    """A share of documents with its Wilson interval (Wilson 1927) at 95 %.

    Attributes:
        hits: documents counted.
        total: documents there are.
        weighted: the share where documents do not count alike; None: hits / total.
        effective: documents that would say as much if they counted alike (Kish 1965); None: total.
    """

    hits: int
    total: int
    weighted: float | None = None
    effective: float | None = None

    @property
    def value(self) -> float:
        """The share; NaN without documents."""
        if self.weighted is not None:
            return self.weighted
        return self.hits / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high); (0, 1) without documents."""
        n = self.total if self.effective is None else self.effective
        if not n:
            return 0.0, 1.0
        p = self.value
        middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * float(np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)))
        return max(middle - half, 0.0), min(middle + half, 1.0)

    def __str__(self) -> str:
        if not self.total:
            return "none"
        low, high = self.interval
        return f"{self.hits} of {self.total}: {self.value:.0%} [{low:.0%}, {high:.0%}]"

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        low, high = self.interval
        counted = {"hits": self.hits, "total": self.total}
        return counted | {"share": self.value if self.total else None, "low": low, "high": high}


@dataclass(frozen=True)
class ReadingResult:
    """What a reading test says so far of the documents within 2 * `WIDTH` of the threshold.

    The strata are drawn in equal numbers, but are not equally large: where several are taken together, each counts as
    much as it has documents in the run.

    Attributes:
        judge: who read.
        drawn: documents in the test.
        without_text: documents passed over in drawing the test because the run holds no text of them.
        total: documents on which reader and model agree.
        strata: stratum -> documents on which they agree.
        kept_rightly: of the documents the model keeps, those the reader keeps too.
        dropped_rightly: of the documents the model drops, those the reader drops too.
    """

    judge: str
    drawn: int
    without_text: int
    total: Share
    strata: dict[str, Share]
    kept_rightly: Share
    dropped_rightly: Share

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "judge": self.judge,
            "drawn": self.drawn,
            "without_text": self.without_text,
            "agreement": self.total.to_json(),
            "kept_rightly": self.kept_rightly.to_json(),
            "dropped_rightly": self.dropped_rightly.to_json(),
            "strata": {name: share.to_json() for name, share in self.strata.items()},
        }


class ReadingTest:
    """A reading test of a run, drawn or taken up again. Use as a context manager.

    Args:
        run: the run.
        count: documents to read.
        store: answer store; made if it is not there.
        judge: name under which the reader's answers are kept.
        min_score: the threshold to read around; None: the run's.
        seed: of the choice.

    Raises:
        RunError: the run holds no texts, no scores near the threshold, or is damaged.
        AnnotationsError: the store cannot be used, or `judge` is a model in it.
    """

    def __init__(
        self, run: Run, count: int, store: Path, judge: str, *, min_score: float | None = None, seed: int = 0
    ) -> None:
        self.judge_name = judge
        threshold = run.min_score if min_score is None else min_score
        manifest = hashlib.sha256((run.path / "manifest.json").read_bytes()).hexdigest()
        description = {"reading": manifest, "min_score": threshold, "count": count, "seed": seed}
        self._without_text = 0
        self._store = Store(store)
        try:
            self._judge = self._store.judge(judge, "human", "", {}).number
            self._rubric = self._store.rubric(KEEP_RUBRIC)
            found = self._store.find_sample(description)
            if found is None:
                drawn, self._without_text = _draw(run, count, threshold, seed)
                found = self._store.begin_sample(description)
                self._store.draw(found, drawn)
            self._sample = found
        except BaseException:
            self._store.close()
            raise

    def __enter__(self) -> ReadingTest:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()

    def next(self) -> Pending | None:
        """A document that the reader has not decided about; None when all are."""
        return next(iter(self._store.pending(self._sample, self._judge, self._rubric, 1, limit=1)), None)

    def record(self, document: Pending, keep: bool) -> None:
        """Store a decision."""
        self._store.record_keep(self.judge_name, document.text, keep)

    def result(self) -> ReadingResult:
        """What the answers so far say."""
        decided = {n: score >= 0.5 for n, score in self._store.scores(self._judge, self._rubric).items()}
        drawn = list(self._store.drawn(self._sample))
        sizes: defaultdict[str, float] = defaultdict(float)
        agreed: dict[str, list[bool]] = {name: [] for name in STRATA}
        for number, document in drawn:
            name = document.stratum or ""
            sizes[name] += 1 / document.probability  # documents of the run that it stands for
            if number in decided:
                agreed[name].append(decided[number] == (name in ABOVE))
        return ReadingResult(
            self.judge_name,
            len(drawn),
            self._without_text,
            _pooled(agreed, sizes),
            {name: Share(sum(hits), len(hits)) for name, hits in agreed.items()},
            _pooled({name: agreed[name] for name in ABOVE}, sizes),
            _pooled({name: agreed[name] for name in STRATA if name not in ABOVE}, sizes),
        )


def _pooled(hits: Mapping[str, Sequence[bool]], sizes: Mapping[str, float]) -> Share:
    """The share of several strata together, each weighed by its documents; strata that nobody read are left out."""
    read = {name: np.asarray(some, float) for name, some in hits.items() if len(some)}
    if not read:
        return Share(0, 0)
    total = sum(sizes[name] for name in read)
    weights = {name: sizes[name] / total for name in read}
    share = sum(weights[name] * float(some.mean()) for name, some in read.items())
    effective = 1 / sum(weights[name] ** 2 / len(some) for name, some in read.items())
    counted = int(sum(some.sum() for some in read.values())), sum(map(len, read.values()))
    return Share(*counted, min(share, 1.0), effective)


def _draw(run: Run, count: int, threshold: float, seed: int) -> tuple[list[Document], int]:
    """(documents in the order in which they are read, how many were passed over without text).

    Strata that are short are made up for by the others.
    """
    edges = (np.float32(threshold) + np.float32(WIDTH) * np.arange(-2, 3, dtype=np.float32)).astype(np.float32)
    # Twice as many as needed, for the run may hold no text of some.
    chosen, available = sample_rows(run, edges, 2 * count, seed)
    strata = {row: stratum for stratum, rows in enumerate(chosen) for row in rows}
    if not strata:
        raise RunError(
            f"{run.path}: no document has a score within {2 * WIDTH:g} of {threshold:g}. Remedy: read around another "
            "threshold with --keep min_score=..."
        )
    texts = documents(run, strata, CHARACTERS)
    with_text = [[row for row in rows if texts[row].text] for rows in chosen]
    in_turn = [row for turn in zip_longest(*with_text) for row in turn if row is not None]
    if not in_turn:
        raise RunError(
            f"{run.path}: this run holds no text of the documents around {threshold:g}. Remedy: filter with "
            "output.rejected: true, so that removed documents keep their text"
        )
    taken = np.array(in_turn[:count])
    drawn = np.bincount([strata[row] for row in taken.tolist()], minlength=len(STRATA))
    result = []
    for row in taken[np.argsort(random_ranks(taken, seed), kind="stable")].tolist():
        document, stratum = texts[row], strata[row]
        probability = float(drawn[stratum] / available[stratum])
        columns = {"score": document.score, "origin": document.origin}
        result.append(
            Document(
                document.text or "",
                document.id,
                language=document.language,
                probability=probability,
                design="stratified",
                stratum=STRATA[stratum],
                columns=columns,
            )
        )
    return result, len(strata) - len(in_turn)


def read(
    test: ReadingTest, key: Callable[[], str], show: Callable[[str, int, int], None], *, answered: int = 0
) -> ReadingResult:
    """Show documents and take decisions until none is left, or the reader stops.

    Args:
        test: the test.
        key: the next key: "k" keep, "d" drop, "q" or "" stop; others are passed over.
        show: called with the text of each document, its number from 1, and how many there are.
        answered: documents the reader has decided about before.
    """
    total = test.result().drawn
    while (document := test.next()) is not None:
        answered += 1
        show(document.text, answered, total)
        pressed = key().lower()
        while pressed and pressed not in "kdq":
            pressed = key().lower()
        if pressed not in ("k", "d"):
            break
        test.record(document, pressed == "k")
    return test.result()


@contextmanager
def reading_keys() -> Iterator[Callable[[], str]]:
    """A function that returns the next key, "" at the end of the input; the terminal is as before afterwards."""
    if not sys.stdin.isatty():
        yield _from_lines
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield lambda: sys.stdin.read(1)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _from_lines() -> str:
    """The first letter of the next line that has one."""
    for line in sys.stdin:
        if line.strip():
            return line.strip()[0]
    return ""
