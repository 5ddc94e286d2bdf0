"""The evaluation report: one typed, documented schema, filled from a model's scores or from out-of-fold predictions.

`evaluate` measures a finished model against annotations it has not seen. For the annotations a model was trained on the
honest source is `cross_validate_report`, which repeats the training in a nested cross-validation;
`report_from_predictions` makes the same report from predictions that are already there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from filters.arrays import Float64
from filters.config.yaml_file import load_config
from filters.errors import AnnotationsError, ConfigError, ModelError
from filters.evaluate.probes import NEAR, REFERENCE, ProbeResult, measure_probes, probe_scores
from filters.evaluate.slices import MEANINGS, Facet, baseline_scores, measure_slices
from filters.model import QualityModel
from filters.statistics.agreement import Scores, score_bins
from filters.statistics.resampling import CONFIDENCE, Estimate, Measure
from filters.terminal import printable
from filters.train.annotations import MIN_LABELS, Annotations, read_annotations
from filters.train.config import TrainConfig
from filters.train.evaluation import (
    Coverage,
    Difference,
    SelfAgreement,
    compare,
    estimates,
    measure_coverage,
    self_agreement,
)

Protocol = Literal["held out", "cross-validated"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Subject(_Part):
    """The model, or the config, that was measured.

    Attributes:
        digest: sha256 of the model folder; of a cross-validated config, of the config's settings.
        window: characters that it reads of a text.
    """

    name: str
    kind: str
    digest: str
    window: int


class Source(_Part):
    """The annotations.

    Attributes:
        sha256: of the file as stored.
        groups: independent groups (host and near copies) of them.
        seen: texts of the file that were left out, because the model was trained on them or near copies of them (or the
            model it is compared with was); None: which texts it was trained on is not known.
    """

    name: str
    sha256: str
    rows: int
    groups: int
    target: str
    seen: int | None = None


class Baseline(_Part):
    """A ranking without a model; `metrics` has the names of `filters.train.evaluation.METRICS`."""

    name: str
    meaning: str
    metrics: dict[str, Estimate]


class ReliabilityBin(_Part):
    """Pages with about the same score: the model's mean score and the judge's."""

    rows: int
    score: float
    judge: Estimate


class CurvePoint(_Part):
    """A point of the precision-recall curve."""

    threshold: float
    precision: float
    recall: float


class HistogramBin(_Part):
    """Scores from `low` on, and which of those pages the judge would keep; averaged over repeated predictions."""

    low: float
    judge_keeps: float
    judge_drops: float


class Confusion(_Part):
    """Pages at the keep rule; averaged over repeated predictions."""

    kept_rightly: float
    kept_wrongly: float
    missed: float
    dropped_rightly: float


class Comparison(_Part):
    """Paired bootstrap against another model; `metrics` has the names of `COMPARED`."""

    subject: Subject
    metrics: dict[str, Difference]


class Example(_Part):
    """A page the model and the judge disagree on most, with its first characters."""

    side: Literal["kept wrongly", "missed"]
    score: float
    judge: float
    excerpt: str


class Report(_Part):
    """Agreement of one model with one annotations file: schema of `finesieve evaluate --json`.

    Attributes:
        version: of this schema; a change that breaks readers raises it.
        protocol: whether the pages were kept from the model.
        min_score: the keep rule, for scores and labels.
        resamples: of the bootstrap over groups (slices: at most `SLICE_RESAMPLES`).
        predictions: predictions averaged over (repetitions of the cross-validation).
        sample: metric -> estimate, every row counting once. The names are the keys of `METRICS`.
        natural: the same for the natural mix of the crawl; None where the file has no `natural_weight`.
        judge: the judge's second rating in the place of a model; None without second ratings.
        curve: the precision-recall curve, from high thresholds to low.
        conformal: cross-conformal bands at several error rates; empty where there are too few groups.
        probes: robustness; None where they were not run.
        probe_near: half-width of "near the threshold".
    """

    format: Literal["finesieve-evaluation"] = "finesieve-evaluation"
    version: Literal[1] = 1
    finesieve: str
    subject: Subject
    protocol: Protocol
    annotations: Source
    min_score: float
    confidence: float = CONFIDENCE
    resamples: int
    predictions: int
    random_state: int
    sample: dict[str, Estimate]
    natural: dict[str, Estimate] | None
    baselines: tuple[Baseline, ...]
    judge: SelfAgreement | None
    facets: tuple[Facet, ...]
    confusion: Confusion
    reliability: tuple[ReliabilityBin, ...]
    curve: tuple[CurvePoint, ...]
    histogram: tuple[HistogramBin, ...]
    conformal: tuple[Coverage, ...]
    probes: tuple[ProbeResult, ...] | None
    probe_reference: float = REFERENCE
    probe_near: float = NEAR
    comparison: Comparison | None
    examples: tuple[Example, ...]
    notes: tuple[str, ...]


RESAMPLES = 1000
SLICE_RESAMPLES = 300
CURVE_POINTS = 200
HISTOGRAM_BIN = 0.25
EXAMPLES = 5
EXCERPT = 160
TABLE_KNOWS = (
    "no probes: a page is scored by a table that is as if without it, its changed copy by the table as it is, so that "
    "the two scores do not compare. Remedy: probe the finished model on pages its table was not made from"
)


@dataclass(frozen=True)
class Predictions:
    """A model's scores of the annotations' n texts.

    Attributes:
        subject: the model.
        min_score: its keep rule.
        scores: float32[n] each; several from a repeated cross-validation.
        probed: probe -> float32[n], by the models of the first prediction; None: not probed.
        seen: bool[n], texts that the model was trained on, which are left out of a comparison with it; None: of none
            that is known.
    """

    subject: Subject
    min_score: float
    scores: Sequence[Scores]
    probed: Mapping[str, Scores] | None = None
    seen: npt.NDArray[np.bool_] | None = None


def run_evaluation(
    *,
    model: str | None,
    annotations: str | Path | None,
    config: str | Path | None,
    overrides: Sequence[str],
    against: str | None,
    probes: bool,
    echo: Callable[[str], None],
) -> Report:
    """What `finesieve evaluate` does: `evaluate` for names and paths, `cross_validate_report` with a config.

    Raises:
        ConfigError: a config cannot be used.
        ModelError: a model cannot be loaded.
        AnnotationsError: the annotations cannot be evaluated against.
    """
    if config is None:
        assert model is not None
        assert annotations is not None
        other = None if against is None else QualityModel.load(against)
        return evaluate(QualityModel.load(model), annotations, against=other, probes=probes)
    loaded = load_config(TrainConfig, config, overrides)
    if loaded.targets or loaded.names_labels:
        raise ConfigError(
            f"{config}: an evaluation is of one score. Remedy: give one target that is numbers; of a model "
            "of names its card says what it is worth"
        )
    if against is None:
        return cross_validate_report(loaded, probes=probes, echo=echo)
    if not against.endswith((".yaml", ".yml")):
        return cross_validate_report(loaded, against=QualityModel.load(against), probes=probes, echo=echo)
    # The other config keeps its own options and is measured on the same annotations and folds.
    rival = load_config(TrainConfig, against).model_copy(
        update={
            "annotations": loaded.annotations,
            "validation": loaded.validation,
            "random_state": loaded.random_state,
        }
    )
    return cross_validate_report(loaded, against=rival, probes=probes, echo=echo)


def evaluate(
    model: QualityModel,
    annotations: str | Path,
    *,
    against: QualityModel | None = None,
    probes: bool = True,
    resamples: int = RESAMPLES,
    random_state: int = 0,
) -> Report:
    """Measure a model, as it is, against an annotations file, at its own keep rule.

    Texts that it, or the model it is compared with, was trained on, and near copies of them, are left out.

    Args:
        model: the model.
        annotations: a Parquet, JSON lines or CSV file; see `filters.train.annotations`.
        against: another model for a paired comparison.
        probes: score changed texts as well, which takes eight times as long as the rest of the scoring.
        resamples: of the bootstrap.
        random_state: of everything random.

    Raises:
        AnnotationsError: the file cannot be evaluated against, or too little of it is new to the models.
    """
    if model.labels:
        raise ModelError(f"{model.name}: tells labels apart, and an evaluation is of scores. Remedy: see its card")
    labels = read_annotations(annotations, model.keep.min_score, _target_of(model))
    seen: npt.NDArray[np.bool_] | None = None
    notes = []
    for side in (model, *([] if against is None or against.digest == model.digest else [against])):
        known = _seen(side, labels)
        if known is None and side is not model:
            notes.append(f"which texts {side.name} was trained on is not known, so some may be among these")
        elif known is not None:
            if known.any():
                notes.append(f"{_overlap(side, known)}; they are left out of every number")
            seen = known if seen is None else seen | known
    if seen is not None:
        labels = _new(annotations, labels, seen, model.keep.min_score)
    other = None if against is None else _predictions(against, labels, probes=False)
    return report_from_predictions(
        _predictions(model, labels, probes=probes),
        labels,
        protocol="held out",
        seen=None if _seen(model, labels) is None or seen is None else int(seen.sum()),
        against=other,
        notes=notes,
        resamples=resamples,
        random_state=random_state,
    )


def cross_validate_report(
    config: TrainConfig,
    *,
    against: TrainConfig | QualityModel | None = None,
    probes: bool = True,
    echo: Callable[[str], None] = print,
) -> Report:
    """Measure what a training config makes of its annotations, by its own nested cross-validation.

    Args:
        config: the training config.
        against: a config, cross-validated on the same annotations and folds, or a finished model.
        probes: score changed texts as well, by the models of the first repetition.
        echo: told what happens, line by line.

    Raises:
        AnnotationsError: the annotations cannot be trained on.
    """
    labels = read_annotations(config.annotations, config.keep.min_score, config.target)
    notes = []
    if probes and config.classifier.kind == "static":
        probes = False
        notes.append(TABLE_KNOWS)
    other = None
    if isinstance(against, TrainConfig):
        other = _cross_validated(against, labels, echo, probes=False)
    elif against is not None:
        seen = _seen(against, labels)
        other = replace(_predictions(against, labels, probes=False), seen=seen)
        if seen is None:
            notes.append(f"which texts {against.name} was trained on is not known, so some may be among these")
        elif seen.any():
            _new(config.annotations, labels, seen, config.keep.min_score)
            notes.append(f"{_overlap(against, seen)}; they are left out of the comparison")
    return report_from_predictions(
        _cross_validated(config, labels, echo, probes=probes),
        labels,
        protocol="cross-validated",
        seen=0,
        against=other,
        notes=notes,
        resamples=config.validation.resamples,
        random_state=config.random_state,
    )


def report_from_predictions(
    predictions: Predictions,
    labels: Annotations,
    *,
    protocol: Protocol,
    seen: int | None = None,
    against: Predictions | None = None,
    notes: Sequence[str] = (),
    resamples: int = RESAMPLES,
    random_state: int = 0,
) -> Report:
    """The report of scores that are already there.

    Args:
        predictions: scores of the labelled texts, by models that have not seen them.
        labels: the judge's labels.
        protocol: how the scores came about.
        seen: texts of the file that were left out, for the model was trained on them; None: not known.
        against: scores of the same texts by another model.
        notes: put before those of `labels`.
        resamples: of the bootstrap.
        random_state: of everything random.
    """
    scores, subject = predictions.scores, predictions.subject
    measure = Measure(predictions.min_score, resamples, random_state)
    sample, natural = estimates(scores, labels, measure)
    facets = measure_slices(scores, labels, replace(measure, resamples=min(resamples, SLICE_RESAMPLES)))
    probed = predictions.probed
    comparison = None
    if against is not None:
        rows = np.arange(len(labels)) if against.seen is None else np.flatnonzero(~against.seen)
        sides = [[np.asarray(each)[rows] for each in side] for side in (scores, against.scores)]
        metrics = compare(sides[0], sides[1], labels.take(rows), measure, against.min_score)
        comparison = Comparison(subject=against.subject, metrics=metrics)
    # Over all repeated predictions together; groups stay whole across them.
    pooled = np.concatenate([np.asarray(each, dtype=np.float64) for each in scores])
    expected, groups = np.tile(labels.expected, len(scores)), np.tile(labels.groups, len(scores))
    wanted = expected >= measure.min_score
    kept = pooled.astype(np.float32) >= np.float32(measure.min_score)
    cells = (kept & wanted, kept & ~wanted, ~kept & wanted, ~kept & ~wanted)
    counts = [float(cell.sum() / len(scores)) for cell in cells]
    return Report(
        finesieve=version("finesieve"),
        subject=subject,
        protocol=protocol,
        annotations=Source(
            name=labels.name,
            sha256=labels.sha256,
            rows=len(labels),
            groups=len(np.unique(labels.groups)),
            target=labels.target,
            seen=seen,
        ),
        min_score=measure.min_score,
        resamples=resamples,
        predictions=len(scores),
        random_state=random_state,
        sample=sample,
        natural=natural,
        baselines=tuple(
            Baseline(name=name, meaning=MEANINGS[name], metrics=estimates([values], labels, measure)[0])
            for name, values in baseline_scores(labels, measure, subject.window).items()
        ),
        judge=self_agreement(labels, measure),
        facets=facets,
        confusion=Confusion(**dict(zip(Confusion.model_fields, counts, strict=True))),
        reliability=_reliability(pooled, expected, groups, measure, len(scores)),
        curve=precision_recall(pooled, wanted),
        histogram=score_histogram(pooled, wanted, len(scores)),
        conformal=measure_coverage(scores[0], labels, measure),
        probes=None if probed is None else measure_probes(scores[0], probed, labels, measure),
        comparison=comparison,
        examples=_examples(scores[0], labels, measure.min_score),
        notes=(*notes, *labels.notes, *_findings(sample, facets)),
    )


def _target_of(model: QualityModel) -> str | None:
    """The column that a model learnt, if it is another than the judge's score."""
    target = model.metadata.settings.get("target")
    return target if isinstance(target, str) else None


