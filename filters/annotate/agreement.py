"""The agreement report: how far judges agree with themselves and each other, and what that means for their labels."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from filters.annotate.ratings import Rated, RatedBy, make_panel
from filters.annotate.store import Answer, Document
from filters.arrays import Float64, Int64
from filters.kernels.packed import PackedText
from filters.kernels.tokens import token_estimate
from filters.model.kinds import classifier_class
from filters.model.kinds.linear import LinearConfig
from filters.scores.hosts import host_names
from filters.statistics.agreement import (
    Consensus,
    LabelMetrics,
    Panel,
    among,
    between,
    consensus,
    correlation_bound,
    severities,
    unlinked,
    within,
)
from filters.statistics.resampling import (
    CONFIDENCE,
    Bootstrap,
    Estimate,
    Measure,
    connected,
    group_folds,
    group_resamples,
    interval,
    near_pairs,
)
from filters.train.procedure import one_blas_thread

RESAMPLES = 1000
MIN_SLICE = 30
"""Documents of a slice that is shown."""
MAX_VALUES = 24
"""A column of more different values is no facet."""
KEEP_SHARE = 0.3
"""Default keep rule, as a share of the rubric's scale: 1.5 on a scale of 0 to 5."""
CONSENSUS = "rating = page + judge's severity + noise; least squares, severities add up to 0"
_LENGTHS = (128, 512, 2048)

CURVE_MEASURES = ("spearman", "best_f1")
SMALLEST = 40
"""Fewest labels a point of the learning curve is trained on."""
MIN_LABELS = 100
"""Below this a learning curve would say nothing."""
_SIZES, _FOLDS, _REPEATS, _WINDOW = 6, 5, 3, 3000


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Coefficients(_Part):
    """Agreement of some ratings.

    Attributes:
        name: whose.
        documents: that have at least two ratings.
        coefficients: the names in `filters.statistics.agreement.COEFFICIENTS` -> estimate.
        bound: of a judge's repeats: the highest correlation with one of its ratings that a classifier can reach.
    """

    name: str
    documents: int
    coefficients: dict[str, Estimate]
    bound: Estimate | None = None


class RatingAgreement(_Part):
    """Agreement on the page's score, or on one attribute.

    Attributes:
        within: of each judge's repeats.
        between: of each pair of judges.
        overall: of all pairs of judges pooled; None with fewer than three judges.
    """

    within: tuple[Coefficients, ...]
    between: tuple[Coefficients, ...]
    overall: Coefficients | None


class AttributeAgreement(RatingAgreement):
    """Agreement on one attribute of the rubric; `mean` is that of the consensus."""

    name: str
    mean: Estimate


class JudgeSummary(_Part):
    """A judge and its answers.

    Attributes:
        kind: model or human.
        documents: with an answer that could be read.
        rejected: answers that could not be read, by cause.
        failed: requests without an answer, by cause.
        scores: documents by rounded mean score.
        mean: of the expected scores.
        severity: above (lenient) or below (strict) the other judges; None with one judge, and of one that shares no
            page with another.
        entropy: mean entropy of its score distributions, in nats; None where there are none.
        text_cut: documents of which it was shown a part only.
    """

    name: str
    kind: str
    model: str
    documents: int
    answers: int
    rejected: dict[str, int]
    failed: dict[str, int]
    scores: dict[int, int]
    mean: Estimate
    kept_share: Estimate
    severity: Estimate | None
    entropy: float | None
    text_cut: int


class SliceAgreement(_Part):
    """Agreement inside a part of the documents: pairs of judges pooled; with one judge, pairs of its repeats."""

    facet: str
    name: str
    documents: int
    kept_share: float
    coefficients: dict[str, Estimate]


