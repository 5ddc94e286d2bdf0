"""From annotations to a model folder, with metrics no page that trained has touched.

Metrics come from nested cross-validation, repeated: in each training part an inner cross-validation chooses the
candidate (highest average precision of the kept class) and fits the calibration, and the test part is scored once by
the result. The final model repeats the same procedure on all labels, so the metrics estimate that procedure.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.errors import AnnotationsError, ConfigError
from filters.model import Calibration, QualityModel
from filters.model_folder import Manifest, Rubric, TrainingData, check_free
from filters.train.annotations import Annotations, read_annotations
from filters.train.calibration import fit_calibration
from filters.train.card import write_card
from filters.train.classifier import Classifier, classifier_class
from filters.train.config import TrainConfig
from filters.train.evaluation import CONFIDENCE, Agreement, Estimate, estimates
from filters.train.splits import group_folds

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind.

    Attributes:
        path: the model folder.
        model: the model as written.
        sample: cross-validated metrics, every row counting once.
        natural: the same under natural_weight; None where the annotations have none.
        seconds: how long it took.
    """

    path: Path
    model: QualityModel
    sample: dict[str, Estimate]
    natural: dict[str, Estimate] | None
    seconds: float


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
    start = time.monotonic()
    output = Path(config.output)
    check_free(output, overwrite)
    rubric = _rubric(config)
    labels = read_annotations(config.annotations, config.keep.min_score)
    for note in labels.notes:
        echo(f"note: {note}")
    groups = len(np.unique(labels.groups))
    echo(f"{labels.name}: {len(labels)} texts in {groups} groups, {np.mean(_kept(config, labels)):.1%} to keep")
    everything = np.arange(len(labels))
    predictions = _out_of_fold(config, labels, echo)
    sample, natural = estimates(
        predictions,
        labels,
        config.keep.min_score,
        resamples=config.validation.resamples,
        random_state=config.random_state,
    )
    for name in ("f1", "best_f1", "pr_auc", "spearman"):
        echo(f"cross-validated {name}: {sample[name]}")
    fitted = _fit(config, labels, everything, config.random_state)
    echo(f"final model: {fitted.classifier.setting}")
    metrics: dict[str, Any] = {
        "method": "nested cross-validation, grouped by host and near copy",
        "folds": config.validation.folds,
        "repeats": config.validation.repeats,
        "inner_folds": config.validation.inner_folds,
        "resamples": config.validation.resamples,
        "confidence": CONFIDENCE,
        "groups": groups,
        "sample": {name: estimate.model_dump() for name, estimate in sample.items()},
        "natural": natural and {name: estimate.model_dump() for name, estimate in natural.items()},
    }
    scorer = fitted.classifier.scorer
    manifest = Manifest(
        name=config.name,
        kind=config.classifier.kind,
        language=config.language,
        rubric=rubric,
        training=TrainingData(
            name=labels.name, sha256=labels.sha256, rows=len(labels), target=labels.target, notes=labels.notes
        ),
        window=config.window,
        normalisation=scorer.normalisation,
        features=scorer.features(),
        keep=config.keep,
        calibration=config.calibration,
        metrics=metrics,
        settings=config.model_dump(mode="json", exclude={"annotations", "output", "rubric"})
        | {"chosen": fitted.classifier.setting},
    )
    model = QualityModel(scorer, fitted.calibration, manifest, digest="")
    written = model.save(output, card=write_card(manifest), overwrite=overwrite)
    return TrainResult(output, written, sample, natural, time.monotonic() - start)


