"""An encoder, frozen or tuned, or several side by side, under a ridge, support vector or landmark head: FineWeb-Edu's
recipe, from the middle layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from filters.arrays import Float32, Float64, Int64
from filters.model.encoder_files import locate
from filters.model.encoder_scorer import EncoderFeatures, EncoderScorer, KnownEncoder
from filters.model.heads import Head
from filters.train.classifier import Classifier
from filters.train.config import EncoderConfig, SingleConfig
from filters.train.features import FeatureStore, encoder_store
from filters.train.heads import RidgeHead, fit_head, strengths
from filters.train.tuning import HeadOnly, Tuned, fine_tune


class EncoderClassifier(Classifier[EncoderScorer]):
    """A head on the hidden states of an encoder, and of those beside it.

    Args:
        config: the encoder, what is read from it, what of it is tuned, and the head.
        window: characters of a text that are read.
        strength: of the head's regularisation; with tuning, the learning rate.
    """

    def __init__(self, config: EncoderConfig, window: int, strength: float) -> None:
        self.config = config
        self.window = window
        self.strength = strength
        self._tuned: Tuned | None = None

    @classmethod
    def candidates(cls, config: SingleConfig, window: int) -> list[Self]:
        """One classifier per strength of the head's regularisation, or per learning rate."""
        assert isinstance(config, EncoderConfig)
        choices = strengths(config.head) if isinstance(config.tune, HeadOnly) else config.tune.lr
        return [cls(config, window, choice) for choice in choices]

    @property
    def setting(self) -> str:
        """The strength of regularisation, or the learning rate and what tuning came to."""
        if isinstance(self.config.tune, HeadOnly):
            return f"{'c' if self.config.head.kind == 'svr' else 'l2'} = {self.strength:g}"
        setting = f"{self.config.tune.kind}, lr = {self.strength:g}"
        if self._tuned is not None:
            before, after = self._tuned.error
            setting += (
                f", {self._tuned.epochs:.1f} epochs, squared error of pages kept aside {before:.4f} -> {after:.4f}"
            )
        return setting

    def _stores(self) -> list[FeatureStore]:
        return [encoder_store(options, self.config.cache) for options in self.config.encoders()]

    def _features(self, texts: Sequence[str]) -> Float32:
        read = [text[: self.window] for text in texts]
        return np.concatenate([store.get(read) for store in self._stores()], axis=1)

    def fit(
        self, texts: Sequence[str], targets: Float64, weights: Float64, random_state: int, groups: Int64 | None = None
    ) -> Self:
        """Fit to labels; see `filters.train.classifier.Classifier`."""
        features = self._features(texts)
        options, tune = self.config.options(), self.config.tune
        head: Head
        if isinstance(tune, HeadOnly):
            head = fit_head(self.config.head, self.strength, features, targets, weights, random_state)
        else:
            assert isinstance(self.config.head, RidgeHead)
            self._tuned = fine_tune(
                tune,
                self.strength,
                options,
                [text[: self.window] for text in texts],
                targets,
                weights,
                groups,
                features,
                self.config.head,
                random_state,
            )
            head = self._tuned.head
        weights_changed = self._tuned.weights if self._tuned is not None else None
        about = EncoderFeatures(
            encoder=options,
            sha256=locate(options.encoder).digest(),
            head=head.kind,
            columns=sum(store.columns for store in self._stores()),
            tuned=weights_changed.features if weights_changed is not None else None,
            beside=tuple(
                KnownEncoder(encoder=other, sha256=locate(other.encoder).digest()) for other in self.config.beside
            ),
        )
        self._scorer = EncoderScorer(about, head, weights_changed)
        return self

    def score(self, texts: Sequence[str]) -> Float32:
        """float32[n]: raw scores; a frozen encoder reads no page twice."""
        scorer = self.scorer
        if scorer.tuned is None:
            return scorer.head(self._features(texts))
        return scorer.head(scorer.states([text[: self.window] for text in texts]))
