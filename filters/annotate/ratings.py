"""Documents with all that judges said about them, from an answer store or a file of annotations."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from filters.annotate.config import AnnotateConfig
from filters.annotate.rubric import Rubric
from filters.annotate.store import KEEP_RUBRIC, Document, Store
from filters.arrays import Float64
from filters.errors import AnnotationsError
from filters.read.labels import read_labels


@dataclass(frozen=True)
class JudgeAnswers:
    """Answers of one judge.

    Attributes:
        name: in the store.
        kind: model or human.
        model: which it is.
        score: float64[n, repeats], whole numbers; NaN where there is none.
        expected: float64[n, repeats].
        rejected: answers that could not be read, by cause.
        failed: requests without an answer, by cause.
        entropy: mean entropy of its score distributions, in nats; None where there are none.
        text_cut: documents of which it was shown a part only.
        mode: in which it answers; "" where that is not known.
    """

    name: str
    kind: str
    model: str
    score: Float64
    expected: Float64
    rejected: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    entropy: float | None = None
    text_cut: int = 0
    mode: str = ""


@dataclass(frozen=True)
class Rated:
    """Documents and all that judges said about them.

    Attributes:
        source: store or file.
        rubric: what it is called; None for a file.
        scale: lowest and highest score.
        documents: n documents.
        judges: that scored at least one of them.
        humans: name -> float64[n], 1 keep, 0 drop, NaN for neither.
        population: documents that the sample, answered or not, was drawn from; None: inclusion probabilities unknown.
        notes: what was odd.
    """

    source: str
    rubric: str | None
    scale: tuple[int, int]
    documents: tuple[Document, ...]
    judges: tuple[JudgeAnswers, ...]
    humans: dict[str, Float64]
    population: int | None
    notes: tuple[str, ...]


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
        wanted = Rubric.load(config.rubric, config.language).digest
        with Store(config.store, create=False) as store:
            return _of_store(store, wanted)
    if not path.is_file():
        raise AnnotationsError(f"{path}: no such file. Remedy: give an answer store, a config of annotate, or labels")
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
    notes = []
    if len(chosen) > 1:
        others = ", ".join(f"{r.rubric.name} {r.digest[:8]}" for r in chosen if r is not record)
        notes.append(f"other rubrics in this store are not shown: {others}")
    drawn: dict[int, Document] = {}
    samples = store.samples()
    for number, _ in samples:
        drawn |= dict(store.drawn(number))
    if len(samples) > 1:
        notes.append(
            f"{len(samples)} samples in this store: estimates for the population would mix them, none is given"
        )
    judges = store.judges()
    ratings = {judge.name: store.ratings(judge.number, record.number) for judge in judges}
    rated = np.unique(np.concatenate([r.document for r in ratings.values()])) if ratings else np.empty(0, np.int64)
    rated = rated[np.isin(rated, list(drawn))]
    if not len(rated):
        raise AnnotationsError(f"{store.path}: no answer of this rubric could be read. Remedy: see the causes it names")
    entropies: dict[str, list[float]] = {}
    cut: dict[str, set[int]] = {}
    for name, answer in store.answers(record.number):
        if answer.entropy is not None:
            entropies.setdefault(name, []).append(answer.entropy)
        if answer.status == "ok" and answer.text_cut is not None:
            cut.setdefault(name, set()).add(answer.document)
    found = []
    for judge in judges:
        table = ratings[judge.name]
        mine = np.isin(table.document, rated)
        if not mine.any():
            continue
        rows = np.searchsorted(rated, table.document[mine])
        columns = np.full((2, len(rated), int(table.repeat[mine].max()) + 1), np.nan)
        columns[:, rows, table.repeat[mine]] = table.score[mine], table.expected[mine]
        rejected, failed = store.causes(judge.number, record.number)
        entropy = entropies.get(judge.name)
        mean = float(np.mean(entropy)) if entropy else None
        mode = "sample" if judge.logprobs == 0 else str(judge.settings.get("mode", ""))
        part = len(cut.get(judge.name, set()) & set(rated.tolist()))
        score, expected = columns
        found.append(
            JudgeAnswers(judge.name, judge.kind, judge.model, score, expected, rejected, failed, mean, part, mode)
        )
    keep = next((r for r in store.rubrics() if r.rubric == KEEP_RUBRIC), None)
    humans = {}
    for judge in judges:
        if keep is not None and judge.kind == "human":
            table = store.ratings(judge.number, keep.number)
            decided = dict(zip(table.document.tolist(), table.score.tolist(), strict=True))
            humans[judge.name] = np.array([decided.get(number, np.nan) for number in rated.tolist()])
    scale = record.rubric.scale
    return Rated(
        source=str(store.path),
        rubric=f"{record.rubric.name} {record.rubric.version} ({record.digest[:12]})",
        scale=(scale.min, scale.max),
        documents=tuple(drawn[number] for number in rated.tolist()),
        judges=tuple(found),
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
    rows: list[list[float]]
    if "scores" in names:
        rows = [[np.nan if value is None else value for value in row or ()] for row in file.lists("scores")]
    else:
        wanted = [n for n in ("expected_score", "score") if n in names][:1]
        wanted += [n for n in ("expected_score_2", "score_2") if n in names][:1]
        columns = [file.numbers(name) for name in wanted]
        rows = np.stack(columns, axis=1).tolist()
    repeats = max((len(row) for row in rows), default=0)
    expected = np.array([row + [np.nan] * (repeats - len(row)) for row in rows]).reshape(len(rows), repeats)
    rated = np.isfinite(expected).any(axis=1)
    if not rated.any():
        raise AnnotationsError(f"{path}: no ratings in this file")
    if expected[rated].min(initial=5, where=np.isfinite(expected[rated])) < 0 or np.nanmax(expected) > 5:
        raise AnnotationsError(f"{path}: ratings must lie between 0 and 5. Remedy: map them to that scale")
    rest = [name for name in names if name in ("topic", "format", "language", "source", "sampling")]
    known = {name: table[name].to_pylist() for name in ("url", *rest) if name in names}
    known["text"] = file.strings("text")
    documents = tuple(
        Document(
            text=known["text"][row] or "",
            url=known["url"][row] if "url" in known else None,
            columns={name: known[name][row] for name in rest},
        )
        for row in np.flatnonzero(rated).tolist()
    )
    cut = np.array([value is not None for value in table["text_cut"].to_pylist()]) if "text_cut" in names else rated[:0]
    part = int(cut[rated].sum()) if len(cut) else 0
    judge = JudgeAnswers(path.stem, "model", "", np.rint(expected[rated]), expected[rated], text_cut=part)
    return Rated(str(path), None, (0, 5), documents, (judge,), {}, None, ())
