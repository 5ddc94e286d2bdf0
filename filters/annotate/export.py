"""Annotations for everybody else: a Parquet file that `finesieve train` and `datasets` read, with its card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters.annotate.config import AnnotateConfig
from filters.annotate.rubric import Rubric
from filters.annotate.run import describe_sample
from filters.annotate.store import Answer, Document, JudgeRecord, Store
from filters.cards import bullets, card_table, cell, make_card
from filters.errors import AnnotationsError
from filters.statistics.agreement import HIGHEST, LOWEST, Consensus, Panel, consensus, unlinked
from filters.storage.publish import publishing

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
    mean of its answers), on a scale from 0 to 5; standard_error of it, where several answers tell; scores and judges,
    every answer's expected score on the rubric's scale and whose it is; entropy, mean over the answers; text_cut, the
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
    together, severity, notes = _together([answers[place] for place in rated], names, rubric)
    table = _table([documents[place] for place in rated], [answers[place] for place in rated], together, rubric)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with publishing(folder / FILE) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
    left_out = len(documents) - len(rated)
    with publishing(folder / CARD) as temporary:
        temporary.write_text(_card(config, rubric, records, causes, table, left_out, severity, notes), encoding="utf-8")
    return Exported(folder / FILE, len(rated), left_out, tuple(notes))


def _together(
    answers: Sequence[Sequence[tuple[str, Answer]]], names: list[str], rubric: Rubric
) -> tuple[Consensus, dict[str, float], list[str]]:
    """The judges' consensus, from a column for each repeat of each, the severity of each, and what is odd in them."""
    repeats = {name: 1 + max((a.repeat for row in answers for n, a in row if n == name), default=-1) for name in names}
    names = [name for name in names if repeats[name]]
    first = dict(zip(names, np.cumsum([0] + [repeats[name] for name in names]).tolist(), strict=False))
    values = np.full((len(answers), sum(repeats.values())), np.nan)
    for row, said in enumerate(answers):
        for name, answer in said:
            values[row, first[name] + answer.repeat] = answer.expected
    panel = Panel(
        judges=tuple(names),
        judge=np.repeat(np.arange(len(names)), [repeats[name] for name in names]),
        score=values,
        expected=values,
        low=rubric.scale.min,
        high=rubric.scale.max,
        cut=0.0,
        groups=np.arange(len(answers)),
    )
    together = consensus(panel)
    return together, dict(zip(names, together.severity.tolist(), strict=True)), unlinked(panel)


def _table(
    documents: Sequence[Document], answers: Sequence[Sequence[tuple[str, Answer]]], together: Consensus, rubric: Rubric
) -> pa.Table:
    factor, offset = _to_five(rubric)
    expected = np.clip((together.score - offset) * factor, LOWEST, HIGHEST)
    probability = np.array([document.probability for document in documents])
    entropies = [[a.entropy for _, a in row if a.entropy is not None] for row in answers]
    columns: dict[str, Any] = {
        "id": _unique([document.id or f"document-{row}" for row, document in enumerate(documents)]),
        "url": pa.array([document.url for document in documents], pa.string()),
        "text": pa.array([document.text for document in documents], pa.large_string()),
        "source": pa.array([document.source for document in documents], pa.string()),
        "language": pa.array([document.language for document in documents], pa.string()),
        "score": pa.array(np.rint(expected).astype(np.int8)),
        "expected_score": pa.array(expected.round(4)),
        "standard_error": pa.array(
            [None if np.isnan(e) else round(e * factor, 4) for e in together.error.tolist()], pa.float64()
        ),
        "scores": pa.array([[a.expected for _, a in row] for row in answers], pa.list_(pa.float64())),
        "judges": pa.array([[name for name, _ in row] for row in answers], pa.list_(pa.string())),
        "entropy": pa.array([float(np.mean(part)) if part else None for part in entropies], pa.float64()),
        "text_cut": pa.array(
            [min((a.text_cut for _, a in row if a.text_cut is not None), default=None) for row in answers], pa.int64()
        ),
        "sampling": ["random"] * len(documents),
        "stratum": pa.array([document.stratum for document in documents], pa.string()),
        "inclusion_probability": probability,
        "natural_weight": 1 / probability,
    }
    for name in dict.fromkeys(key for document in documents for key in document.columns):
        if name not in columns:
            columns[name] = _column([document.columns.get(name) for document in documents])
    return pa.table(columns)