def _seen(model: QualityModel, labels: Annotations) -> npt.NDArray[np.bool_] | None:
    """bool[n]: texts that the model was trained on, or near copies of them; None where its folder does not say."""
    if model.trained_on is not None:
        return model.trained_on.seen(labels.texts)
    training = model.metadata.training
    if training is not None and training.sha256 == labels.sha256:
        return np.ones(len(labels), np.bool_)
    return None


def _overlap(model: QualityModel, seen: npt.NDArray[np.bool_]) -> str:
    return (
        f"{int(seen.sum()):,} of {len(seen):,} texts are among those {model.name} was trained on, or nearly copies of "
        "them"
    )


def _new(path: str | Path, labels: Annotations, seen: npt.NDArray[np.bool_], min_score: float) -> Annotations:
    """The labels of texts that were not seen in training.

    Raises:
        AnnotationsError: they are too few to measure on.
    """
    left = labels.take(np.flatnonzero(~seen))
    keep = left.expected >= min_score
    if len(left) < MIN_LABELS or keep.all() or not keep.any():
        side = "" if len(left) < MIN_LABELS else ", all on one side of the keep rule"
        raise AnnotationsError(
            f"{path}: {int(seen.sum()):,} of {len(labels):,} texts were seen in training (or nearly copies of them "
            f"were), and {len(left):,} new ones are left{side}: too few to measure on. Remedy: give pages the model "
            "was not trained on, or cross-validate its training config with finesieve evaluate --config"
        )
    return left