def _rubric(config: TrainConfig) -> Rubric | None:
    if config.rubric is None:
        return None
    path = Path(config.rubric)
    try:
        return Rubric(name=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    except OSError as error:
        raise ConfigError(
            f"rubric: cannot read {path}: {error}. Remedy: give the judge's rubric, or leave it out"
        ) from error


def _kept(config: TrainConfig, labels: Annotations) -> npt.NDArray[np.bool_]:
    return labels.expected >= config.keep.min_score


def _row_weights(config: TrainConfig, labels: Annotations) -> Float64:
    if config.weights == "uniform":
        return np.ones(len(labels))
    if labels.natural_weight is None:
        raise AnnotationsError(
            f"{config.annotations}: weights: natural needs the column 'natural_weight'. Remedy: weights: uniform"
        )
    return np.sqrt(labels.natural_weight)


@dataclass(frozen=True)
class HeldOut:
    """One fold of a cross-validation: rows kept back, and the model that has not seen them.

    Attributes:
        repeat: number of the repetition, from 0.
        rows: int64[m], rows of the annotations that were kept back.
        score: texts -> float32[n], calibrated scores by a model fitted on the other rows.
        setting: which candidate the fold chose.
    """

    repeat: int
    rows: Int64
    score: Callable[[Sequence[str]], Float32]
    setting: str


def cross_validate(config: TrainConfig, labels: Annotations) -> Iterator[HeldOut]:
    """Nested cross-validation, fold by fold: in each repetition every row is kept back once.

    Raises:
        AnnotationsError: too few groups, or too few pages on one side of the keep rule.
    """
    for repeat in range(config.validation.repeats):
        folds = _folds(config, labels, np.arange(len(labels)), config.validation.folds, config.random_state + repeat)
        for number, (training, test) in enumerate(folds):
            fitted = _fit(config, labels, training, config.random_state + 1000 * (repeat + 1) + number)
            yield HeldOut(repeat, test, fitted.score, fitted.classifier.setting)


def _out_of_fold(config: TrainConfig, labels: Annotations, echo: Callable[[str], None]) -> list[Float32]:
    """Calibrated scores of every row by models that have not seen it: float32[n] for each repetition."""
    predictions = [np.zeros(len(labels), dtype=np.float32) for _ in range(config.validation.repeats)]
    for number, part in enumerate(cross_validate(config, labels)):
        predictions[part.repeat][part.rows] = part.score([labels.texts[row] for row in part.rows])
        fold = number % config.validation.folds + 1
        echo(
            f"repeat {part.repeat + 1} of {config.validation.repeats}, fold {fold} of {config.validation.folds}: "
            f"{part.setting}"
        )
    return predictions


def _folds(config: TrainConfig, labels: Annotations, rows: Int64, folds: int, seed: int) -> list[tuple[Int64, Int64]]:
    try:
        parts = group_folds(labels.groups[rows], _kept(config, labels)[rows], folds, seed)
    except ValueError as error:
        raise AnnotationsError(
            f"{config.annotations}: {error}. Remedy: annotate pages of more hosts, or lower validation.folds"
        ) from error
    for _, test in parts:
        kept = _kept(config, labels)[rows[test]]
        if kept.all() or not kept.any():
            raise AnnotationsError(
                f"{config.annotations}: too few pages on one side of the keep rule to have some in each of {folds} "
                "parts. Remedy: annotate more pages, or lower validation.folds and validation.inner_folds"
            )
    return [(rows[training], rows[test]) for training, test in parts]


@dataclass(frozen=True)
class _Fitted:
    classifier: Classifier
    calibration: Calibration

    def score(self, texts: Sequence[str]) -> Float32:
        """float32[n]: calibrated scores."""
        return self.calibration(self.classifier.score(texts))


def _fit(config: TrainConfig, labels: Annotations, rows: Int64, seed: int) -> _Fitted:
    """Choose a candidate, calibrate it on out-of-fold scores and fit it on `rows`, without a look at other rows."""
    kind = classifier_class(config.classifier.kind)
    weights = _row_weights(config, labels)
    parts = _folds(config, labels, rows, config.validation.inner_folds, seed)
    raw = np.zeros((len(kind.candidates(config.classifier, config.window)), len(labels)))
    for training, test in parts:
        for number, candidate in enumerate(kind.candidates(config.classifier, config.window)):
            _fit_rows(candidate, labels, training, weights, seed)
            raw[number, test] = candidate.score([labels.texts[row] for row in test])
    outcomes = [
        Agreement(scores[rows], labels.expected[rows], labels.score[rows], config.keep.min_score).metrics(weights[rows])
        for scores in raw
    ]
    best = int(np.argmax([outcome["pr_auc"] for outcome in outcomes]))
    final = kind.candidates(config.classifier, config.window)[best]
    try:
        calibration = fit_calibration(config.calibration, raw[best, rows], labels.expected[rows], weights[rows])
    except ValueError as error:
        raise AnnotationsError(
            f"{config.annotations}: {error}. Remedy: annotate more pages, or lower classifier.min_df or min_count"
        ) from error
    _fit_rows(final, labels, rows, weights, seed)
    return _Fitted(final, calibration)


def _fit_rows(classifier: Classifier, labels: Annotations, rows: Int64, weights: Float64, seed: int) -> None:
    texts: Sequence[str] = [labels.texts[row] for row in rows]
    classifier.fit(texts, labels.expected[rows], weights[rows], seed)