def _to_five(rubric: Rubric) -> tuple[float, float]:
    """(factor, offset) that bring the rubric's scale into the 0 to 5 of training; scales inside it stay as they are."""
    scale = rubric.scale
    if scale.max <= HIGHEST:
        return 1.0, 0.0
    return HIGHEST / (scale.max - scale.min), float(scale.min)


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
    judges: Sequence[JudgeRecord],
    causes: dict[str, dict[str, int]],
    table: pa.Table,
    left_out: int,
    severity: dict[str, float],
    notes: Sequence[str],
) -> str:
    header = {
        "task_categories": ["text-classification"],
        "tags": ["finesieve", "llm-as-a-judge", "quality"],
        "configs": [{"config_name": "default", "data_files": FILE}],
    }
    counts = Counter(table["score"].to_pylist())
    several = len(judges) > 1
    rows = []
    for record in judges:
        rejected = ", ".join(f"{cause} {count:,}" for cause, count in causes[record.name].items()) or "none"
        mode = "sample, for want of log-probabilities" if record.logprobs == 0 else record.settings.get("mode", "")
        cells = [record.name, record.model, mode, f"{record.settings.get('temperature', 0):g}", rejected]
        known = np.isfinite(severity.get(record.name, np.nan))
        cells += [f"{severity[record.name]:+.2f}" if known else "unknown"] if several else []
        rows.append([cell(text) for text in cells])
    cut = table.num_rows - table["text_cut"].null_count
    return make_card(
        f"# Web pages judged by {cell(', '.join(record.model or record.name for record in judges))}",
        f"{table.num_rows:,} pages with scores from 0 to {min(rubric.scale.max, HIGHEST)}, given by language models "
        f"with the rubric `{rubric.name}` version {cell(rubric.version)} (sha256 `{rubric.digest}`)"
        + (f", told that the pages are in {cell(rubric.language)}" if rubric.language else "")
        + ". They are a model's opinions, not facts about the pages"
        + (f"; {left_out:,} pages drawn have no readable answer and are left out" if left_out else "")
        + ".",
        card_table(
            ("judge", "model", "mode", "temperature", "rejected answers", "severity")[: 5 + several], rows, right=(3, 5)
        ),
        bullets(*(f"{cell(note[0].upper() + note[1:])}." for note in notes)),
        card_table(
            ("score", "pages", "share"),
            [(str(score), f"{counts[score]:,}", f"{counts[score] / table.num_rows:.1%}") for score in sorted(counts)],
            right=range(3),
        ),
        f"Drawn {cell(config.sample.design)} with seed {config.sample.seed}. `inclusion_probability` is the chance a "
        "page had of being drawn, `natural_weight` its inverse: weighted by it, means estimate those of the input.",
        bullets(
            "`expected_score`: consensus of the judges: mean after severity correction, `standard_error` its "
            "uncertainty."
            if several
            else "`expected_score`: mean of the judge's distribution or answers, `standard_error` where it was asked "
            "more than once.",
            "`score`: the same as a whole number.",
            "`scores`, `judges`: every answer"
            + (f", on the rubric's own scale {rubric.scale.min}-{rubric.scale.max}" * (rubric.scale.max > HIGHEST))
            + ".",
            "`entropy`: of the judge's score distribution, in nats; empty where it only wrote a number.",
            f"`text_cut`: {cut:,} pages were too long for a judge, which saw so many characters; `text` is whole.",
        ),
        "The texts keep the licences of their sources.",
        header=header,
    )
