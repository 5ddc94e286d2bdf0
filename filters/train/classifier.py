"""The contract every classifier kind keeps, and where each is found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from typing import Generic, Self, TypeVar

from filters.arrays import Float32, Float64, Int64
from filters.kernels.packed import PackedText
from filters.model.scorers import Scorer
from filters.train.config import SingleConfig

S = TypeVar("S", bound=Scorer)

CLASSIFIERS = {
    "linear": "filters.train.linear:LinearClassifier",
    "fasttext": "filters.train.fasttext:FastTextClassifier",
    "encoder": "filters.train.encoder:EncoderClassifier",
    "static": "filters.train.static:StaticClassifier",
}
"""kind -> class, imported when it is trained, so that one kind's dependencies burden no other. An ensemble is made of
these by `filters.train.procedure`."""


class Classifier(ABC, Generic[S]):
    """A kind of classifier with its options chosen.

    Saving and loading is the model folder's business: `scorer` is what `filters.model.QualityModel` holds and writes.
    """

    window: int
    """Characters of a text that are read."""
    _scorer: S | None = None

    @classmethod
    @abstractmethod
    def candidates(cls, config: SingleConfig, window: int) -> list[Self]:
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


def classifier_class(kind: str) -> type[Classifier[Scorer]]:
    """The classifier of a kind in `CLASSIFIERS`."""
    module, name = CLASSIFIERS[kind].split(":")
    loaded: type[Classifier[Scorer]] = getattr(import_module(module), name)
    return loaded
