"""A frozen encoder under a ridge, support vector or landmark head: FineWeb-Edu's recipe, from the middle layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from filters.model.encoder_files import locate
from filters.model.encoder_scorer import EncoderFeatures, EncoderScorer
from filters.train.config import EncoderConfig, SingleConfig
from filters.train.features import FeatureStore, encoder_store
from filters.train.heads import fit_head, strengths

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


class EncoderClassifier:
    """A head on the hidden states of a frozen encoder.

    Args:
        config: the encoder, what is read from it, and the head.
        window: characters of a text that are read.
        positive: the keep rule's threshold, for the loss `classification`.
        strength: of the head's regularisation.
    """

    def __init__(self, config: EncoderConfig, window: int, positive: float, strength: float) -> None:
        self.config = config
        self.window = window
        self.positive = positive
        self.strength = strength
        self._scorer: EncoderScorer | None = None

    @classmethod
    def candidates(cls, config: SingleConfig, window: int, positive: float = 1.5) -> list[Self]:
        """One classifier per strength of the head's regularisation."""
        assert isinstance(config, EncoderConfig)
        return [cls(config, window, positive, strength) for strength in strengths(config.head)]

    @property
    def setting(self) -> str:
        """The strength of regularisation."""
        return f"{'c' if self.config.head.kind == 'svr' else 'l2'} = {self.strength:g}"

    def _store(self) -> FeatureStore:
        return encoder_store(self.config.options(), self.config.cache)

    def _features(self, texts: Sequence[str]) -> Float32:
        return self._store().get([text[: self.window] for text in texts])

    def fit(
        self, texts: Sequence[str], targets: Float64, weights: Float64, random_state: int, groups: Int64 | None = None
    ) -> Self:
        """Fit to labels; see `filters.train.classifier.Classifier`."""
        features = self._features(texts)
        head = fit_head(self.config.head, self.strength, features, targets, weights, random_state, self.positive)
        options = self.config.options()
        about = EncoderFeatures(
            encoder=options, sha256=locate(options.encoder).digest(), head=head.kind, columns=self._store().columns
        )
        self._scorer = EncoderScorer(about, head)
        return self

    def score(self, texts: Sequence[str]) -> Float32:
        """float32[n]: raw scores; pages seen before are not encoded again."""
        scorer = self.scorer
        return scorer.head(self._features(texts))

    @property
    def scorer(self) -> EncoderScorer:
        """The fitted scorer."""
        if self._scorer is None:
            raise ValueError("fit comes before score")
        return self._scorer