class ConsensusSummary(_Part):
    """Severity-corrected means of the judges.

    Attributes:
        model: what was assumed.
        noise: standard deviation of one judge's rating about page and severity; None if unknown.
        source: what it was estimated from.
        error: mean standard error of a page's consensus; None if unknown.
        undecided_share: whose 95 % interval holds the keep rule; None if unknown.
    """

    model: str
    documents: int
    noise: float | None
    source: str
    error: float | None
    kept_share: Estimate
    undecided_share: float | None


class Population(_Part):
    """What the sample says of all documents it was drawn from, by inverse inclusion probabilities."""

    design: str
    size: int
    mean: Estimate
    kept_share: Estimate


class CurvePoint(_Part):
    """What a classifier trained on so many labels reaches; `measures` has the names in `CURVE_MEASURES`."""

    labels: int
    measures: dict[str, Estimate]


class LearningCurve(_Part):
    """Quality of a classifier by the number of labels it is trained on.

    Attributes:
        classifier: what was trained.
        method: how.
        points: ascending; their intervals cover the sample of pages and the draw of training labels.
    """

    classifier: str
    method: str
    points: tuple[CurvePoint, ...]


class AgreementReport(RatingAgreement):
    """Everything `finesieve annotate --report --json` prints; `within`, `between`, `overall` are of the page's score.

    Attributes:
        rubric: name, version and digest of the rubric; None for a file.
        cut: the keep rule: a score of at least this.
        scale: lowest and highest score.
        groups: independent groups (host and near copies) of the documents; what the bootstrap draws.
        attributes: agreement on each attribute of the rubric.
        humans: keep decisions of each judge against each human's.
        slices: of `overall`, `between` or `within`, whichever there is.
        population: None where inclusion probabilities are not known.
        curve: None with too few labels, or where it was not wanted.
        notes: what a reader must know.
    """

    source: str
    rubric: str | None
    cut: float
    scale: tuple[int, int]
    documents: int
    groups: int
    judges: tuple[JudgeSummary, ...]
    attributes: tuple[AttributeAgreement, ...]
    humans: tuple[Coefficients, ...]
    slices: tuple[SliceAgreement, ...]
    consensus: ConsensusSummary
    population: Population | None
    curve: LearningCurve | None
    resamples: int
    confidence: float
    notes: tuple[str, ...]


