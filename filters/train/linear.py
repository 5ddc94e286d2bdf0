"""Ridge regression on hashed, tf-idf weighted n-grams: the fastest kind, scored by one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from scipy import sparse

from filters.arrays import Float32, Float64, Int64
from filters.kernels.packed import PackedText
from filters.model.scorers import LinearFeatures, LinearScorer
from filters.train.classifier import Classifier
from filters.train.config import LinearConfig, SingleConfig


class LinearClassifier(Classifier[LinearScorer]):
    """Ridge regression (Hoerl and Kennard 1970) to the judge's expected score.

    Weights and idf are rounded to float16 when they are fitted, so a model that was saved scores exactly as before.

    Args:
        features: n-grams and vectorisation.
        window: characters of a text that are read.
        min_df: columns that fewer texts have are left out.
        l2: the penalty.
    """

    def __init__(self, features: LinearFeatures, window: int, min_df: int, l2: float) -> None:
        self.features = features
        self.window = window
        self.min_df = min_df
        self.l2 = l2

    @classmethod
    def candidates(cls, config: SingleConfig, window: int) -> list[Self]:
        """One classifier per penalty in `config.l2`."""
        assert isinstance(config, LinearConfig)
        features = config.features()
        return [cls(features, window, config.min_df, l2) for l2 in config.l2]

    @property
    def setting(self) -> str:
        """The penalty."""
        return f"l2 = {self.l2:g}"

    def fit(
        self, texts: Sequence[str], targets: Float64, weights: Float64, random_state: int, groups: Int64 | None = None
    ) -> Self:
        """Fit to labels; see `filters.train.classifier.Classifier`. Nothing here is random."""
        from sklearn.linear_model import Ridge

        counts = self._counts(texts)
        idf = self._idf(counts)
        active = np.flatnonzero(idf)
        x = self._vectorise(counts[:, active], idf[active])
        weights = weights / weights.mean()
        ridge = Ridge(alpha=self.l2, solver="sparse_cg", tol=1e-5, max_iter=1000, random_state=random_state)
        ridge.fit(x, targets, sample_weight=weights)
        table = np.zeros(2**self.features.bits, dtype=np.float32)
        table[active] = ridge.coef_.astype(np.float16)
        self._scorer = LinearScorer(self.features, table, idf, float(ridge.intercept_))
        return self

    def _counts(self, texts: Sequence[str]) -> sparse.csr_array:
        from filters.kernels.linear import hashed_features

        found = hashed_features(
            PackedText.from_strings(texts),
            bits=self.features.bits,
            word_ngrams=self.features.word_ngrams,
            char_ngrams=self.features.char_ngrams,
            max_characters=self.window,
        )
        counts, columns = found.counts.astype(np.float32), found.indices.astype(np.int32)
        return sparse.csr_array((counts, columns, found.offsets), shape=(len(texts), 2**self.features.bits))

    def _idf(self, counts: sparse.csr_array) -> Float32:
        """float32[2^bits]: ln((1 + n) / (1 + df)) + 1 as in scikit-learn, 0 where df < min_df, rounded to float16."""
        frequency = np.bincount(counts.indices, minlength=counts.shape[1])
        idf: Float64 = np.log((1 + counts.shape[0]) / (1 + frequency)) + 1
        idf[frequency < self.min_df] = 0
        return idf.astype(np.float16).astype(np.float32)

    def _vectorise(self, counts: sparse.csr_array, idf: Float32) -> sparse.csr_array:
        """The vectors `filters.kernels.linear.score_hashed` takes the product with."""
        if self.features.tf == "log":
            values = 1 + np.log(counts.data)
        elif self.features.tf == "binary":
            values = np.ones_like(counts.data)
        else:
            values = counts.data
        x = sparse.csr_array((values * idf[counts.indices], counts.indices, counts.indptr), shape=counts.shape)
        if self.features.norm == "l2":
            length = np.sqrt(x.multiply(x).sum(axis=1))
            length[length == 0] = 1
            x.data /= np.repeat(length, np.diff(x.indptr)).astype(np.float32)
        return x