def _predictions(model: QualityModel, labels: Annotations, *, probes: bool) -> Predictions:
    return Predictions(
        Subject(name=model.name, kind=model.metadata.kind, digest=model.digest, window=model.window),
        model.keep.min_score,
        [model.score(labels.texts)],
        probe_scores(model.score, labels.texts) if probes else None,
    )


def _cross_validated(
    config: TrainConfig, labels: Annotations, echo: Callable[[str], None], *, probes: bool
) -> Predictions:
    from filters.train.procedure import Procedure
    from filters.train.training import out_of_fold

    procedure = Procedure(config, labels)
    found = out_of_fold(procedure, lambda line: echo(f"{config.name}: {line}"), probe_scores if probes else None)
    scores = found.pop("model")
    settings = config.model_dump_json(exclude={"annotations", "output", "rubric", "remarks"})
    digest = hashlib.sha256(settings.encode()).hexdigest()
    subject = Subject(name=config.name, kind=config.classifier.kind, digest=digest, window=config.window)
    probed = {name: values[0] for name, values in found.items()} if probes else None
    return Predictions(subject, config.keep.min_score, scores, probed)


def _findings(sample: dict[str, Estimate], facets: Sequence[Facet]) -> list[str]:
    overall = sample["spearman"].value
    topic = next((facet.within_spearman.value for facet in facets if facet.facet == "topic"), None)
    if overall is None or topic is None or topic >= overall / 2:
        return []
    return [
        f"Spearman within topics is {topic:.2f}, less than half of the overall {overall:.2f}: the model recognises "
        "topics more than it judges pages"
    ]


