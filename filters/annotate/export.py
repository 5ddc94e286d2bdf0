"""Annotations for everybody else: a Parquet file that `finesieve train` and `datasets` read, with its card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters.annotate.config import AnnotateConfig
from filters.annotate.ratings import Answers, make_panel
from filters.annotate.rubric import Rubric
from filters.annotate.run import describe_sample
from filters.annotate.store import Answer, Document, Store
from filters.arrays import Float64
from filters.cards import bullets, card_table, cell, make_card
from filters.errors import AnnotationsError
from filters.statistics.agreement import HIGHEST, LOWEST, Consensus, consensus, unlinked
from filters.storage.files import publishing

FILE = "annotations.parquet"
CARD = "README.md"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        path: the Parquet file.
        rows: documents with at least one readable answer.
        left_out: documents of the sample without one.
        notes: what whoever uses the scores must know.
    """

    path: Path
    rows: int
    left_out: int
    notes: tuple[str, ...]


def export_annotations(config: AnnotateConfig, folder: str | Path) -> Exported:
    """Write what the judges of a config have said about its sample so far. Asks nobody.

    Columns: id, url, text, source, language; score (int8) and expected_score, the judges' consensus (of one judge: the
    mean of its answers), on a scale from 0 to 5; standard_error of it, where several answers tell; a column for each
    attribute of the rubric, the consensus on it, on the same scale; scores, judges and attributes, every answer's
    expected score, whose it is, and its attributes, on that scale too; entropy, mean over the answers; text_cut, the
    fewest characters that a judge was shown of a page that was cut, null where all saw it whole; sampling ("random" in
    every design: `finesieve train` uses the weights of such rows, and all designs draw with known probabilities),
    stratum, inclusion_probability and natural_weight, its inverse; and the input's further columns.

    Raises:
        AnnotationsError: there is no store, no such sample in it, or no answer.
    """
    rubric = Rubric.load(config.rubric, config.language)
    names = [judge.name for judge in config.judges]
    with Store(config.store, create=False) as store:
        sample = store.find_sample(describe_sample(config))
        number = next((record.number for record in store.rubrics() if record.digest == rubric.digest), None)
        if sample is None or number is None:
            raise AnnotationsError(
                f"{config.store}: nothing was annotated with this input, sample and rubric yet. Remedy: run "
                "finesieve annotate with this config first"
            )
        documents = dict(store.drawn(sample))
        answers: dict[int, list[tuple[str, Answer]]] = {}
        for judge, answer in store.answers(number, sample):
            if answer.status == "ok" and judge in names:
                answers.setdefault(answer.document, []).append((judge, answer))
        records = [record for record in store.judges() if record.name in names]
        causes = {record.name: store.causes(record.number, number)[0] for record in records}
    if not answers:
        raise AnnotationsError(f"{config.store}: no answer could be read yet, so there is nothing to export")
    rated = [place for place in documents if place in answers]
    said = [answers[place] for place in rated]
    panel = make_panel(said, names, rubric.scale)
    together, notes = consensus(panel), unlinked(panel)
    attributes = {
        part.name: consensus(make_panel(said, names, rubric.scale, attribute=part.name)).score
        for part in rubric.attributes
    }
    table = _table([documents[place] for place in rated], said, together, attributes, rubric)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with publishing(folder / FILE) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
    left_out = len(documents) - len(rated)
    rows = []
    for record in records:
        rejected = ", ".join(f"{cause} {count:,}" for cause, count in causes[record.name].items()) or "none"
        mode = "sample, for want of log-probabilities" if record.logprobs == 0 else record.answers_in
        rows.append([record.name, record.model, mode, f"{record.settings.get('temperature', 0):g}", rejected])
        if len(records) > 1:
            severity = dict(zip(panel.judges, together.severity.tolist(), strict=True)).get(record.name, np.nan)
            rows[-1].append(f"{severity:+.2f}" if np.isfinite(severity) else "unknown")
    with publishing(folder / CARD) as temporary:
        temporary.write_text(_card(config, rubric, rows, table, left_out, notes), encoding="utf-8")
    return Exported(folder / FILE, len(rated), left_out, tuple(notes))


