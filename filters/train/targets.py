"""A model for each target of a config; models of names, such as topics, measured by nested cross-validation.

Names are told apart by multinomial logistic regression on the features of a table or an encoder. Where there are
several penalties, inner cross-validation chooses the one whose probabilities are best (log loss).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from filters.arrays import Float32, Float64, Int64
from filters.errors import AnnotationsError
from filters.model import QualityModel
from filters.model.folder import check_free
from filters.model.kinds import Classifier, Scorer, classifier_class
from filters.model.kinds.heads import probabilities
from filters.model.trained_on import TrainedOn
from filters.statistics.resampling import Estimate, estimate, group_folds, group_resamples
from filters.train.annotations import Annotations, read_annotations
from filters.train.card import LABEL_METRICS, write_label_card
from filters.train.config import TrainConfig
from filters.train.procedure import fit_texts, one_blas_thread, row_weights, score_texts
from filters.train.training import TrainResult, manifest_of, metrics_of, read_rubric, train

_BINS = 10


def train_each(config: TrainConfig, overwrite: bool = False, echo: Callable[[str], None] = print) -> list[TrainResult]:
    """Train a model for each target of a config, of scores or of names; see `filters.train.training.train`.

    Raises:
        AnnotationsError: the annotations cannot be trained on.
        ConfigError: the rubric cannot be read.
        ModelError: an output folder is taken; nothing is trained then.
    """
    for one in config.each():
        check_free(Path(one.output), overwrite)
    return [(train_names if one.names_labels else train)(one, overwrite, echo) for one in config.each()]


@one_blas_thread
def train_names(config: TrainConfig, overwrite: bool = False, echo: Callable[[str], None] = print) -> TrainResult:
    """Train, cross-validate and write a model that tells names apart; see `train_each`."""
    start = time.monotonic()
    rubric = read_rubric(config)
    labels = read_annotations(config.annotations, target=config.target, named=True)
    for note in labels.notes:
        echo(f"note: {note}")
    groups = len(np.unique(labels.groups))
    echo(f"{labels.name}: {len(labels)} texts in {groups} groups, {len(labels.names)} names in {labels.target}")
    held_out = _out_of_fold(config, labels, echo)
    sample = measure_names(held_out, labels, np.ones(len(labels)), config.validation.resamples, config.random_state)
    natural = None
    if labels.natural_weight is not None:
        weights = labels.natural_weight * labels.random
        natural = measure_names(held_out, labels, weights, config.validation.resamples, config.random_state)
    for name, words in LABEL_METRICS.items():
        echo(f"cross-validated {words}: {sample[name]}")
    classifier = _fit(config, labels, np.arange(len(labels)), config.random_state)
    echo(f"final model: {classifier.setting}")
    metrics = metrics_of(config, labels, sample, natural) | {"labels": _by_label(held_out, labels)}
    manifest = manifest_of(config, labels, labels.notes, classifier, metrics, rubric=rubric, labels=labels.names)
    trained_on = TrainedOn.of(labels.texts, manifest.reads)
    model = QualityModel(classifier.scorer, None, manifest, digest="", trained_on=trained_on)
    written = model.save(config.output, card=write_label_card(manifest), overwrite=overwrite)
    return TrainResult(Path(config.output), written, sample, natural, {}, held_out, time.monotonic() - start)


def _out_of_fold(config: TrainConfig, labels: Annotations, echo: Callable[[str], None]) -> list[Float32]:
    """float32[n, k] for each repetition: logits of every row by models that have not seen it."""
    folds, repeats = config.validation.folds, config.validation.repeats
    found = []
    for repeat in range(repeats):
        logits = np.zeros((len(labels), len(labels.names)), np.float32)
        for number, (training, test) in enumerate(_parts(config, labels, np.arange(len(labels)), folds, repeat)):
            classifier = _fit(config, labels, training, config.random_state + 1000 * (repeat + 1) + number)
            logits[test] = _logits(config, classifier, labels, test)
            echo(f"repeat {repeat + 1} of {repeats}, fold {number + 1} of {folds}: {classifier.setting}")
        found.append(logits)
    return found


def _parts(config: TrainConfig, labels: Annotations, rows: Int64, folds: int, seed: int) -> list[tuple[Int64, Int64]]:
    """(training rows, test rows) of each part, by groups; the rarest name is spread over the parts."""
    rarest = np.bincount(labels.score, minlength=len(labels.names)).argmin()
    try:
        parts = group_folds(labels.groups[rows], labels.score[rows] == rarest, folds, config.random_state + seed)
    except ValueError as error:
        raise AnnotationsError(
            f"{config.annotations}: {error}. Remedy: annotate pages of more hosts, or lower validation.folds"
        ) from error
    return [(rows[training], rows[test]) for training, test in parts]


def _fit(config: TrainConfig, labels: Annotations, rows: Int64, seed: int) -> Classifier[Scorer]:
    """Choose by inner cross-validation where there is a choice, and fit on `rows` alone."""
    candidates = classifier_class(config.classifier.kind).candidates(config.classifier, config.window)
    chosen = 0
    if len(candidates) > 1:
        losses = np.zeros(len(candidates))
        for training, test in _parts(config, labels, rows, config.validation.inner_folds, seed):
            for number, candidate in enumerate(candidates):
                _fit_rows(config, candidate, labels, training, seed)
                shares = probabilities(_logits(config, candidate, labels, test))
                losses[number] -= np.log(np.maximum(shares[np.arange(len(test)), labels.score[test]], 1e-9)).sum()
        chosen = int(losses.argmin())
    final = classifier_class(config.classifier.kind).candidates(config.classifier, config.window)[chosen]
    _fit_rows(config, final, labels, rows, seed)
    return final


def _fit_rows(config: TrainConfig, classifier: Classifier[Scorer], labels: Annotations, rows: Int64, seed: int) -> None:
    texts = [labels.texts[row] for row in rows]
    weights = row_weights(config, labels)[rows]
    fit_texts(config, classifier, texts, labels.expected[rows], weights, labels.groups[rows], seed)


def _logits(config: TrainConfig, classifier: Classifier[Scorer], labels: Annotations, rows: Int64) -> Float32:
    """float32[m, k]; names that the training rows have none of get the lowest."""
    found = score_texts(config, classifier, [labels.texts[row] for row in rows])
    absent = len(labels.names) - found.shape[1]
    return np.pad(found, ((0, 0), (0, absent)), constant_values=-100) if absent else found


def measure_names(
    logits: Sequence[Float32], labels: Annotations, weights: Float64, resamples: int, random_state: int
) -> dict[str, Estimate]:
    """The metrics of `LABEL_METRICS`, averaged over predictions, with intervals by a bootstrap over groups.

    Args:
        logits: float32[n, k] each, by models that have not seen the rows.
        labels: names of n texts.
        weights: float64[n], how much a row counts.
        resamples: of the bootstrap.
        random_state: its seed.
    """
    count = len(labels.names)
    truth = labels.score
    sides = []
    for each in logits:
        shares = probabilities(each)
        order = np.argsort(-shares, axis=1, kind="stable")
        top = shares[np.arange(len(shares)), order[:, 0]]
        sides.append((order[:, 0], (order[:, :2] == truth[:, None]).any(axis=1), top))
    commonest = int(np.bincount(truth, weights, count).argmax())
    always = np.full(len(truth), commonest)

    def measured(mass: Float64) -> list[float]:
        rows = []
        for named, among, top in sides:
            accuracy, macro = _accuracy(truth, named, mass, count)
            place = np.minimum((top * _BINS).astype(np.int64), _BINS - 1)
            right, said = (np.bincount(place, mass * part, _BINS) for part in (named == truth, top))
            rows.append([accuracy, macro, np.average(among, weights=mass), np.abs(right - said).sum() / mass.sum()])
        accuracy, macro, among, error = np.mean(rows, axis=0).tolist()
        least, least_macro = _accuracy(truth, always, mass, count)
        return [accuracy, least, macro, least_macro, among, error]

    draws = group_resamples(labels.groups, resamples, random_state)
    table = np.array([measured(weights), *(measured(weights * counts) for counts in draws if (weights * counts).any())])
    return {name: estimate(column) for name, column in zip(LABEL_METRICS, table.T, strict=True)}


def _accuracy(truth: Int64, named: Int64, mass: Float64, count: int) -> tuple[float, float]:
    """(accuracy, F1 averaged over the names that are there)."""
    table = np.bincount(truth * count + named, mass, count * count).reshape(count, count)
    f1 = _f1(table.astype(np.float64))[table.sum(axis=1) > 0]
    return float(np.trace(table) / table.sum()), float(f1.mean())


def _f1(table: npt.NDArray[np.float64]) -> Float64:
    both = table.sum(axis=0) + table.sum(axis=1)
    f1: Float64 = np.divide(2 * np.diag(table), both, out=np.zeros(len(table)), where=both > 0)
    return f1


def _by_label(logits: Sequence[Float32], labels: Annotations) -> list[dict[str, str | int | float]]:
    """Precision, recall and F1 of each name over all predictions together."""
    count = len(labels.names)
    named = [labels.score * count + each.argmax(axis=1) for each in logits]
    table = np.bincount(np.concatenate(named), minlength=count * count).reshape(count, count)
    said, there = np.maximum(table.sum(axis=0), 1), np.maximum(table.sum(axis=1), 1)
    f1 = _f1(table.astype(np.float64))
    return [
        {
            "label": name,
            "rows": int(table[k].sum()) // len(logits),
            "precision": float(table[k, k] / said[k]),
            "recall": float(table[k, k] / there[k]),
            "f1": float(f1[k]),
        }
        for k, name in enumerate(labels.names)
    ]
