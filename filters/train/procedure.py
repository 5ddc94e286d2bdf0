"""The whole way from labelled rows to a calibrated classifier: what cross-validation repeats on each training part.

Choose a candidate by inner cross-validation, calibrate it on the out-of-fold scores, fit it on all rows. With
distillation a teacher is fitted first, to the same rows only; with an ensemble each member goes this way.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np

from filters.arrays import Float32, Float64, Int64
from filters.errors import AnnotationsError
from filters.kernels.packed import PackedText
from filters.model import Calibration, QualityModel
from filters.model.ensemble import Combination, EnsembleFeatures, EnsembleScorer, member_names
from filters.model.folder import KeepRule, Manifest
from filters.model.kinds import Classifier, Scorer, classifier_class
from filters.model.windows import pool, split
from filters.statistics.agreement import HIGHEST, LabelMetrics
from filters.statistics.resampling import group_folds
from filters.train.annotations import Annotations, read_raw_texts
from filters.train.calibration import METHOD, fit_calibration
from filters.train.config import DistillConfig, EnsembleConfig, SingleConfig, TrainConfig

P = ParamSpec("P")
T = TypeVar("T")


def one_blas_thread(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, during whose calls every BLAS library of this process uses one thread.

    Sums in another order, on more threads, would make another model of the same labels.
    """

    @functools.wraps(function)
    def pinned(*args: P.args, **kwargs: P.kwargs) -> T:
        import scipy.linalg  # noqa: F401  # its BLAS comes with it; one loaded later would not be pinned
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"):
            return function(*args, **kwargs)

    return pinned


@dataclass(frozen=True)
class Fitted(ABC):
    """A classifier that went all the way.

    Attributes:
        calibration: maps raw scores to the judge's scale.
        out_of_fold: float64[n], raw scores of the rows it was fitted on, by candidates that had not seen them.
        config: how it was fitted.
    """

    calibration: Calibration
    out_of_fold: Float64
    config: TrainConfig

    @property
    @abstractmethod
    def setting(self) -> str:
        """What inner cross-validation chose."""

    @property
    @abstractmethod
    def scorer(self) -> Scorer:
        """What the model folder holds."""

    @abstractmethod
    def raw(self, texts: Sequence[str]) -> Float32:
        """float32[n]: raw scores."""

    def score(self, texts: Sequence[str]) -> Float32:
        """float32[n]: calibrated scores."""
        return self.calibration(self.raw(texts))


@dataclass(frozen=True)
class Single(Fitted):
    """A classifier with its calibration."""

    classifier: Classifier[Scorer]

    @property
    def setting(self) -> str:
        """What inner cross-validation chose."""
        return self.classifier.setting

    @property
    def scorer(self) -> Scorer:
        """What the model folder holds."""
        return self.classifier.scorer

    def raw(self, texts: Sequence[str]) -> Float32:
        """float32[n]: raw scores."""
        return score_texts(self.config, self.classifier, texts)


@dataclass(frozen=True)
class Ensemble(Fitted):
    """Several of them and the rule that joins them."""

    members: tuple[Single, ...]
    combination: Combination

    @property
    def setting(self) -> str:
        """What inner cross-validation chose, member by member."""
        return "; ".join(member.setting for member in self.members)

    @property
    def scorer(self) -> Scorer:
        """What the model folder holds."""
        assert isinstance(self.config.classifier, EnsembleConfig)
        chosen = self.config.classifier
        names = member_names([member.kind for member in chosen.members])
        models = []
        for name, config, member in zip(names, chosen.members, self.members, strict=True):
            scorer = member.scorer
            manifest = Manifest(
                name=f"{self.config.name} {name}",
                kind=config.kind,
                language=self.config.language,
                window=self.config.window,
                windows=self.config.windows,
                normalisation=scorer.normalisation,
                features=scorer.features(),
                keep=KeepRule(min_score=self.config.keep.min_score),
                calibration=METHOD,
            )
            models.append(QualityModel(scorer, member.calibration, manifest, ""))
        options = EnsembleFeatures(members=names, buckets=chosen.buckets)
        return EnsembleScorer(options, tuple(models), self.combination)

    def raw(self, texts: Sequence[str]) -> Float32:
        """float32[n]: raw scores."""
        return self.combination(np.stack([member.score(texts) for member in self.members]))