def make_report(
    rated: Rated,
    *,
    cut: float | None = None,
    curve: bool = True,
    resamples: int = RESAMPLES,
    random_state: int = 0,
    echo: Callable[[str], None] = lambda line: None,
) -> AgreementReport:
    """Measure agreement.

    Args:
        rated: what was rated.
        cut: kept is a score of at least this; None: 1.5 on a scale of 0 to 5, and in proportion on others.
        curve: train on parts of the labels to see what more would buy (about a minute for 5,000 labels).
        resamples: of the bootstrap.
        random_state: of everything random.
        echo: told what takes long.
    """
    low, high = rated.scale.min, rated.scale.max
    measure = Measure(low + KEEP_SHARE * (high - low) if cut is None else cut, resamples, random_state)
    cut, groups = measure.min_score, _groups(rated.documents)
    names = [judge.name for judge in rated.judges]
    panel = make_panel(rated.answers, names, rated.scale, cut=cut, groups=groups)
    bootstrap = Bootstrap.draw(groups, resamples, random_state)
    found, agreed = _agreement(panel, bootstrap), consensus(panel)
    strictness = severities(panel, bootstrap) if len(names) > 1 else [None]
    said: dict[str, list[Answer]] = {name: [] for name in names}
    for name, answer in itertools.chain.from_iterable(rated.answers):
        said[name].append(answer)
    attributes = []
    for name in rated.attributes:
        part = make_panel(rated.answers, names, rated.scale, attribute=name, cut=cut, groups=groups)
        score = consensus(part).score
        known = np.isfinite(score)
        (mean,) = measure.means([score[known]], [np.ones(known.sum())], groups[known])
        attributes.append(AttributeAgreement(name=name, mean=mean, **dict(_agreement(part, bootstrap))))
    labels = np.flatnonzero(np.isfinite(agreed.score))
    trained = None
    if curve and len(labels) >= MIN_LABELS:
        echo("learning curve: training on parts of the labels")
        scores = np.clip(agreed.score[labels], low, high)
        texts = [rated.documents[row].text for row in labels]
        trained = learning_curve(texts, scores, groups[labels], cut, scale=(low, high), random_state=random_state)
    notes = [*rated.notes]
    if not found.within and not found.between:
        notes.append(
            "nothing was rated twice: agreement is unknown. Ask in mode sample with `repeats: 2`, or add a judge"
        )
    again = {part.name for part in found.within}
    notes += [
        f"{judge.name} answers in mode expected: its repeats read one distribution again, and agree for that reason "
        "alone unless it reasons first"
        for judge in rated.judges
        if judge.mode == "expected" and judge.name in again
    ]
    notes += unlinked(panel)
    if curve and trained is None:
        notes.append("too few labels, hosts or kept pages for a learning curve")
    return AgreementReport(
        **dict(found),
        source=rated.source,
        rubric=rated.rubric,
        cut=cut,
        scale=(low, high),
        documents=len(panel),
        groups=int(groups.max()) + 1,
        judges=tuple(
            _summary(panel, number, judge, said[judge.name], severity, measure)
            for number, (judge, severity) in enumerate(zip(rated.judges, strictness, strict=True))
        ),
        attributes=tuple(attributes),
        humans=_humans(panel, rated.humans, bootstrap),
        slices=tuple(_slices(panel, rated, agreed.score, measure)),
        consensus=_consensus(panel, agreed, measure),
        population=_population(rated, panel, agreed.score, measure),
        curve=trained,
        resamples=resamples,
        confidence=CONFIDENCE,
        notes=tuple(notes),
    )


def _agreement(panel: Panel, bootstrap: Bootstrap) -> RatingAgreement:
    names = panel.judges
    repeats = [
        Coefficients(name=name, documents=count, coefficients=found, bound=correlation_bound(found["alpha"]))
        for number, name in enumerate(names)
        for count, found in [within(panel, number, bootstrap)]
        if count
    ]
    pairs = [
        Coefficients(name=f"{names[a]} and {names[b]}", documents=count, coefficients=found)
        for a, b in itertools.combinations(range(len(names)), 2)
        for count, found in [between(panel, a, b, bootstrap)]
        if count
    ]
    overall = None
    if len(names) > 2:
        count, found = among(panel, bootstrap)
        overall = Coefficients(name="all judges", documents=count, coefficients=found)
    return RatingAgreement(within=tuple(repeats), between=tuple(pairs), overall=overall)


def _groups(documents: Sequence[Document]) -> Int64:
    first: dict[str, int] = {}
    hosts = host_names([document.url for document in documents])
    pairs = [(first.setdefault(host, slot), slot) for slot, host in enumerate(hosts) if host]
    return connected(len(documents), pairs + near_pairs([document.text for document in documents]))


def _summary(
    panel: Panel, number: int, judge: RatedBy, answers: Sequence[Answer], severity: Estimate | None, measure: Measure
) -> JudgeSummary:
    rows = np.isfinite(panel.means[:, number])
    mean = panel.means[rows, number]
    average, kept = measure.means([mean, mean >= panel.cut], [np.ones(len(mean))] * 2, panel.groups[rows])
    whole = Counter(panel.rounded(mean).astype(int).tolist())
    entropies = [answer.entropy for answer in answers if answer.entropy is not None]
    return JudgeSummary(
        name=judge.name,
        kind=judge.kind,
        model=judge.model,
        documents=len(mean),
        answers=len(answers),
        rejected=judge.rejected,
        failed=judge.failed,
        scores={score: whole[score] for score in range(panel.low, panel.high + 1)},
        mean=average,
        kept_share=kept,
        severity=None if severity is None or severity.value is None else severity,
        entropy=float(np.mean(entropies)) if entropies else None,
        text_cut=len({answer.document for answer in answers if answer.text_cut is not None}),
    )