def _table(
    documents: Sequence[Document],
    answers: Sequence[Answers],
    together: Consensus,
    attributes: Mapping[str, Float64],
    rubric: Rubric,
) -> pa.Table:
    scale = rubric.scale
    # a scale that lies inside the 0 to 5 of training stays as it is
    factor, offset = (1.0, 0) if scale.max <= HIGHEST else (HIGHEST / (scale.max - scale.min), scale.min)

    def scaled(values: Any) -> Float64:
        return np.clip((np.asarray(values, np.float64) - offset) * factor, LOWEST, HIGHEST).round(4)

    expected = scaled(together.score)
    probability = np.array([document.probability for document in documents])
    entropies = [[a.entropy for _, a in row if a.entropy is not None] for row in answers]
    cuts = [[a.text_cut for _, a in row if a.text_cut is not None] for row in answers]
    columns: dict[str, Any] = {
        "id": _unique([document.id or f"document-{row}" for row, document in enumerate(documents)]),
        "url": pa.array([document.url for document in documents], pa.string()),
        "text": pa.array([document.text for document in documents], pa.large_string()),
        "source": pa.array([document.source for document in documents], pa.string()),
        "language": pa.array([document.language for document in documents], pa.string()),
        "score": pa.array(np.rint(expected).astype(np.int8)),
        "expected_score": pa.array(expected),
        "standard_error": pa.array((together.error * factor).round(4), from_pandas=True),  # NaN: unknown
        "scores": pa.array([scaled([a.expected for _, a in row]).tolist() for row in answers]),
        "judges": pa.array([[name for name, _ in row] for row in answers], pa.list_(pa.string())),
        "attributes": pa.array(
            [[{name: scaled(v).item() for name, v in (a.attributes or {}).items()} for _, a in row] for row in answers]
        ),
        "entropy": pa.array([float(np.mean(part)) if part else None for part in entropies], pa.float64()),
        "text_cut": pa.array([min(part, default=None) for part in cuts], pa.int64()),
        "sampling": ["random"] * len(documents),
        "stratum": pa.array([document.stratum for document in documents], pa.string()),
        "inclusion_probability": probability,
        "natural_weight": 1 / probability,
    }
    if not attributes:
        del columns["attributes"]
    for name, values in attributes.items():
        columns[name] = scaled(values)
    for name in dict.fromkeys(key for document in documents for key in document.columns):
        if name not in columns:
            columns[name] = _column([document.columns.get(name) for document in documents])
    return pa.table(columns)


def _unique(names: list[str]) -> list[str]:
    """Ids as they are; one that comes again, with another text, gets a suffix."""
    seen: Counter[str] = Counter()
    taken = set(names)
    found = []
    for name in names:
        seen[name] += 1
        fresh = name
        while seen[name] > 1 and fresh in taken:
            fresh = f"{name}#{seen[name]}"
            seen[name] += fresh in taken
        taken.add(fresh)
        found.append(fresh)
    return found


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # mixed types
        return pa.array([None if value is None else json.dumps(value, ensure_ascii=False) for value in values])


def _card(
    config: AnnotateConfig,
    rubric: Rubric,
    judges: Sequence[Sequence[str]],
    table: pa.Table,
    left_out: int,
    notes: Sequence[str],
) -> str:
    header = {
        "task_categories": ["text-classification"],
        "tags": ["finesieve", "llm-as-a-judge", "quality"],
        "configs": [{"config_name": "default", "data_files": FILE}],
    }
    counts = Counter(table["score"].to_pylist())
    several = len(judges) > 1
    cut = table.num_rows - table["text_cut"].null_count
    attributes = ", ".join(f"`{part.name}`" for part in rubric.attributes)
    points = [
        "`expected_score`: consensus of the judges: mean after severity correction, `standard_error` its uncertainty."
        if several
        else "`expected_score`: mean of the judge's distribution or answers, `standard_error` where it was asked more "
        "than once.",
        "`score`: the same as a whole number.",
        "`scores`, `judges`: every answer.",
        "`entropy`: of the judge's score distribution, in nats; empty where it only wrote a number.",
        f"`text_cut`: {cut:,} pages were too long for a judge, which saw so many characters; `text` is whole.",
    ]
    if attributes:
        points.append(
            f"{attributes}: the consensus on each attribute, a target of its own for `finesieve train`; "
            "`expected_score` is their weighted mean, and `attributes` has those of every answer."
        )
    return make_card(
        f"# Web pages judged by {cell(', '.join(model or name for name, model, *_ in judges))}",
        f"{table.num_rows:,} pages with scores from 0 to {min(rubric.scale.max, HIGHEST)}, given by language models "
        f"with the rubric `{rubric.name}` version {cell(rubric.version)} (sha256 `{rubric.digest}`)"
        + (f", told that the pages are in {cell(rubric.language)}" if rubric.language else "")
        + ". They are a model's opinions, not facts about the pages"
        + (f"; {left_out:,} pages drawn have no readable answer and are left out" if left_out else "")
        + ".",
        card_table(
            ("judge", "model", "mode", "temperature", "rejected answers", "severity")[: 5 + several],
            [[cell(text) for text in row] for row in judges],
            right=(3, 5),
        ),
        bullets(*(f"{cell(note[0].upper() + note[1:])}." for note in notes)),
        card_table(
            ("score", "pages", "share"),
            [(str(score), f"{counts[score]:,}", f"{counts[score] / table.num_rows:.1%}") for score in sorted(counts)],
            right=range(3),
        ),
        f"Drawn {cell(config.sample.design)} with seed {config.sample.seed}. `inclusion_probability` is the chance a "
        "page had of being drawn, `natural_weight` its inverse: weighted by it, means estimate those of the input.",
        bullets(*points),
        "The texts keep the licences of their sources.",
        header=header,
    )
