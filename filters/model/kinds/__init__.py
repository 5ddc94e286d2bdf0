"""Kinds of classifiers: each module of this package fits one, and scores with it, side by side.

A `Classifier` is fitted to labels; its `Scorer` is what a model folder holds and a run needs. Scoring imports neither
scikit-learn nor torch (the kind `encoder` excepted), so those imports stand inside the functions that fit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

from pydantic import JsonValue, ValidationError

from filters.arrays import Float32, Float64, Int64
from filters.config.yaml_file import Section
from filters.errors import ModelError
from filters.kernels.packed import PackedText
from filters.model.folder import MANIFEST
from filters.model.kinds.heads import Head

KINDS = {
    "linear": ("filters.model.kinds.linear", "LinearScorer", "LinearClassifier"),
    "fasttext": ("filters.model.kinds.fasttext", "FastTextScorer", "FastTextClassifier"),
    "static": ("filters.model.kinds.static", "StaticScorer", "StaticClassifier"),
    "encoder": ("filters.model.kinds.encoder", "EncoderScorer", "EncoderClassifier"),
    "ensemble": ("filters.model.ensemble", "EnsembleScorer", ""),
}
"""kind -> module, scorer and classifier in it. A module is imported when its kind is used, so that one kind's
dependencies burden no other. An ensemble is made of the others by `filters.train.procedure`."""


class Options(Section):
    """The `features` of model.json; each kind has its own."""

    @classmethod
    def parse(cls, folder: Path, features: Mapping[str, JsonValue]) -> Self:
        """Validate the `features` of model.json.

        Raises:
            ModelError: naming the key.
        """
        try:
            return cls.model_validate(features)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(("features", *(str(part) for part in first["loc"])))
            raise ModelError(
                f"{folder / MANIFEST}: {key}: {first['msg']}. Remedy: get the model from its source again, or "
                "train it again"
            ) from error


class Scorer(Protocol):
    """The part of a model that differs between kinds."""

    options: Options
    normalisation: str
    """What happens to the text before features are taken."""

    @property
    def in_threads(self) -> bool:
        """Whether threads of one process score side by side: it is kernels that do the work, and no state is kept."""

    @property
    def embedding(self) -> Hashable:
        """What a text becomes before a head reads it; scorers of one embedding share it. None: they share nothing."""
        return None

    def score(self, packed: PackedText, window: int) -> Float32:
        """float32[n]: raw scores of the first `window` characters of each text; of k labels float32[n, k]."""

    def features(self) -> dict[str, JsonValue]:
        """Options of the kind, as model.json holds them."""
        return self.options.model_dump(mode="json")

    def stored(self, features: dict[str, JsonValue], folder: Path) -> dict[str, JsonValue]:
        """`features` as model.json in `folder` holds them: paths are relative to the folder."""
        return features

    def write(self, folder: Path) -> None:
        """Write the scorer's files into `folder`."""

    @classmethod
    def read(cls, folder: Path, features: Mapping[str, JsonValue]) -> Scorer:
        """Read what `write` wrote.

        Raises:
            ModelError: options or arrays that do not fit.
        """


S = TypeVar("S", bound=Scorer)


class Classifier(ABC, Generic[S]):
    """A kind of classifier with its options chosen.

    Saving and loading is the model folder's business: `scorer` is what `filters.model.QualityModel` holds and writes.
    """

    window: int
    """Characters of a text that are read."""
    _scorer: S | None = None

    @classmethod
    @abstractmethod
    def candidates(cls, config: Any, window: int) -> list[Self]:
        """One unfitted classifier for each setting that inner cross-validation shall choose from.

        Args:
            config: of this kind.
            window: characters of a text that are read.
        """

    @property
    @abstractmethod
    def setting(self) -> str:
        """What sets this candidate apart, in words."""

    @abstractmethod
    def fit(
        self, texts: Sequence[str], targets: Float64, weights: Float64, random_state: int, groups: Int64 | None = None
    ) -> Self:
        """Fit to labels.

        Args:
            texts: n texts.
            targets: float64[n], the judge's scores.
            weights: float64[n], positive; how much each row counts.
            random_state: seed of everything random.
            groups: int64[n]; rows of one group belong on the same side of a split made in here. None: none are known.
        """

    def score(self, texts: Sequence[str]) -> Float32:
        """float32[n]: raw scores, to be calibrated."""
        return self.scorer.score(PackedText.from_strings(texts), self.window)

    @property
    def scorer(self) -> S:
        """The fitted scorer."""
        if self._scorer is None:
            raise ValueError("fit comes before score")
        return self._scorer


class HeadScorer(Scorer, Protocol):
    """A head on an embedding of texts, which several models may share."""

    head: Head

    def embed(self, packed: PackedText, window: int) -> Float32:
        """float32[n, d]: features of the first `window` characters of each text."""

    def score(self, packed: PackedText, window: int) -> Float32:
        """float32[n] or float32[n, k]: what the head makes of the features."""
        return self.head(self.embed(packed, window))


def scorer_class(kind: str, where: str) -> type[Scorer]:
    """The scorer of a kind.

    Raises:
        ModelError: the kind is not known; `where` names the file that says so.
    """
    if kind not in KINDS:
        raise ModelError(
            f"{where}: kind {kind!r} is not known here; known: {', '.join(KINDS)}. Remedy: upgrade finesieve"
        )
    module, scorer, _ = KINDS[kind]
    loaded: type[Scorer] = getattr(import_module(module), scorer)
    return loaded


def classifier_class(kind: str) -> type[Classifier[Scorer]]:
    """The classifier of a kind in `KINDS`."""
    module, _, classifier = KINDS[kind]
    loaded: type[Classifier[Scorer]] = getattr(import_module(module), classifier)
    return loaded
