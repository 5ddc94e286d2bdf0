"""From annotations to a model folder, with metrics no page that trained has touched.

Metrics come from nested cross-validation, repeated: in each training part an inner cross-validation chooses the
candidate (highest average precision of the kept class) and fits the calibration, and the test part is scored once by
the result. The final model repeats the same procedure on all labels, so the metrics estimate that procedure.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from filters.arrays import Float32
from filters.errors import ConfigError
from filters.model import ConformalTable, QualityModel
from filters.model.folder import Manifest, Rubric, TrainingData, check_free
from filters.model.kinds import Classifier, Scorer
from filters.model.reliability import Reliability
from filters.model.trained_on import TrainedOn
from filters.statistics.resampling import CONFIDENCE, Estimate, Measure
from filters.train.annotations import Annotations, read_annotations
from filters.train.calibration import METHOD
from filters.train.card import write_card
from filters.train.config import TrainConfig
from filters.train.evaluation import check_agreement, compare, estimates, measure_coverage
from filters.train.procedure import Fitted, Procedure, one_blas_thread, score_texts


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind.

    Attributes:
        sample: cross-validated metrics, every row counting once.
        natural: the same under natural_weight; None where the annotations have none.
        compared: with distillation: the same as `sample` for "undistilled", the classifier on labels alone, and for
            "teacher"; otherwise empty.
        held_out: float32[n] for each repetition: calibrated scores of every row by models that have not seen it.
    """

    path: Path
    model: QualityModel
    sample: dict[str, Estimate]
    natural: dict[str, Estimate] | None
    compared: dict[str, dict[str, Estimate]]
    held_out: list[Float32]
    seconds: float


@one_blas_thread
def train(config: TrainConfig, overwrite: bool = False, echo: Callable[[str], None] = print) -> TrainResult:
    """Train, cross-validate and calibrate a classifier, and write its model folder in one step at the end.

    Args:
        config: what to train.
        overwrite: replace a model folder that is already at `config.output`.
        echo: told what happens, line by line.

    Raises:
        AnnotationsError: the annotations cannot be trained on.
        ConfigError: the rubric cannot be read.
        ModelError: the output folder is taken.
    """
    if config.targets or config.names_labels:
        raise ConfigError(f"{config.name}: has several targets, or names. Remedy: filters.train.targets.train_each")
    start = time.monotonic()
    output = Path(config.output)
    check_free(output, overwrite)
    rubric = read_rubric(config)
    labels = read_annotations(config.annotations, config.keep.min_score, config.target)
    for note in labels.notes:
        echo(f"note: {note}")
    groups = len(np.unique(labels.groups))
    measure = Measure(config.keep.min_score, config.validation.resamples, config.random_state)
    warnings = check_agreement(config.annotations, labels, config.agreement, measure, echo)
    procedure = Procedure(config, labels)
    for note in procedure.notes:
        echo(f"note: {note}")
    notes = (*labels.notes, *warnings, *procedure.notes)
    echo(f"{labels.name}: {len(labels)} texts in {groups} groups, {np.mean(procedure.kept):.1%} to keep")
    predictions = out_of_fold(procedure, echo, compare=True)
    measured = {name: estimates(scores, labels, measure) for name, scores in predictions.items()}
    sample, natural = measured.pop("model")
    compared = {name: part for name, (part, _) in measured.items()}
    for name in ("f1", "best_f1", "pr_auc", "spearman"):
        echo(f"cross-validated {name}: {sample[name]}")
        for other, part in compared.items():
            echo(f"  {other}: {part[name]}")
    gains = {}
    if "undistilled" in predictions:
        gains = compare(predictions["model"], predictions["undistilled"], labels, measure)
        for name in ("best_f1", "pr_auc", "spearman"):
            echo(f"distillation gains in {name}: {gains[name].difference}")
    held_out = predictions["model"][0]
    coverage = measure_coverage(held_out, labels, measure)
    for row in coverage:
        echo(f"bands at error rate {row.alpha:g}: coverage {row.coverage}, undecided {row.undecided:.1%}")
    fitted = procedure.fit(np.arange(len(labels)), config.random_state)
    echo(f"final model: {fitted.setting}")
    metrics: dict[str, Any] = {
        "conformal": [row.model_dump(exclude={"bins"}) for row in coverage],
        "reliability": _reliability(predictions["model"], labels, config.keep.min_score).to_json(),
    }
    for other, part in compared.items():
        metrics[other] = {name: estimate.model_dump() for name, estimate in part.items()}
    if gains:
        metrics["distillation"] = {name: gain.model_dump() for name, gain in gains.items()}
    manifest = manifest_of(
        config,
        labels,
        notes,
        fitted,
        metrics_of(config, labels, sample, natural) | metrics,
        rubric=rubric,
        keep=config.keep,
        calibration=METHOD,
        conformal=ConformalTable.fit(held_out, labels.expected),
    )
    trained_on = TrainedOn.of(labels.texts, manifest.reads)
    model = QualityModel(fitted.scorer, fitted.calibration, manifest, digest="", trained_on=trained_on)
    written = model.save(output, card=write_card(manifest), overwrite=overwrite)
    return TrainResult(output, written, sample, natural, compared, predictions["model"], time.monotonic() - start)


