"""`QualityModel`: a scorer with its calibration, text window and keep rule."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from filters.arrays import Float32, Float64
from filters.cards import make_card
from filters.errors import ModelError
from filters.kernels.packed import PackedText
from filters.model.folder import (
    MANIFEST,
    KeepRule,
    Manifest,
    check_free,
    read_arrays,
    read_manifest,
    write_arrays,
    write_folder,
)
from filters.model.kinds import HeadScorer, Scorer, scorer_class
from filters.model.kinds.fasttext import FastTextFeatures, FastTextScorer
from filters.model.kinds.heads import LabelHead, probabilities
from filters.model.reliability import Decisions
from filters.model.trained_on import FILE as TRAINED_ON
from filters.model.trained_on import TrainedOn
from filters.model.windows import pool, split
from filters.models import EMBEDDED, embedded_models

CALIBRATION = "calibration.safetensors"
WHOLE_TEXT = 10**9


@dataclass(frozen=True)
class Calibration:
    """A piecewise linear, non-decreasing map from raw scores to the judge's scale; constant beyond its ends.

    Attributes:
        raw: float64[k], strictly increasing raw scores.
        score: float64[k], non-decreasing scores in [0, 5].
    """

    raw: Float64
    score: Float64

    def __call__(self, raw: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """float32[n] on the judge's scale."""
        return np.interp(np.asarray(raw, dtype=np.float64), self.raw, self.score).astype(np.float32)

    def write(self, path: Path) -> None:
        """Write the knots as safetensors."""
        write_arrays(path, {"raw": self.raw, "score": self.score})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            ModelError: the knots are no monotone map into [0, 5].
        """
        arrays = read_arrays(path, {"raw": ("float64", (None,)), "score": ("float64", (None,))})
        raw, score = arrays["raw"], arrays["score"]
        sound = len(raw) == len(score) >= 1 and bool(np.all(np.diff(raw) > 0)) and bool(np.all(np.diff(score) >= 0))
        if not sound or score[0] < 0 or score[-1] > 5:
            raise ModelError(f"{path}: the knots are not a monotone map into 0-5. Remedy: train the model again")
        return cls(raw, score)


@dataclass(frozen=True)
class Prediction:
    """What a model says of n texts.

    A column of a run is `score` for a model that gives scores; for one that tells labels apart it is
    `QualityModel.labels[label]`, best as a dictionary: `pa.DictionaryArray.from_arrays(label, list(labels))`.

    Attributes:
        score: float32[n], on the judge's scale; of a model that tells labels apart the probability of the label.
        label: int32[n], numbers of `QualityModel.labels`; None for a model that gives scores.
    """

    score: Float32
    label: npt.NDArray[np.int32] | None = None


@dataclass(frozen=True)
class QualityModel:
    """A classifier with its calibration, text window and keep rule. Immutable, and safe to share between threads.

    Attributes:
        scorer: turns texts into raw scores.
        calibration: maps them to the judge's 0-5 scale; None: the raw score is the score.
        metadata: what model.json says.
        digest: sha256 hex over the content; equal digests mean equal scores.
        trained_on: the texts it learnt the judge's scores of; None where that is not known.
    """

    scorer: Scorer
    calibration: Calibration | None
    metadata: Manifest
    digest: str
    trained_on: TrainedOn | None = None

    @classmethod
    def load(cls, name_or_folder: str | Path) -> Self:
        """Load a model. Nothing it holds is executed.

        Args:
            name_or_folder: the name of an embedded model ("edu-en"), a model folder, a fastText file with the label
                whose probability is the score ("path/to/model.bin#__label__hq"), or the folder of a transformers
                sequence classifier with one output, such as HuggingFaceFW/fineweb-edu-classifier (extra `encoder`;
                kept is what rounds to 3; `filters.model.quality` makes a model folder of it). A folder in the working
                directory that is called like an embedded model is written "./edu-en".

        Raises:
            ModelError: it does not exist, or anything in it is damaged, altered or unknown.
            MissingExtraError: it is a model of an encoder, and torch or transformers is not installed.
        """
        text = str(name_or_folder)
        if isinstance(name_or_folder, str) and text in embedded_models():
            return cls._read(EMBEDDED / text)
        path, separator, label = text.rpartition("#")
        if separator and not Path(text).exists():
            return cls._fasttext(Path(path), label)
        if Path(text).is_file():
            raise ModelError(
                f"{text}: a file, not a model folder. Remedy: for a fastText model write {text}#__label__NAME with the "
                "label whose probability is the score"
            )
        if not Path(text).exists():
            raise ModelError(
                f"{text}: no such model. Remedy: give a model folder, a fastText file.bin#__label__NAME, or the name "
                f"of an embedded model: {', '.join(embedded_models())}"
            )
        folder = Path(text)
        if (folder / "config.json").is_file() and not (folder / MANIFEST).exists():
            return cls._sequence_classifier(folder)
        return cls._read(folder)

    @classmethod
    def _read(cls, folder: Path) -> Self:
        manifest, digest = read_manifest(folder)
        scorer = scorer_class(manifest.kind, str(folder / "model.json")).read(folder, manifest.features)
        told = len(head.intercepts) if isinstance(head := getattr(scorer, "head", None), LabelHead) else 0
        if len(manifest.labels) != told or len(set(manifest.labels)) != told:
            raise ModelError(
                f"{folder / MANIFEST}: labels: {len(set(manifest.labels))} names, and the head tells {told} apart. "
                "Remedy: get the model from its source again, or train it again"
            )
        calibration = Calibration.read(folder / CALIBRATION) if manifest.calibration is not None else None
        trained_on = None
        if manifest.training is not None and TRAINED_ON in manifest.files:
            trained_on = TrainedOn.read(folder, manifest.training.rows, manifest.reads)
        return cls(scorer, calibration, manifest, digest, trained_on)

    @classmethod
    def _sequence_classifier(cls, folder: Path) -> Self:
        from filters.model.kinds.encoder import SequenceScorer

        scorer = SequenceScorer.refer(folder)
        manifest = Manifest(
            name=folder.resolve().name,
            kind="encoder",
            window=WHOLE_TEXT,
            normalisation=scorer.normalisation,
            features=scorer.features(),
            keep=KeepRule(rounded=3),
        )
        digest = hashlib.sha256(json.dumps(manifest.model_dump(mode="json"), sort_keys=True).encode())
        return cls(scorer, None, manifest, digest.hexdigest())

    @classmethod
    def _fasttext(cls, path: Path, label: str) -> Self:
        scorer = FastTextScorer.load(path, FastTextFeatures(values={label: 1.0}))
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256")
        content.update(b"#" + label.encode())
        manifest = Manifest(
            name=f"{path.name}#{label}",
            kind="fasttext",
            window=WHOLE_TEXT,
            normalisation=scorer.normalisation,
            features=scorer.features(),
            keep=KeepRule(min_score=0.5),
        )
        return cls(scorer, None, manifest, content.hexdigest())

    def save(self, folder: str | Path, *, card: str | None = None, overwrite: bool = False) -> Self:
        """Write the model folder, whole or not at all, and return the model as it was written.

        Args:
            folder: where to; the parent is created.
            card: text of README.md.
            overwrite: replace a model that is there.

        Raises:
            ModelError: the folder exists and is not to be overwritten.
        """

        def write(temporary: Path) -> None:
            self.scorer.write(temporary)
            if self.calibration is not None:
                self.calibration.write(temporary / CALIBRATION)
            if self.trained_on is not None:
                self.trained_on.write(temporary)

        features = self.scorer.stored(self.metadata.features, Path(folder))
        write_folder(Path(folder), self.metadata.model_copy(update={"features": features}), write, card, overwrite)
        return self._read(Path(folder))

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.metadata.name

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the model tells apart, such as topics; empty if it gives a score."""
        return self.metadata.labels

    @property
    def keep(self) -> KeepRule:
        """Which scores are kept."""
        return self.metadata.keep

    @property
    def window(self) -> int:
        """Characters of one window; by default the first one of a text is all that is read."""
        return self.metadata.window

    def score(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Scores of n texts on the judge's scale (of a bare fastText file: the label's probability).

        Returns:
            float32[n].

        Raises:
            TypeError: `texts` is one string, whose characters would be scored one by one.
            ModelError: the model tells labels apart.
        """
        if isinstance(texts, str):
            raise TypeError("score takes a list of texts. Remedy: score([text])[0]")
        if self.metadata.reads is not None:
            texts = [text[: self.metadata.reads] for text in texts]
        return self.score_packed(PackedText.from_strings(texts))

    def decide(self, texts: Sequence[str], error_rate: float) -> Decisions:
        """Scores of n texts with bands, and keep, drop or undecided for each.

        A band misses the judge's score of a page like the annotated ones at most with rate `error_rate`, so at most so
        many pages of all are decided against the judge.

        Raises:
            ModelError: the model has no bands, or none for an error rate as small as this.
        """
        return self.decide_scores(self.score(texts), error_rate)

    def decide_scores(self, scores: npt.NDArray[np.float32], error_rate: float) -> Decisions:
        """As `decide`, of scores float32[n] that are there already.

        Raises:
            ModelError: as `decide`.
        """
        table = self.metadata.conformal
        if table is None:
            raise ModelError(
                f"{self.name}: no conformal bands are stored with this model. Remedy: train it with finesieve train"
            )
        try:
            low, high = table.interval(scores, error_rate)
        except ValueError as error:
            raise ModelError(f"{self.name}: {error}. Remedy: another error rate") from error
        decision = table.decide(scores, error_rate, float(np.float32(self.keep.min_score)))
        return Decisions(np.asarray(scores, np.float32), low, high, decision)

    def score_packed(self, packed: PackedText) -> npt.NDArray[np.float32]:
        """float32[n]: scores of packed texts; the same as `score` of the same texts.

        Raises:
            ModelError: the model tells labels apart.
        """
        if self.labels:
            raise ModelError(
                f"{self.name}: tells labels apart and gives no score. Remedy: QualityModel.predict, or finesieve score"
            )
        return predict_together([self], packed)[0].score

    def predict(self, texts: Sequence[str]) -> Prediction:
        """What the model says of n texts: a score each, or a label with its probability."""
        return predict_together([self], PackedText.from_strings(texts))[0]

    def _prediction(self, raw: Float32) -> Prediction:
        if not self.labels:
            return Prediction(raw if self.calibration is None else self.calibration(raw))
        shares = probabilities(raw)
        label = np.argmax(shares, axis=1)
        return Prediction(shares[np.arange(len(raw)), label].astype(np.float32), label.astype(np.int32))


def predict_together(models: Sequence[QualityModel], packed: PackedText) -> list[Prediction]:
    """What each of several models says of the same n texts, the same as each says alone.

    Models that share an embedding (heads on one table, such as edu-en and topic-en; heads on one encoder) and read the
    same window of a text embed it once, so that a second head costs little.

    Args:
        models: in any order; one may be there twice.
        packed: n texts.

    Returns:
        One prediction for each model, in their order.
    """
    shared: dict[Hashable, list[int]] = {}
    for number, model in enumerate(models):
        own = number if model.scorer.embedding is None else None
        key = own, model.scorer.embedding, model.window, model.metadata.windows
        shared.setdefault(key, []).append(number)
    predictions: dict[int, Prediction] = {}
    for numbers in shared.values():
        model = models[numbers[0]]
        rule, window = model.metadata.windows, model.window
        windows = None if rule == "first" else split(packed, rule, window)
        part = packed if windows is None else windows.packed
        features = cast(HeadScorer, model.scorer).embed(part, window) if len(numbers) > 1 else None
        for number in numbers:
            scorer = models[number].scorer
            raw = scorer.score(part, window) if features is None else cast(HeadScorer, scorer).head(features)
            predictions[number] = models[number]._prediction(raw if windows is None else pool(windows, raw, rule))
    return [predictions[number] for number in range(len(models))]


def import_model(
    source: str,
    output: str | Path,
    *,
    keep: KeepRule | None = None,
    name: str | None = None,
    language: str | None = None,
    window: int | None = None,
    overwrite: bool = False,
) -> QualityModel:
    """Copy a classifier into a model folder of its own, with a keep rule.

    Args:
        source: a folder of a transformers sequence classifier with one output, safetensors only, such as a download of
            HuggingFaceFW/fineweb-edu-classifier (extra `encoder`); or a fastText file.bin#__label__NAME.
        output: the model folder to write.
        keep: None: for the former `KeepRule(rounded=3)`, for the latter a probability of at least a half.
        name: None: that of the source.
        language: of the texts the classifier is for.
        window: characters of a text that are read; None: all (a sequence classifier cuts to its own tokens).
        overwrite: replace a model that is there.

    Returns:
        The model as it was written.

    Raises:
        ModelError: it cannot be loaded, is a model folder already, or the output folder is taken.
        MissingExtraError: torch or transformers is not installed.
    """
    check_free(Path(output), overwrite)
    model = QualityModel.load(source)
    if model.metadata.files:
        raise ModelError(f"{source}: a model folder already. Remedy: use it, or copy it")
    given = {"keep": keep, "name": name, "language": language, "window": window}
    try:
        metadata = Manifest.model_validate(
            model.metadata.model_dump() | {key: value for key, value in given.items() if value is not None}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}. Remedy: give another value") from error
    card = make_card(
        f"# {metadata.name}",
        f"Imported from `{Path(source).name}`; finesieve did not train it and has not measured it:\n"
        "`finesieve evaluate` on labels of your own does.",
        "## Keep rule",
        f"Keep a page when {metadata.keep}. Scores are the classifier's own, without calibration.",
    )
    return QualityModel(model.scorer, model.calibration, metadata, "").save(output, card=card, overwrite=overwrite)