def score_texts(config: TrainConfig, classifier: Classifier[Scorer], texts: Sequence[str]) -> Float32:
    """float32[n]: raw scores of whole texts, window by window."""
    if config.windows == "first":
        return classifier.score(texts)
    windows = split(PackedText.from_strings(texts), config.windows, config.window)
    return pool(windows, classifier.score(_strings(windows.packed)), config.windows)


def _strings(packed: PackedText) -> list[str]:
    return [text.decode("utf-8", "replace") for text in packed]


def row_weights(config: TrainConfig, labels: Annotations) -> Float64:
    """float64[n]: how much each row counts in training.

    Raises:
        AnnotationsError: `weights: natural` without the column.
    """
    if config.weights == "uniform":
        return np.ones(len(labels))
    if labels.natural_weight is None:
        raise AnnotationsError(
            f"{config.annotations}: weights: natural needs the column 'natural_weight'. Remedy: weights: uniform"
        )
    return np.sqrt(labels.natural_weight)


def fit_texts(
    config: TrainConfig,
    classifier: Classifier[Scorer],
    texts: list[str],
    targets: Float64,
    weights: Float64,
    groups: Int64,
    seed: int,
) -> None:
    """Fit to whole texts, window by window: the windows of a text together weigh as much as the text."""
    if config.windows != "first":
        windows = split(PackedText.from_strings(texts), config.windows, config.window)
        texts = _strings(windows.packed)
        shares = 1 / np.bincount(windows.document)
        targets, weights = targets[windows.document], (weights * shares)[windows.document]
        groups = groups[windows.document]
    classifier.fit(texts, targets, weights, seed, groups)