def _humans(panel: Panel, humans: dict[str, Float64], bootstrap: Bootstrap) -> tuple[Coefficients, ...]:
    """Keep decisions of judges against those of humans, on a scale of 0 and 1."""
    found = []
    for name, decided in humans.items():
        for number, judge in enumerate(panel.judges):
            mean = panel.means[:, number]
            columns = np.stack([np.where(np.isfinite(mean), mean >= panel.cut, np.nan), decided], axis=1)
            both = Panel((judge, name), np.arange(2), columns, columns, 0, 1, 0.5, panel.groups)
            count, coefficients = between(both, 0, 1, bootstrap)
            if count:
                found.append(Coefficients(name=f"{judge} and {name}", documents=count, coefficients=coefficients))
    return tuple(found)


def _slices(panel: Panel, rated: Rated, scores: Float64, measure: Measure) -> list[SliceAgreement]:
    found = []
    for facet, values in _facets(rated.documents).items():
        for name, size in Counter(values).most_common():
            rows = np.array([value == name for value in values])
            if size < MIN_SLICE or size == len(panel):
                continue
            part = panel.select(rows)
            bootstrap = Bootstrap.draw(part.groups, min(measure.resamples, 300), measure.random_state)
            count, coefficients = among(part, bootstrap) if len(panel.judges) > 1 else within(part, 0, bootstrap)
            if count >= MIN_SLICE:
                kept = float(np.mean(scores[rows] >= panel.cut))
                found.append(
                    SliceAgreement(facet=facet, name=name, documents=count, kept_share=kept, coefficients=coefficients)
                )
    return found


def _facets(documents: Sequence[Document]) -> dict[str, list[str]]:
    """Columns whose values cut the documents into a few parts."""
    tokens = token_estimate(PackedText.from_strings([document.text for document in documents]))
    ends = np.searchsorted(_LENGTHS, tokens, side="right")
    lengths = [f"under {_LENGTHS[0]}", *(f"{low} to {high - 1}" for low, high in itertools.pairwise(_LENGTHS))]
    lengths.append(f"{_LENGTHS[-1]} or more")
    columns: dict[str, list[Any]] = {
        "language": [document.language for document in documents],
        "source": [document.source for document in documents],
        "stratum": [document.stratum for document in documents],
        "tokens": [lengths[end] for end in ends],
    }
    for name in dict.fromkeys(name for document in documents for name in document.columns):
        columns.setdefault(name, [document.columns.get(name) for document in documents])
    facets = {}
    for name, values in columns.items():
        shown = ["" if value is None else str(value) for value in values]
        if 1 < len(set(shown) - {""}) <= MAX_VALUES:
            facets[name] = [value or "(none)" for value in shown]
    return facets


def _consensus(panel: Panel, agreed: Consensus, measure: Measure) -> ConsensusSummary:
    rows = np.isfinite(agreed.score)
    score, error = agreed.score[rows], agreed.error[rows]
    (kept,) = measure.means([score >= panel.cut], [np.ones(len(score))], panel.groups[rows])
    known = np.isfinite(agreed.noise)
    return ConsensusSummary(
        model=CONSENSUS if len(panel.judges) > 1 else "rating = page + noise; the mean of a page's repeats",
        documents=len(score),
        noise=agreed.noise if known else None,
        source=agreed.source,
        error=float(error.mean()) if known else None,
        kept_share=kept,
        undecided_share=float(np.mean(np.abs(score - panel.cut) < 1.96 * error)) if known else None,
    )


