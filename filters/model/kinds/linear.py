"""Ridge regression on hashed, tf-idf weighted n-grams: the fastest kind, scored by one kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from pydantic import Field, JsonValue, model_validator

from filters.arrays import Float32, Float64, Int64
from filters.config.yaml_file import Section
from filters.kernels.packed import PackedText
from filters.model.folder import read_arrays, write_arrays
from filters.model.kinds import Classifier, Options, Scorer

if TYPE_CHECKING:
    from scipy import sparse

WordNgrams = Annotated[int, Field(ge=0, le=5)]
CharNgram = Annotated[int, Field(ge=1, le=8)]


class LinearFeatures(Options):
    """Hashed n-grams and how their counts become a vector."""

    bits: Annotated[int, Field(ge=8, le=24)] = 20
    """The table has 2^bits columns."""
    word_ngrams: WordNgrams = 2
    """Longest run of words; 0: none."""
    char_ngrams: tuple[CharNgram, CharNgram] | None = None
    """Shortest and longest run of characters of a word; None: none."""
    tf: Literal["log", "count", "binary"] = "log"
    """log: 1 + ln(count); binary: 1."""
    norm: Literal["l2", "none"] = "l2"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.char_ngrams is not None and self.char_ngrams[0] > self.char_ngrams[1]:
            raise ValueError(f"char_ngrams must be [shortest, longest], got {list(self.char_ngrams)}")
        if self.word_ngrams == 0 and self.char_ngrams is None:
            raise ValueError("word_ngrams 0 and no char_ngrams leave no features")
        return self


@dataclass(frozen=True)
class LinearScorer(Scorer):
    """intercept + weights . x, x being the tf-idf vector of hashed n-grams.

    Attributes:
        options: the features.
        weights: float32[2^bits], of values float16 holds exactly.
        idf: float32[2^bits], likewise; 0 for a column that is left out.
        intercept: score of a text without any known feature.
    """

    options: LinearFeatures
    weights: Float32
    idf: Float32
    intercept: float

    normalisation = "words in lower case; punctuation and white space only separate them (filters.kernels.unicode)"
    in_threads = True

    def score(self, packed: PackedText, window: int) -> Float32:
        """float32[n]: raw scores of the first `window` characters of each text."""
        from filters.kernels.linear import score_hashed

        return score_hashed(
            packed,
            self.weights,
            word_ngrams=self.options.word_ngrams,
            char_ngrams=self.options.char_ngrams,
            max_characters=window,
            tf=self.options.tf,
            norm=self.options.norm,
            idf=self.idf,
            intercept=self.intercept,
        )

    def write(self, folder: Path) -> None:
        """Write weights.safetensors: float16 weights and idf, float64 intercept."""
        write_arrays(
            folder / "weights.safetensors",
            {
                "weights": self.weights.astype(np.float16),
                "idf": self.idf.astype(np.float16),
                "intercept": np.array([self.intercept], dtype=np.float64),
            },
        )

    @classmethod
    def read(cls, folder: Path, features: Mapping[str, JsonValue]) -> Self:
        """Read what `write` wrote.

        Raises:
            ModelError: options or arrays that do not fit.
        """
        options = LinearFeatures.parse(folder, features)
        size = (2**options.bits,)
        path = folder / "weights.safetensors"
        arrays = read_arrays(
            path, {"weights": ("float16", size), "idf": ("float16", size), "intercept": ("float64", (1,))}
        )
        return cls(
            options,
            arrays["weights"].astype(np.float32),
            arrays["idf"].astype(np.float32),
            float(arrays["intercept"][0]),
        )


class LinearConfig(Section):
    """Ridge regression on hashed tf-idf n-grams; the target is the judge's expected score."""

    kind: Literal["linear"] = "linear"
    """Chooses this kind of classifier."""
    bits: Annotated[int, Field(ge=8, le=24)] = 20
    """Size of the table: it has 2^bits columns. With 20 bits a model folder has 4 MiB."""
    word_ngrams: WordNgrams = 2
    """Longest n-gram of words. 0: no words."""
    char_ngrams: tuple[CharNgram, CharNgram] | None = None
    """Shortest and longest n-gram of characters within a word; scoring is then several times slower. null: none."""
    tf: Literal["log", "count", "binary"] = "log"
    """How often an n-gram counts in a text: the logarithm of its number, its number, or once."""
    norm: Literal["l2", "none"] = "l2"
    """Whether the features of a text are scaled to length 1 (l2)."""
    min_df: Annotated[int, Field(ge=1)] = 3
    """Fewest texts that a column must occur in; other columns are left out."""
    l2: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.3,)
    """Candidates for the ridge penalty; inner cross-validation chooses one."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.features()
        return self

    def features(self) -> LinearFeatures:
        """The features, as the model folder holds them.

        Raises:
            ValueError: options that contradict each other.
        """
        return LinearFeatures.model_validate({name: getattr(self, name) for name in LinearFeatures.model_fields})


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
    def candidates(cls, config: Section, window: int) -> list[Self]:
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
        """Fit to labels; see `filters.model.kinds.Classifier`. Nothing here is random."""
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
        from scipy import sparse

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
        from scipy import sparse

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
