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
from filters.cards import bullets, card_table, make_card
from filters.errors import ConfigError
from filters.model import ConformalTable, QualityModel
from filters.model.folder import Manifest, Rubric, TrainingData, check_free
from filters.model.kinds.encoder import EncoderFeatures
from filters.model.reliability import Reliability
from filters.model.trained_on import TrainedOn
from filters.model.windows import MAX_WINDOWS
from filters.statistics.agreement import METRICS
from filters.statistics.bootstrap import CONFIDENCE, Estimate, Measure
from filters.train.annotations import Annotations, read_annotations
from filters.train.calibration import METHOD
from filters.train.config import TrainConfig
from filters.train.evaluation import Coverage, check_agreement, compare, estimates, measure_coverage
from filters.train.procedure import Procedure, one_blas_thread, score_texts


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
    """The keep curve for the natural mix of runs if the labels have weights for it, otherwise for the labels."""
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


def write_card(manifest: Manifest) -> str:
    """Markdown that says what the model is, what it was trained on, how it was measured and how to use it."""
    training = manifest.training
    assert training is not None, "a card is written for a trained model"
    metrics: dict[str, Any] = manifest.metrics
    parts = [part for part in (metrics["sample"], metrics["natural"]) if part]
    judge = f"an LLM judge with the rubric `{manifest.rubric.name}`" if manifest.rubric else "a judge"
    precisely = ", both as float32; a tie is kept" if manifest.keep.rounded is None else " (as float32)"
    remarks = manifest.settings.get("remarks")
    remarks = remarks if isinstance(remarks, list) else []
    return make_card(
        f"# {manifest.name}",
        f"{'An' if manifest.kind.startswith('e') else 'A'} `{manifest.kind}` classifier that predicts the score, 0 to "
        f"5, that {judge} gives a page. {_reads(manifest)}",
        *_encoders(manifest),
        "## Trained on",
        f"{training.rows} labelled texts in `{training.name}` (sha256 `{training.sha256}`), target `{training.target}`"
        + (f", language {manifest.language}." if manifest.language else "."),
        bullets(*training.notes),
        "## How it was measured",
        f"{metrics['method'].capitalize()}: {metrics['repeats']} repeats of {metrics['folds']} folds; options "
        f"and calibration were chosen inside each training part ({metrics['inner_folds']} folds). "
        f"Intervals: {metrics['confidence']:.0%} bootstrap over {metrics['groups']} groups.",
        card_table(
            ("metric", "sample", "natural mix")[: len(parts) + 1],
            [(label, *(str(Estimate.model_validate(part[name])) for part in parts)) for name, label in METRICS.items()],
        ),
        '"Sample" counts every labelled page once; "natural mix" weights them back to the mix of the crawl.'
        if metrics["natural"]
        else "The metrics hold for pages drawn as these were; on another mix of pages precision differs most.",
        "## Keep rule",
        f"Keep a page when {manifest.keep}{precisely}. "
        f"Scores are mapped to the judge's scale by {manifest.calibration} calibration on out-of-fold predictions: "
        "a score is what the judge gives such pages on average, as nearly as a map can be that also keeps, at the keep "
        "rule, the share of pages that the judge keeps.",
        *_three_way(metrics["conformal"]),
        "## What it is bad at",
        bullets(*_limits(manifest)),
        *(["## Remarks", bullets(*map(str, remarks))] if remarks else []),
    )


def _three_way(found: list[dict[str, Any]]) -> list[str]:
    rows = [Coverage.model_validate(row | {"bins": ()}) for row in found]
    if not rows:
        return []
    return [
        "## Keep, drop or undecided",
        "Round each score lies a band that misses the judge's score at most with the error rate asked for "
        "(`finesieve score --error-rate 0.1`, `model.decide(texts, 0.1)`), for pages drawn as those above. A page is "
        "decided where its whole band is on one side of the keep rule. Quantiles of residuals by score, from "
        "cross-validation; measured on hosts the quantiles have not seen:",
        card_table(
            ("error rate", "judge in the band", "keep", "undecided", "drop", "wrong among keeps", "wrong among drops"),
            [
                (
                    f"{row.alpha:g}",
                    str(row.coverage),
                    *(f"{share:.1%}" for share in (row.keep, row.undecided, row.drop)),
                    *map(str, (row.wrong_keep, row.wrong_drop)),
                )
                for row in rows
            ],
        ),
    ]


def _encoders(manifest: Manifest) -> list[str]:
    if manifest.kind != "encoder":
        return []
    about = EncoderFeatures.model_validate(manifest.features)
    points = []
    for known in (about, *about.beside):
        options = known.encoder
        layers = "its output" if options.layers == "output" else f"layers {', '.join(map(str, options.layers))}"
        points.append(f"`{options.encoder}`, {layers}: {', '.join(options.pooling)} (sha256 `{known.sha256}`)")
    return ["Its head reads the states of", bullets(*points)]


def _reads(manifest: Manifest) -> str:
    size = manifest.window
    return {
        "first": f"It reads the first {size} characters.",
        "begin-middle-end": f"It reads {size} characters each at the beginning, the middle and the end, and averages.",
        "max": f"It reads windows of {size} characters, up to {MAX_WINDOWS}; the best one counts.",
        "length-weighted": f"It reads windows of {size} characters, up to {MAX_WINDOWS}, and averages by length.",
    }[manifest.windows]


def _limits(manifest: Manifest) -> list[str]:
    metrics: dict[str, Any] = manifest.metrics
    precision, recall = (metrics["sample"][name]["value"] for name in ("precision", "recall"))
    return [
        f"At the keep rule, {1 - precision:.0%} of what it keeps the judge would drop, and it misses {1 - recall:.0%} "
        "of what the judge would keep."
        if precision is not None and recall is not None
        else "",
        "It judges vocabulary, not argument: a page that uses the words of a school subject without explaining "
        "anything can score high, and a good explanation in unusual words low."
        if manifest.kind != "encoder"
        else "",
        f"{_reads(manifest)} What it does not read does not count.",
        "Pages in another language than its training data get scores without meaning.",
    ]
