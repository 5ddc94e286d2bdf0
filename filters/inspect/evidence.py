"""Evidence on the classifier of a run: an evaluation report, or labels of documents that are in the run.

Labels are joined with the run's own scores by id or URL. Everything is counted per page; the page says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from filters.arrays import Float64
from filters.errors import AnnotationsError, InputError, ModelError
from filters.evaluate.report import Report
from filters.model.folder import CARD, MANIFEST, Manifest, read_manifest
from filters.model.trained_on import FILE, TrainedOn
from filters.models import EMBEDDED, embedded_models
from filters.read.labels import read_labels
from filters.scores.histogram import BINS, EDGES, HIGH

if TYPE_CHECKING:
    from filters.model.trained_on import TrainedOn
    from filters.scores.finished_run import Run

STEP = 0.25
"""Width of a bin of model scores."""
LEAST = 5
"""Pages in a bin of the calibration plot at least."""
MAX_REPORT_BYTES = 64 * 2**20


def read_evaluation(path: Path) -> Report:
    """Read what `finesieve evaluate --json` printed.

    Raises:
        InputError: it is not that.
    """
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise InputError(f"{path}: larger than {MAX_REPORT_BYTES:,} bytes, which no evaluation report is")
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot read the evaluation report: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path}: {key + ': ' if key else ''}{first['msg']}, so this is no evaluation report. Remedy: write one "
            f"with finesieve evaluate MODEL ANNOTATIONS --json > evaluation.json"
        ) from error


@dataclass(frozen=True)
class Labelled:
    """Labels of documents of a run.

    Attributes:
        name: of the annotations file.
        sha256: of it.
        rows: labels in it.
        target: the column that was compared with.
        seen: labels left out, for the run's model was trained on their texts; None where that is not known.
        model: float64[n], the run's scores.
        judge: float64[n], the labels.
    """

    name: str
    sha256: str
    rows: int
    target: str
    seen: int | None
    model: Float64
    judge: Float64


def labels_of(run: Run, path: Path, trained_on: TrainedOn | None = None) -> Labelled:
    """Labels of the documents of a run, joined by id or by URL, whichever finds more.

    Args:
        run: the run.
        path: a file of labels; without a column `text` it is not known which of them the model has seen.
        trained_on: what the run's model was trained on.

    Raises:
        AnnotationsError: the file cannot be read, lacks columns, or names no document of the run.
        RunError: the side files are missing or damaged.
    """
    file = read_labels(path)
    names = file.table.column_names
    target = next((name for name in ("expected_score", "score") if name in names), None)
    keys = [name for name in ("id", "url") if name in names]
    if target is None or not keys:
        raise AnnotationsError(
            f"{path}: needs the columns score (or expected_score) and id or url; it has {', '.join(file.names)}"
        )
    scores = file.numbers(target)
    finite = np.isfinite(scores)
    labels, scores = file.table.filter(pa.array(finite)), scores[finite]
    joined = {key: _join(run, labels[key].cast(pa.string()), key) for key in keys}
    rows, model = max(joined.values(), key=lambda found: len(found[0]))
    if not len(rows):
        raise AnnotationsError(
            f"{path}: none of its {labels.num_rows:,} rows is a scored document of {run.path} by {' or '.join(keys)}. "
            "Remedy: give labels of documents of this run (set input.id_key if their ids are in a column)"
        )
    seen = None
    if trained_on is not None and "text" in names:
        texts = [text or "" for text in labels["text"].take(pa.array(rows)).to_pylist()]
        known = trained_on.seen(texts)
        rows, model, seen = rows[~known], model[~known], int(known.sum())
    return Labelled(path.name, file.sha256, labels.num_rows, target, seen, model, scores[rows])


def _join(run: Run, wanted: pa.ChunkedArray, key: str) -> tuple[npt.NDArray[np.int64], Float64]:
    """(places in `wanted`, scores) of the scored documents that `wanted` names; of several with one name the first."""
    places: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
    scores: list[Float64] = [np.empty(0)]
    values = wanted.combine_chunks()
    for table in run.tables([key, "score"]):
        found = pc.index_in(table[key].cast(pa.string()), value_set=values, skip_nulls=True)
        here = pc.and_(pc.is_valid(found), pc.is_valid(table["score"]))
        if pc.any(here).as_py():
            places.append(found.filter(here).to_numpy().astype(np.int64))
            scores.append(table["score"].filter(here).to_numpy().astype(np.float64))
    every, first = np.unique(np.concatenate(places), return_index=True)
    return every, np.concatenate(scores)[first]


def curve(model: Float64, judge: Float64, min_score: float) -> list[tuple[float, float, float]]:
    """(threshold, precision, recall) of the kept class at each bin border that keeps something, ascending."""
    wanted = judge >= min_score
    model32 = model.astype(np.float32)
    points = []
    for edge in EDGES:
        kept = model32 >= edge
        if kept.any() and wanted.any():
            hits = int((kept & wanted).sum())
            points.append((float(edge), hits / int(kept.sum()), hits / int(wanted.sum())))
    return points


def at_borders(points: list[tuple[float, float, float]], source: str) -> dict[str, Any] | None:
    """Precision and recall at every bin border, from points (threshold, precision, recall) on labelled pages."""
    if not points:
        return None
    ascending = np.array(sorted(points))
    place = np.searchsorted(ascending[:, 0].astype(np.float32), EDGES)
    known = place < len(ascending)
    rows = ascending[np.minimum(place, len(ascending) - 1)]
    return {
        "kind": "measured",
        "source": source,
        "precision": [round(float(p), 4) if k else None for p, k in zip(rows[:, 1], known, strict=True)],
        "recall": [round(float(r), 4) if k else 0.0 for r, k in zip(rows[:, 2], known, strict=True)],
    }


def reliability(model: Float64, judge: Float64) -> list[dict[str, float]]:
    """Bins of `STEP` with at least `LEAST` pages: mean scores of both, and a 95 % interval of the judge's mean."""
    place = np.floor(model / STEP)
    bins = []
    for number in np.unique(place).tolist():
        inside = place == number
        rows = int(inside.sum())
        if rows >= LEAST:
            mean, error = float(judge[inside].mean()), 1.96 * float(judge[inside].std(ddof=1)) / rows**0.5
            score = float(model[inside].mean())
            bins.append({"rows": rows, "score": score, "judge": mean, "low": mean - error, "high": mean + error})
    return bins