def metrics_of(
    config: TrainConfig, rows: Annotations, sample: dict[str, Estimate], natural: dict[str, Estimate] | None
) -> dict[str, Any]:
    """Metrics as model.json holds them, and how they were measured."""
    return {
        "method": "nested cross-validation, grouped by host and near copy",
        **config.validation.model_dump(),
        "confidence": CONFIDENCE,
        "groups": len(np.unique(rows.groups)),
        "sample": {name: value.model_dump() for name, value in sample.items()},
        "natural": natural and {name: value.model_dump() for name, value in natural.items()},
    }


def manifest_of(
    config: TrainConfig,
    rows: Annotations,
    notes: tuple[str, ...],
    fitted: Fitted | Classifier[Scorer],
    metrics: dict[str, Any],
    **more: Any,
) -> Manifest:
    """What model.json says of a model that was trained on `rows`; `more` are other fields of `Manifest`."""
    return Manifest(
        name=config.name,
        kind=config.classifier.kind,
        language=config.language,
        languages=rows.languages,
        training=TrainingData(name=rows.name, sha256=rows.sha256, rows=len(rows), target=rows.target, notes=notes),
        window=config.window,
        windows=config.windows,
        normalisation=fitted.scorer.normalisation,
        features=fitted.scorer.features(),
        metrics=metrics,
        settings=config.model_dump(
            mode="json", exclude={"annotations": True, "output": True, "rubric": True, "distill": {"texts"}}
        )
        | {"chosen": fitted.setting},
        **more,
    )


def _reliability(scores: Sequence[Float32], labels: Annotations, min_score: float) -> Reliability:
    """The keep curve for the natural mix of runs if the labels have weights for it, otherwise for the labels."""
    weights = labels.natural_weight
    if weights is None:
        return Reliability.fit(scores, labels.expected, min_score)
    rows = labels.random
    return Reliability.fit([each[rows] for each in scores], labels.expected[rows], min_score, weights[rows])


def read_rubric(config: TrainConfig) -> Rubric | None:
    """Name and digest of the judge's rubric.

    Raises:
        ConfigError: it cannot be read.
    """
    if config.rubric is None:
        return None
    path = Path(config.rubric)
    try:
        return Rubric(name=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    except OSError as error:
        raise ConfigError(
            f"rubric: cannot read {path}: {error}. Remedy: give the judge's rubric, or leave it out"
        ) from error


def out_of_fold(
    procedure: Procedure,
    echo: Callable[[str], None] = lambda line: None,
    first: Callable[[Callable[[Sequence[str]], Float32], Sequence[str]], dict[str, Float32]] | None = None,
    *,
    compare: bool = False,
) -> dict[str, list[Float32]]:
    """Nested cross-validation: scores of every row by models that have not seen it.

    Args:
        procedure: of a config and its labels.
        echo: told of each fold and the candidate it chose.
        first: what else to score in the first repetition: called with (the fold's model, texts kept back), it returns
            float32[m] by name.
        compare: with `distill.compare`, fit the classifier on labels alone and the teacher on the same rows too.

    Returns:
        name -> float32[n] for each repetition: "model", and with distillation "undistilled" and "teacher"; what
        `first` names has one repetition.

    Raises:
        AnnotationsError: too few groups, or too few pages on one side of the keep rule.
    """
    config, labels = procedure.config, procedure.labels
    folds, repeats = config.validation.folds, config.validation.repeats
    predictions: dict[str, list[Float32]] = {}
    for repeat in range(repeats):
        parts = procedure.folds(np.arange(len(labels)), folds, config.random_state + repeat)
        for number, (training, test) in enumerate(parts):
            seed = config.random_state + 1000 * (repeat + 1) + number
            texts = [labels.texts[row] for row in test]
            fitted = procedure.fit(training, seed)
            found = {"model": fitted.score(texts)}
            if compare and config.distill is not None and config.distill.compare:
                found["undistilled"] = procedure.fit(training, seed, distill=False).score(texts)
                # Uncalibrated: its scale is used at no threshold, and its ranking is what it teaches.
                found["teacher"] = score_texts(config, procedure.teacher(training, seed), texts)
            if first is not None and repeat == 0:
                found |= first(fitted.score, texts)
            for name, scores in found.items():
                rows = predictions.setdefault(name, [])
                if len(rows) <= repeat:
                    rows.append(np.zeros(len(labels), dtype=np.float32))
                rows[repeat][test] = scores
            echo(f"repeat {repeat + 1} of {repeats}, fold {number + 1} of {folds}: {fitted.setting}")
    return predictions