def _population(rated: Rated, panel: Panel, scores: Float64, measure: Measure) -> Population | None:
    if rated.population is None:
        return None
    rows = np.isfinite(scores)
    weights = np.array([1 / document.probability for document in rated.documents])[rows]
    mean, kept = measure.means([scores[rows], scores[rows] >= panel.cut], [weights, weights], panel.groups[rows])
    return Population(design=rated.documents[0].design, size=rated.population, mean=mean, kept_share=kept)


@one_blas_thread
def learning_curve(
    texts: Sequence[str],
    targets: Float64,
    groups: Int64,
    cut: float,
    *,
    scale: tuple[int, int] = (0, 5),
    resamples: int = 200,
    random_state: int = 0,
) -> LearningCurve | None:
    """Train the linear classifier on parts of the labels, and measure it on the others.

    Args:
        texts: n labelled texts.
        targets: float64[n], the judges' scores.
        groups: int64[n], host and near copies: never on both sides of a split.
        cut: kept is what is at least this.
        scale: lowest and highest score; scores are mapped to 0-5 for training.
        resamples: of the bootstrap over groups.
        random_state: of splits, draws and bootstrap.

    Returns:
        None with fewer than `MIN_LABELS` labels, too few groups, or labels on one side of `cut` only.
    """
    low, high = scale
    targets, cut = (targets - low) * 5 / (high - low), (cut - low) * 5 / (high - low)
    kept = targets >= cut
    if len(texts) < MIN_LABELS or len(np.unique(groups)) < 2 * _FOLDS or kept.sum() < _FOLDS or kept.all():
        return None
    largest = len(texts) * (_FOLDS - 1) // _FOLDS
    sizes = np.unique(np.geomspace(max(SMALLEST, largest // 16), largest, _SIZES).astype(int))
    # measured[resample, repeat, size, measure]; resample 0 is the sample as it is
    measured = np.full((1 + resamples, _REPEATS, len(sizes), len(CURVE_MEASURES)), np.nan)
    for repeat in range(_REPEATS):
        for place, size in enumerate(sizes.tolist()):
            scores = _out_of_fold(texts, targets, groups, kept, size, random_state + repeat)
            agreement = LabelMetrics(scores, targets, np.rint(targets).astype(np.int64), cut)
            weightings = [np.ones(len(texts)), *group_resamples(groups, resamples, random_state)]
            for number, weights in enumerate(weightings):
                found = agreement.metrics(weights)
                measured[number, repeat, place] = [found[name] for name in CURVE_MEASURES]
    rng = np.random.default_rng(random_state)
    values = measured.mean(axis=1)
    for number in range(1, 1 + resamples):
        values[number] = measured[number, rng.integers(0, _REPEATS, _REPEATS)].mean(axis=0)

    def point(labels: int, of: Float64) -> CurvePoint:
        measures = {name: interval(of[0, k], of[1:, k]) for k, name in enumerate(CURVE_MEASURES)}
        return CurvePoint(labels=labels, measures=measures)

    return LearningCurve(
        classifier="linear (ridge regression on hashed words and word pairs)",
        method=f"{_FOLDS}-fold cross-validation by host and near copy, {_REPEATS} draws of each size",
        points=tuple(point(size, values[:, place]) for place, size in enumerate(sizes.tolist())),
    )


def _out_of_fold(
    texts: Sequence[str], targets: Float64, groups: Int64, kept: npt.NDArray[np.bool_], size: int, seed: int
) -> npt.NDArray[np.float32]:
    """float32[n]: scores by classifiers that were trained on `size` labels of other groups."""
    rng = np.random.default_rng([seed, size])
    scores = np.zeros(len(texts), np.float32)
    for training, test in group_folds(groups, kept, _FOLDS, seed):
        rows = rng.choice(training, min(size, len(training)), replace=False)
        (classifier, *_) = classifier_class("linear").candidates(LinearConfig(min_df=2), _WINDOW)
        classifier.fit([texts[row] for row in rows], targets[rows], np.ones(len(rows)), seed)
        scores[test] = classifier.score([texts[row] for row in test])
    return scores
