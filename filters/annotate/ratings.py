"""Documents with all that judges said about them, from an answer store or a file of annotations."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from filters.annotate.config import AnnotateConfig
from filters.annotate.rubric import Rubric, Scale
from filters.annotate.store import KEEP_RUBRIC, Answer, Document, Store
from filters.arrays import Float64, Int64
from filters.errors import AnnotationsError
from filters.read.labels import read_labels
from filters.statistics.agreement import Panel

Answers = Sequence[tuple[str, Answer]]
"""(judge's name, readable answer) of one document."""
FACETS = ("topic", "format", "language", "source", "sampling")
"""Columns of a file of annotations that become slices of the report."""


@dataclass(frozen=True)
class RatedBy:
    """A judge of the documents.

    Attributes:
        kind: model or human.
        model: which it is.
        mode: in which it answers; "" where that is not known.
        rejected: answers that could not be read, by cause.
        failed: requests without an answer, by cause.
    """

    name: str
    kind: str = "model"
    model: str = ""
    mode: str = ""
    rejected: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Rated:
    """Documents and all that judges said about them.

    Attributes:
        source: store or file.
        rubric: what it is called; None for a file.
        scale: of the scores and of each attribute.
        attributes: what the rubric has scored separately.
        documents: n documents.
        answers: of each of them.
        judges: that scored at least one of them.
        humans: name -> float64[n], 1 keep, 0 drop, NaN for neither.
        population: documents that the sample, answered or not, was drawn from; None: inclusion probabilities unknown.
        notes: what was odd.
    """

    source: str
    rubric: str | None
    scale: Scale
    attributes: tuple[str, ...]
    documents: tuple[Document, ...]
    answers: tuple[Answers, ...]
    judges: tuple[RatedBy, ...]
    humans: dict[str, Float64]
    population: int | None
    notes: tuple[str, ...]


def make_panel(
    answers: Sequence[Answers],
    judges: Sequence[str],
    scale: Scale,
    *,
    attribute: str | None = None,
    cut: float = 0.0,
    groups: Int64 | None = None,
) -> Panel:
    """Ratings as arrays: a column for each repeat of each judge that rated anything.

    Args:
        answers: of each document.
        judges: names, in the order of the panel's.
        scale: of the ratings; what a reward model says beyond its ends counts as the end.
        attribute: rated; None: the page's score.
        cut: kept is what is at least this.
        groups: of the documents; None: each is one of its own.
    """
    repeats: Counter[str] = Counter()
    for said in answers:
        for name, answer in said:
            repeats[name] = max(repeats[name], answer.repeat + 1)
    names = [name for name in judges if repeats[name]]
    first = dict(zip(names, np.cumsum([0, *(repeats[name] for name in names)]).tolist(), strict=False))
    score, expected = np.full((2, len(answers), sum(repeats[name] for name in names)), np.nan)
    for row, said in enumerate(answers):
        for name, answer in said:
            place = row, first[name] + answer.repeat
            if attribute is None:
                score[place], expected[place] = answer.score, answer.expected
            else:
                expected[place] = (answer.attributes or {}).get(attribute, np.nan)
    if attribute is not None:
        expected = np.clip(expected, scale.min, scale.max)
        score = np.rint(expected)
    return Panel(
        judges=tuple(names),
        judge=np.repeat(np.arange(len(names)), [repeats[name] for name in names]),
        score=score,
        expected=expected,
        low=scale.min,
        high=scale.max,
        cut=cut,
        groups=np.arange(len(answers)) if groups is None else groups,
    )


def read_rated(path: str | Path, rubric: str | None = None) -> Rated:
    """Read ratings from a store, a config that names one, or a file of labels (Parquet, JSON lines, CSV).

    Args:
        path: an answer store, an annotate config (.yaml), or a file with text and `scores` (a list of repeats), or
            text, score (expected_score) and score_2 (expected_score_2).
        rubric: name or digest of one of the store's rubrics, where it has several.

    Raises:
        AnnotationsError: there is no such file, or nothing rated in it.
        ConfigError: the config cannot be read.
    """
    path = Path(path)
    if path.suffix in (".yaml", ".yml"):
        config = AnnotateConfig.load(path)
        rubric = Rubric.load(config.rubric, config.language).digest
        path = Path(config.store)
    elif not path.is_file():
        raise AnnotationsError(f"{path}: no such file. Remedy: give an answer store, a config of annotate, or labels")
    else:
        with path.open("rb") as stream:
            if stream.read(16) != b"SQLite format 3\x00":
                return _of_labels(path)
    try:
        with Store(path, create=False) as store:
            return _of_store(store, rubric)
    except sqlite3.DatabaseError as error:
        raise AnnotationsError(f"{path}: no answer store, or a damaged one: {error}") from error


def _of_store(store: Store, wanted: str | None) -> Rated:
    known = [record for record in store.rubrics() if record.answers and record.rubric != KEEP_RUBRIC]
    chosen = [r for r in known if wanted is None or r.rubric.name == wanted or r.digest.startswith(wanted)]
    if not chosen:
        names = ", ".join(f"{r.rubric.name} {r.digest[:8]}" for r in known) or "none"
        raise AnnotationsError(
            f"{store.path}: no answers under {'any rubric' if wanted is None else f'the rubric {wanted[:16]}'}; it has "
            f"{names}. Remedy: run finesieve annotate first, or name another rubric"
        )
    record = max(chosen, key=lambda r: r.answers)
    rubric, notes = record.rubric, []
    if len(chosen) > 1:
        others = ", ".join(f"{r.rubric.name} {r.digest[:8]}" for r in chosen if r is not record)
        notes.append(f"other rubrics in this store are not shown: {others}")
    drawn: dict[int, Document] = {}
    samples = store.samples()
    for number in samples:
        drawn |= dict(store.drawn(number))
    if len(samples) > 1:
        notes.append(
            f"{len(samples)} samples in this store: estimates for the population would mix them, none is given"
        )
    answers: dict[int, list[tuple[str, Answer]]] = {}
    for name, answer in store.answers(record.number):
        if answer.status == "ok" and answer.document in drawn:
            answers.setdefault(answer.document, []).append((name, answer))
    if not answers:
        raise AnnotationsError(f"{store.path}: no answer of this rubric could be read. Remedy: see the causes it names")
    rating = {name for said in answers.values() for name, _ in said}
    judges = store.judges()
    keep = next((r.number for r in store.rubrics() if r.rubric == KEEP_RUBRIC), None)
    humans = {}
    for judge in judges:
        if keep is not None and judge.kind == "human":
            decided = store.scores(judge.number, keep)
            humans[judge.name] = np.array([decided.get(number, np.nan) for number in answers])
    return Rated(
        source=str(store.path),
        rubric=f"{rubric.name} {rubric.version} ({record.digest[:12]})",
        scale=rubric.scale,
        attributes=tuple(attribute.name for attribute in rubric.attributes),
        documents=tuple(drawn[number] for number in answers),
        answers=tuple(answers.values()),
        judges=tuple(
            RatedBy(j.name, j.kind, j.model, j.answers_in, *store.causes(j.number, record.number))
            for j in judges
            if j.name in rating
        ),
        humans={name: kept for name, kept in humans.items() if np.isfinite(kept).any()},
        population=round(sum(1 / d.probability for d in drawn.values())) if len(samples) == 1 else None,
        notes=tuple(notes),
    )


def _of_labels(path: Path) -> Rated:
    file = read_labels(path)
    table, names = file.table, file.table.column_names
    if "text" not in names or not {"score", "expected_score", "scores"} & set(names):
        raise AnnotationsError(
            f"{path}: found {', '.join(file.names)}; needed are `text` and ratings: a list column `scores`, or "
            "score or expected_score. Remedy: rename the columns"
        )
    if "scores" in names:
        rows = [list(row or ()) for row in file.lists("scores")]
    else:
        wanted = [n for n in ("expected_score", "score") if n in names][:1]
        wanted += [n for n in ("expected_score_2", "score_2") if n in names][:1]
        rows = np.stack([file.numbers(name) for name in wanted], axis=1).tolist()
    columns = {name: table[name].to_pylist() for name in ("url", "text_cut", *FACETS) if name in names}
    absent = [None] * len(rows)
    cuts, urls, texts = columns.pop("text_cut", absent), columns.pop("url", absent), file.strings("text")
    documents, answers = [], []
    for row, ratings in enumerate(rows):
        known = [(k, float(r)) for k, r in enumerate(ratings) if r is not None and np.isfinite(r)]
        if any(not 0 <= rating <= 5 for _, rating in known):
            raise AnnotationsError(f"{path}: ratings must lie between 0 and 5. Remedy: map them to that scale")
        if known:
            facets = {name: values[row] for name, values in columns.items()}
            documents.append(Document(texts[row] or "", url=urls[row], columns=facets))
            answers.append(
                [(path.stem, Answer(row, k, "ok", "", score=np.rint(r), expected=r, mode="", text_cut=cuts[row]))
                 for k, r in known]
            )  # fmt: skip
    if not documents:
        raise AnnotationsError(f"{path}: no ratings in this file")
    judges = (RatedBy(path.stem),)
    return Rated(str(path), None, Scale(max=5), (), tuple(documents), tuple(answers), judges, {}, None, ())