class Procedure:
    """Fits by a training config.

    Args:
        config: what to fit, and how.
        labels: rows to fit on.

    Attributes:
        raw_texts: for distillation: texts without labels.
        notes: what was done to choose them.

    Raises:
        AnnotationsError: `weights: natural` without the column; texts for distillation cannot be read.
    """

    def __init__(self, config: TrainConfig, labels: Annotations) -> None:
        self.config = config
        self.labels = labels
        self.raw_texts: list[str] = []
        self.notes: tuple[str, ...] = ()
        if config.distill is not None:
            self.raw_texts, note = read_raw_texts(config.distill, labels, config.random_state)
            self.notes = (note,)
        self.kept = labels.expected >= config.keep.min_score
        self.weights = row_weights(config, labels)
        self._taught: dict[tuple[bytes, int], Float64] = {}

    def folds(self, rows: Int64, folds: int, seed: int) -> list[tuple[Int64, Int64]]:
        """(training rows, test rows) of each part, grouped, with rows on both sides of the keep rule in every test.

        Raises:
            AnnotationsError: too few groups or kept pages.
        """
        try:
            parts = group_folds(self.labels.groups[rows], self.kept[rows], folds, seed)
        except ValueError as error:
            raise AnnotationsError(
                f"{self.config.annotations}: {error}. Remedy: annotate pages of more hosts, or lower validation.folds"
            ) from error
        for _, test in parts:
            kept = self.kept[rows[test]]
            if kept.all() or not kept.any():
                raise AnnotationsError(
                    f"{self.config.annotations}: too few pages on one side of the keep rule to have some in each of "
                    f"{folds} parts. Remedy: annotate more pages, or lower validation.folds and validation.inner_folds"
                )
        return [(rows[training], rows[test]) for training, test in parts]

    @one_blas_thread
    def fit(self, rows: Int64, seed: int, distill: bool = True) -> Fitted:
        """Choose, calibrate and fit on `rows`, without a look at other rows.

        Args:
            rows: int64[k], numbers of labelled rows.
            seed: of everything random.
            distill: False: leave distillation out, for comparison.

        Raises:
            AnnotationsError: too few rows, or a classifier that learnt nothing.
        """
        teaching = self.config.distill if distill else None
        chosen = self.config.classifier
        if not isinstance(chosen, EnsembleConfig):
            return self._single(chosen, rows, seed, teaching)
        members = tuple(self._single(member, rows, seed, teaching) for member in chosen.members)
        scores = np.stack([member.calibration(member.out_of_fold) for member in members])
        combination = Combination.fit(chosen.buckets, scores.astype(np.float64))
        out_of_fold = combination(scores).astype(np.float64)
        calibration = self._calibrate(out_of_fold, rows)
        return Ensemble(calibration, out_of_fold, self.config, members, combination)

    def _single(self, chosen: SingleConfig, rows: Int64, seed: int, distill: DistillConfig | None) -> Single:
        parts = self.folds(rows, self.config.validation.inner_folds, seed)
        raw = np.zeros((len(self._candidates(chosen)), len(self.labels)))
        for training, test in parts:
            for number, candidate in enumerate(self._candidates(chosen)):
                self._fit_rows(candidate, training, seed, distill)
                raw[number, test] = score_texts(self.config, candidate, [self.labels.texts[row] for row in test])
        outcomes = [
            LabelMetrics(
                scores[rows], self.labels.expected[rows], self.labels.score[rows], self.config.keep.min_score
            ).metrics(self.weights[rows])
            for scores in raw
        ]
        best = int(np.argmax([outcome["pr_auc"] for outcome in outcomes]))
        calibration = self._calibrate(raw[best, rows], rows)
        final = self._candidates(chosen)[best]
        self._fit_rows(final, rows, seed, distill)
        return Single(calibration, raw[best, rows], self.config, final)

    def _candidates(self, chosen: SingleConfig) -> Sequence[Classifier[Scorer]]:
        return classifier_class(chosen.kind).candidates(chosen, self.config.window)

    def _calibrate(self, raw: Float64, rows: Int64) -> Calibration:
        try:
            return fit_calibration(
                raw,
                self.labels.expected[rows],
                self.weights[rows],
                self.config.keep.min_score,
                HIGHEST if self.config.target is None else float(np.ceil(self.labels.expected.max())),
            )
        except ValueError as error:
            raise AnnotationsError(
                f"{self.config.annotations}: {error}. Remedy: annotate more pages, or lower classifier.min_df or "
                "min_count"
            ) from error

    def _fit_rows(self, classifier: Classifier[Scorer], rows: Int64, seed: int, distill: DistillConfig | None) -> None:
        texts = [self.labels.texts[row] for row in rows]
        targets, weights, groups = self.labels.expected[rows], self._balanced(rows), self.labels.groups[rows]
        if distill is not None:
            taught = self._teach(rows, seed)
            texts += self.raw_texts
            targets = np.r_[targets, taught]
            weights = np.r_[weights, np.full(len(taught), distill.weight * weights.mean())]
            groups = np.r_[groups, self.labels.groups.max() + 1 + np.arange(len(taught))]
        fit_texts(self.config, classifier, texts, targets, weights, groups, seed)

    def _balanced(self, rows: Int64) -> Float64:
        weights, kept = self.weights[rows], self.kept[rows]
        if self.config.balance == "none" or not kept.any() or kept.all():
            return weights
        factor = float(weights[~kept].sum() / weights[kept].sum())
        return np.where(kept, weights * (factor if self.config.balance == "full" else factor**0.5), weights)

    def _teach(self, rows: Int64, seed: int) -> Float64:
        """The scores of the raw texts by a teacher fitted to `rows` only."""
        key = (rows.tobytes(), seed)
        if key not in self._taught:
            if len(self._taught) > 64:
                self._taught.clear()
            teacher = self.teacher(rows, seed)
            taught = np.clip(score_texts(self.config, teacher, self.raw_texts), 0, 5).astype(np.float64)
            self._taught[key] = taught
        return self._taught[key]

    @one_blas_thread
    def teacher(self, rows: Int64, seed: int) -> Classifier[Scorer]:
        """The teacher fitted to `rows`, by the first of its candidates: choosing would cost a fit for every fold."""
        assert self.config.distill is not None
        (candidate, *_) = self._candidates(self.config.distill.teacher)
        texts = [self.labels.texts[row] for row in rows]
        groups = self.labels.groups[rows]
        fit_texts(self.config, candidate, texts, self.labels.expected[rows], self._balanced(rows), groups, seed)
        return candidate