def _reliability(
    scores: Float64, expected: Float64, groups: npt.NDArray[np.int64], measure: Measure, repeats: int
) -> tuple[ReliabilityBin, ...]:
    place = score_bins(scores)
    bins = [place == number for number in np.unique(place)]
    judged = measure.means([expected] * len(bins), bins, groups)
    return tuple(
        ReliabilityBin(rows=int(inside.sum()) // repeats, score=float(scores[inside].mean()), judge=judge)
        for inside, judge in zip(bins, judged, strict=True)
    )


def precision_recall(scores: Float64, wanted: npt.NDArray[np.bool_]) -> tuple[CurvePoint, ...]:
    """At most `CURVE_POINTS` points of the curve of the kept class, evenly spaced in recall, from high thresholds down.

    Args:
        scores: float64[n].
        wanted: bool[n], what the judge keeps; at least one.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True])
    hits = np.cumsum(wanted[order])[ends]
    recall, precision = hits / wanted.sum(), hits / (ends + 1)
    picked = np.unique(np.searchsorted(recall, np.linspace(0, 1, CURVE_POINTS)).clip(0, len(ends) - 1))
    return tuple(
        CurvePoint(threshold=float(scores[order][ends[k]]), precision=float(precision[k]), recall=float(recall[k]))
        for k in picked
    )


def score_histogram(scores: Float64, wanted: npt.NDArray[np.bool_], repeats: int = 1) -> tuple[HistogramBin, ...]:
    """Pages by score, in bins of `HISTOGRAM_BIN` from 0 to 5, and which of them the judge would keep.

    Args:
        scores: float64[n], of all repeated predictions.
        wanted: bool[n], what the judge keeps.
        repeats: by which counts are divided.
    """
    bins = round(5 / HISTOGRAM_BIN)
    place = np.clip((scores / HISTOGRAM_BIN).astype(np.int64), 0, bins - 1)
    keeps, drops = (np.bincount(place[side], minlength=bins) / repeats for side in (wanted, ~wanted))
    return tuple(
        HistogramBin(low=round(k * HISTOGRAM_BIN, 6), judge_keeps=float(keeps[k]), judge_drops=float(drops[k]))
        for k in range(bins)
    )


def _examples(scores: Scores, labels: Annotations, min_score: float) -> tuple[Example, ...]:
    values = np.asarray(scores, dtype=np.float32)
    kept, wanted = values >= np.float32(min_score), labels.expected >= min_score
    gap = values - labels.expected
    examples = []
    sides: tuple[tuple[Literal["kept wrongly", "missed"], npt.NDArray[np.bool_], Float64], ...] = (
        ("kept wrongly", kept & ~wanted, -gap),
        ("missed", ~kept & wanted, gap),
    )
    for side, chosen, rank in sides:
        rows = np.flatnonzero(chosen)
        for row in rows[np.argsort(rank[rows], kind="stable")][:EXAMPLES].tolist():
            excerpt = printable(labels.texts[row], EXCERPT)
            examples.append(
                Example(side=side, score=float(values[row]), judge=float(labels.expected[row]), excerpt=excerpt)
            )
    return tuple(examples)