def agreement(model: Float64, judge: Float64) -> dict[str, Any]:
    """Cells of judge's score x model's score with their pages."""
    whole = bool(np.all(judge == np.rint(judge)))
    wide = 1.0 if whole else 0.5
    across, up = np.rint(judge / wide) * wide, np.floor(np.clip(model, 0, HIGH - 1e-6) / STEP) * STEP
    cells, pages = np.unique(np.stack([across, up], axis=1), axis=0, return_counts=True)
    return {
        "cells": [[float(a), float(b), int(n)] for (a, b), n in zip(cells, pages, strict=True)],
        "judge_step": wide,
        "model_step": STEP,
        "judge_high": float(across.max()),
        "model_high": float(up.max() + STEP),
    }


def decisions(model: Float64, judge: Float64, min_score: float) -> list[tuple[float, float, float]]:
    """(lower end, pages the judge keeps, pages it drops) for each bin of `STEP` up to the last that holds a page."""
    bins = BINS // round(STEP / (HIGH / BINS))
    place = np.clip((model / STEP).astype(np.int64), 0, bins - 1)
    wanted = judge >= min_score
    keeps, drops = (np.bincount(place[side], minlength=bins) for side in (wanted, ~wanted))
    last = int(place.max()) + 1
    return [(round(k * STEP, 6), float(keeps[k]), float(drops[k])) for k in range(last)]


FIRST = ("precision", "recall", "f1", "best_f1", "pr_auc", "spearman")
"""Metrics that come first in the table."""


@dataclass(frozen=True)
class Metrics:
    """Metrics from model.json: how they were measured, names of the columns, and a row for each metric."""

    method: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ModelCard:
    """What a model says of itself.

    Attributes:
        rows: (name, value), facts for a table.
        text: README.md, or nothing.
        metrics: None where it has none.
        trained_on: sha256 of the annotations it was trained on, None where it does not say.
        texts: which texts these were, None where it does not say.
    """

    rows: tuple[tuple[str, str], ...]
    text: str
    metrics: Metrics | None
    trained_on: str | None
    texts: TrainedOn | None


def model_card(run: Run) -> ModelCard | None:
    """The card of the run's model; None where its folder is not here any more, or holds another model now."""
    name = str(run.manifest["config"]["model"])
    folder = EMBEDDED / name if name in embedded_models() else Path(name)
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest, digest = read_manifest(folder)
        text = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
        training, texts = manifest.training, None
        if training is not None and FILE in manifest.files:
            texts = TrainedOn.read(folder, training.rows, manifest.reads)
    except (ModelError, OSError, UnicodeDecodeError):
        # The run stands without its model; its digest is in the manifest, so nothing is passed over in silence.
        return None
    if digest != run.manifest["model"]["digest"]:
        return None
    return ModelCard(_facts(manifest), text, _metrics(manifest.metrics), training.sha256 if training else None, texts)


def _facts(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    facts = [
        ("kind of classifier", manifest.kind),
        ("reads", f"{manifest.windows} window of {manifest.window:,} characters"),
    ]
    if manifest.calibration is not None:
        facts.append(("calibration", manifest.calibration))
    if manifest.training is not None:
        facts.append(("trained on", f"{manifest.training.rows:,} labels in {manifest.training.name}"))
        facts.append(("annotations sha256", manifest.training.sha256))
    if manifest.rubric is not None:
        facts.append(("rubric", f"{manifest.rubric.name}, sha256 {manifest.rubric.sha256}"))
    return tuple(facts)


def _metrics(found: dict[str, Any]) -> Metrics | None:
    parts = {"sample": found.get("sample"), "natural mix": found.get("natural")}
    tables = {name: part for name, part in parts.items() if isinstance(part, dict) and part}
    if not tables:
        return None
    found_names = list(next(iter(tables.values())))
    names = [name for name in FIRST if name in found_names] + [name for name in found_names if name not in FIRST]
    rows = tuple((name.replace("_", " "), *(_estimate(part.get(name)) for part in tables.values())) for name in names)
    return Metrics(str(found.get("method", "measured in training")), tuple(tables), rows)


def _estimate(value: Any) -> str:
    """An estimate with its interval, as model.json holds it."""
    if not isinstance(value, dict) or not all(
        isinstance(value.get(key), int | float) for key in ("value", "low", "high")
    ):
        return "-"
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
