"""The schema of `finesieve evaluate --json`: what an evaluation report holds."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from filters.evaluate.probes import NEAR, REFERENCE, ProbeResult
from filters.statistics.bootstrap import CONFIDENCE, Estimate
from filters.train.agreement import SelfAgreement
from filters.train.conformal import Coverage
from filters.train.evaluation import Difference
from filters.train.slices import Facet

Protocol = Literal["held out", "cross-validated"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Subject(_Part):
    """What was measured.

    Attributes:
        name: of the model.
        kind: of the classifier.
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
        name: of the file.
        sha256: of the file as stored.
        rows: labelled texts measured on.
        groups: independent groups (host and near copies) of them.
        target: the column compared with.
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
        format: name of this schema.
        version: of this schema; a change that breaks readers raises it.
        finesieve: version of the package that measured.
        subject: what was measured.
        protocol: whether the pages were kept from the model.
        annotations: what it was measured against.
        min_score: the keep rule, for scores and labels.
        confidence: of all intervals.
        resamples: of the bootstrap over groups (slices: at most `SLICE_RESAMPLES`).
        predictions: predictions averaged over (repetitions of the cross-validation).
        random_state: of everything random.
        sample: metric -> estimate, every row counting once. The names are the keys of `METRICS`.
        natural: the same for the natural mix of the crawl; None where the file has no `natural_weight`.
        baselines: what the model must beat.
        judge: the judge's second rating in the place of a model; None without second ratings.
        facets: metrics in slices of the pages.
        confusion: counts at the keep rule.
        reliability: bins of the score, ascending.
        curve: the precision-recall curve, from high thresholds to low.
        histogram: scores by the judge's decision.
        conformal: cross-conformal bands at several error rates; empty where there are too few groups.
        probes: robustness; None where they were not run.
        probe_reference: the share of flips that `above_reference` compares with.
        probe_near: half-width of "near the threshold".
        comparison: with another model, where one was given.
        examples: the largest disagreements.
        notes: what a reader of the numbers must know.
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
