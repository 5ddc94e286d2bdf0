"""Scorers: texts to raw scores, one class per kind of classifier. `filters.train` trains them.

A scorer reads and writes its own files of a model folder; `filters.model.folder` has checked their digests by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

import numpy as np
from pydantic import Field, JsonValue, ValidationError, model_validator

from filters.arrays import Float32
from filters.config.yaml_file import Section
from filters.errors import ModelError
from filters.kernels.packed import PackedText
from filters.model.folder import MANIFEST, read_arrays, write_arrays

SCORERS = {
    "linear": "filters.model.scorers:LinearScorer",
    "fasttext": "filters.model.scorers:FastTextScorer",
    "static": "filters.model.static_scorer:StaticScorer",
    "encoder": "filters.model.encoder_scorer:EncoderScorer",
    "ensemble": "filters.model.ensemble:EnsembleScorer",
}
"""kind -> class, imported when a model of that kind is loaded."""


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

    def score(self, packed: PackedText, window: int) -> Float32:
        """float32[n]: raw scores of the first `window` characters of each text."""

    def features(self) -> dict[str, JsonValue]:
        """Options of the kind, as model.json holds them."""
        return self.options.model_dump(mode="json")

    def write(self, folder: Path) -> None:
        """Write the scorer's files into `folder`."""

    @classmethod
    def read(cls, folder: Path, features: Mapping[str, JsonValue]) -> Scorer:
        """Read what `write` wrote.

        Raises:
            ModelError: options or arrays that do not fit.
        """


def scorer_class(kind: str, where: str) -> type[Scorer]:
    """The scorer of a kind.

    Raises:
        ModelError: the kind is not known; `where` names the file that says so.
    """
    if kind not in SCORERS:
        raise ModelError(
            f"{where}: kind {kind!r} is not known here; known: {', '.join(SCORERS)}. Remedy: upgrade finesieve"
        )
    module, name = SCORERS[kind].split(":")
    loaded: type[Scorer] = getattr(import_module(module), name)
    return loaded


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


class FastTextFeatures(Options):
    """How the probabilities of a fastText model become one score."""

    values: Annotated[dict[str, float], Field(min_length=1)]
    """Label -> value; the score is the sum of value times probability."""


@dataclass(frozen=True)
class FastTextScorer(Scorer):
    """Expected value over the labels of a supervised fastText model, scored by the compiled kernel.

    Attributes:
        path: the .bin the model came from.
        model: the compiled model (`filters.kernels.fasttext.CompiledFastText`).
        options: value of each label.
    """

    path: Path
    model: Any
    options: FastTextFeatures

    normalisation = "none: fastText reads the text as it is, a line break being white space"
    in_threads = True

    @classmethod
    def load(cls, path: Path, options: FastTextFeatures) -> Self:
        """Compile a fastText .bin.

        Raises:
            ModelError: the file is no supervised fastText model, or it lacks one of the labels.
        """
        from filters.kernels.fasttext import CompiledFastText

        if not path.is_file():
            raise ModelError(f"{path}: no such file. Remedy: give the path of a fastText .bin")
        model = CompiledFastText.load(path)
        known = set(model.labels)
        options = FastTextFeatures(
            values={
                f"__label__{label}" if f"__label__{label}" in known else label: value
                for label, value in options.values.items()
            }
        )
        unknown = sorted(set(options.values) - known)
        if unknown:
            raise ModelError(
                f"{path}: has no label {unknown[0]!r}; its labels: {', '.join(model.labels)}. Remedy: name one of these"
            )
        return cls(path, model, options)

    def score(self, packed: PackedText, window: int) -> Float32:
        """float32[n]: expected values over the first `window` characters of each text."""
        values = np.array([self.options.values.get(label, 0.0) for label in self.model.labels], dtype=np.float32)
        probabilities: Float32 = self.model.predict_proba(packed.head(window))
        return np.asarray(probabilities @ values, dtype=np.float32)

    def write(self, folder: Path) -> None:
        """Copy the .bin as model.bin."""
        (folder / "model.bin").write_bytes(self.path.read_bytes())

    @classmethod
    def read(cls, folder: Path, features: Mapping[str, JsonValue]) -> Self:
        """Read what `write` wrote.

        Raises:
            ModelError: options or labels that do not fit.
        """
        return cls.load(folder / "model.bin", FastTextFeatures.parse(folder, features))
