"""From annotations to a model folder, with metrics no page that trained has touched.

Metrics come from nested cross-validation, repeated: in each training part an inner cross-validation chooses the
candidate (highest average precision of the kept class) and fits the calibration, and the test part is scored once by
the result. The final model repeats the same procedure on all labels, so the metrics estimate that procedure.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from filters.arrays import Float32, Int64
from filters.errors import ConfigError
from filters.model import ConformalTable, QualityModel
from filters.model.folder import Manifest, Rubric, TrainingData, check_free
from filters.model.reliability import Reliability
from filters.model.trained_on import TrainedOn
from filters.statistics.bootstrap import CONFIDENCE, Estimate
from filters.train.agreement import check_agreement
from filters.train.annotations import Annotations, read_annotations
from filters.train.blas import one_blas_thread
from filters.train.calibration import METHOD
from filters.train.card import write_card
from filters.train.config import TrainConfig
from filters.train.conformal import REPORTED, measure_coverage
from filters.train.distill import read_raw_texts
from filters.train.evaluation import compare, estimates
from filters.train.procedure import Procedure, score_texts


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind.

    Attributes:
        path: the model folder.
        model: the model as written.
        sample: cross-validated metrics, every row counting once.
        natural: the same under natural_weight; None where the annotations have none.
        compared: with distillation: the same as `sample` for "undistilled", the classifier on labels alone, and for
            "teacher"; otherwise empty.
        held_out: float32[n] for each repetition: calibrated scores of every row by models that have not seen it.
        seconds: how long it took.
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
    start = time.monotonic()
    output = Path(config.output)
    check_free(output, overwrite)
    rubric = _rubric(config)
    labels = read_annotations(config.annotations, config.keep.min_score)
    for note in labels.notes:
        echo(f"note: {note}")
    groups = len(np.unique(labels.groups))
    raw_texts: list[str] = []
    notes = labels.notes + check_agreement(
        config.annotations,
        labels,
        config.agreement,
        config.keep.min_score,
        resamples=config.validation.resamples,
        random_state=config.random_state,
        echo=echo,
    )
    if config.distill is not None:
        raw_texts, note = read_raw_texts(config.distill, labels, config.random_state)
        echo(f"note: {note}")
        notes += (note,)
    procedure = Procedure(config, labels, raw_texts)
    echo(f"{labels.name}: {len(labels)} texts in {groups} groups, {np.mean(procedure.kept):.1%} to keep")
    predictions = _out_of_fold(procedure, echo)
    measured = {
        name: estimates(
            scores,
            labels,
            config.keep.min_score,
            resamples=config.validation.resamples,
            random_state=config.random_state,
        )
        for name, scores in predictions.items()
    }
    sample, natural = measured.pop("model")
    compared = {name: part for name, (part, _) in measured.items()}
    for name in ("f1", "best_f1", "pr_auc", "spearman"):
        echo(f"cross-validated {name}: {sample[name]}")
        for other, part in compared.items():
            echo(f"  {other}: {part[name]}")
    gains = {}
    if "undistilled" in predictions:
        cut = config.keep.min_score
        gains = compare(
            predictions["model"],
            predictions["undistilled"],
            labels,
            (cut, cut),
            resamples=config.validation.resamples,
            random_state=config.random_state,
        )
        for name in ("best_f1", "pr_auc", "spearman"):
            echo(f"distillation gains in {name}: {gains[name].difference}")
    held_out = predictions["model"][0]
    coverage = measure_coverage(
        held_out,
        labels,
        config.keep.min_score,
        REPORTED,
        resamples=config.validation.resamples,
        random_state=config.random_state,
    )
    for row in coverage:
        echo(f"bands at error rate {row.alpha:g}: coverage {row.coverage}, undecided {row.undecided:.1%}")
    fitted = procedure.fit(np.arange(len(labels)), config.random_state)
    echo(f"final model: {fitted.setting}")
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
        "conformal": [row.model_dump(exclude={"bins"}) for row in coverage],
        "reliability": _reliability(predictions["model"], labels, config.keep.min_score).to_json(),
    }
    for other, part in compared.items():
        metrics[other] = {name: estimate.model_dump() for name, estimate in part.items()}
    if gains:
        metrics["distillation"] = {name: gain.model_dump() for name, gain in gains.items()}
    scorer = fitted.scorer
    manifest = Manifest(
        name=config.name,
        kind=config.classifier.kind,
        language=config.language,
        rubric=rubric,
        training=TrainingData(
            name=labels.name, sha256=labels.sha256, rows=len(labels), target=labels.target, notes=notes
        ),
        window=config.window,
        windows=config.windows,
        normalisation=scorer.normalisation,
        features=scorer.features(),
        keep=config.keep,
        calibration=METHOD,
        conformal=ConformalTable.fit(held_out, labels.expected),
        metrics=metrics,
        settings=config.model_dump(
            mode="json", exclude={"annotations": True, "output": True, "rubric": True, "distill": {"texts"}}
        )
        | {"chosen": fitted.setting},
    )
    trained_on = TrainedOn.of(labels.texts, manifest.reads)
    model = QualityModel(scorer, fitted.calibration, manifest, digest="", trained_on=trained_on)
    written = model.save(output, card=write_card(manifest), overwrite=overwrite)
    return TrainResult(output, written, sample, natural, compared, predictions["model"], time.monotonic() - start)


def _reliability(scores: Sequence[Float32], labels: Annotations, min_score: float) -> Reliability:
    """Of the natural mix, which runs are made of, where the labels say how to get there; else of the labels."""
    weights = labels.natural_weight
    if weights is None:
        return Reliability.fit(scores, labels.expected, min_score)
    rows = labels.random
    return Reliability.fit([each[rows] for each in scores], labels.expected[rows], min_score, weights[rows])


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


@dataclass(frozen=True)
class HeldOut:
    """One fold of a cross-validation: rows kept back, and the model that has not seen them.

    Attributes:
        repeat: number of the repetition, from 0.
        rows: int64[m], rows of the annotations that were kept back.
        score: texts -> float32[n], calibrated scores by a model fitted on the other rows.
        setting: which candidate the fold chose.
        others: with distillation, by name: "undistilled" and "teacher", fitted on the same rows.
    """

    repeat: int
    rows: Int64
    score: Callable[[Sequence[str]], Float32]
    setting: str
    others: dict[str, Callable[[Sequence[str]], Float32]] = field(default_factory=dict)


def cross_validate(
    config: TrainConfig, labels: Annotations, procedure: Procedure | None = None, with_others: bool = False
) -> Iterator[HeldOut]:
    """Nested cross-validation, fold by fold: in each repetition every row is kept back once.

    Args:
        config: what to train.
        labels: what to train on.
        procedure: of this config and these labels, where there is one already.
        with_others: with distillation: fit the classifier on labels alone too, and the teacher.

    Raises:
        AnnotationsError: too few groups, or too few pages on one side of the keep rule.
    """
    if procedure is None:
        raw_texts = read_raw_texts(config.distill, labels, config.random_state)[0] if config.distill else []
        procedure = Procedure(config, labels, raw_texts)
    for repeat in range(config.validation.repeats):
        folds = procedure.folds(np.arange(len(labels)), config.validation.folds, config.random_state + repeat)
        for number, (training, test) in enumerate(folds):
            seed = config.random_state + 1000 * (repeat + 1) + number
            fitted = procedure.fit(training, seed)
            others: dict[str, Callable[[Sequence[str]], Float32]] = {}
            if with_others and config.distill is not None:
                others["undistilled"] = procedure.fit(training, seed, distill=False).score
                # Uncalibrated: its scale is used at no threshold, and its ranking is what it teaches.
                others["teacher"] = partial(score_texts, config, procedure.teacher(training, seed))
            yield HeldOut(repeat, test, fitted.score, fitted.setting, others)


def _out_of_fold(procedure: Procedure, echo: Callable[[str], None]) -> dict[str, list[Float32]]:
    """Scores of every row by models that have not seen it: float32[n] for each repetition, by name.

    "model" is the classifier; the others are those of `HeldOut.others`.
    """
    config, labels = procedure.config, procedure.labels
    repeats = config.validation.repeats
    with_others = config.distill is not None and config.distill.compare
    predictions: dict[str, list[Float32]] = {}
    for number, part in enumerate(cross_validate(config, labels, procedure, with_others)):
        texts = [labels.texts[row] for row in part.rows]
        for name, score in {"model": part.score, **part.others}.items():
            scores = predictions.setdefault(name, [np.zeros(len(labels), dtype=np.float32) for _ in range(repeats)])
            scores[part.repeat][part.rows] = score(texts)
        fold = number % config.validation.folds + 1
        echo(f"repeat {part.repeat + 1} of {repeats}, fold {fold} of {config.validation.folds}: {part.setting}")
    return predictions
