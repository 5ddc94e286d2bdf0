"""Reads card, training data and metrics from the folder of a run's model, without loading the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filters.errors import ModelError
from filters.model.folder import CARD, MANIFEST, Manifest, read_manifest
from filters.model.trained_on import FILE, TrainedOn
from filters.models import EMBEDDED, embedded_models

if TYPE_CHECKING:
    from filters.scores.finished_run import Run


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
