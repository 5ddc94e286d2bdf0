"""Kind `static`: sums of a text's static vectors under a small head; neither trained nor scored with torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, JsonValue

from filters.arrays import Float32
from filters.kernels.packed import PackedText
from filters.kernels.static import StaticTable, static_features
from filters.model.folder import Sha256, read_arrays, write_arrays
from filters.model.heads import HEAD, Head, HeadKind, read_head
from filters.model.scorers import Options, Scorer

TABLE = "table.safetensors"


class TableShape(Options):
    """Rows and columns of a table."""

    grams: Annotated[int, Field(gt=0, le=2**24)]
    gram_dims: Annotated[int, Field(ge=0, le=4096)]
    words: Annotated[int, Field(ge=0, le=2**24)]
    word_dims: Annotated[int, Field(gt=0, le=4096)]


@dataclass(frozen=True)
class Vectors:
    """The table as it is stored; see `filters.kernels.static.StaticTable`.

    Attributes:
        keys: uint64[v], hashes of tokens and of pairs, tokens first.
        grams: int8[v, d].
        gram_scales: float16[v].
        idf: float16[v].
        words: int8[s, e].
        word_scales: float16[s].
        weights: float16[s].
    """

    keys: npt.NDArray[np.uint64]
    grams: npt.NDArray[np.int8]
    gram_scales: npt.NDArray[np.float16]
    idf: npt.NDArray[np.float16]
    words: npt.NDArray[np.int8]
    word_scales: npt.NDArray[np.float16]
    weights: npt.NDArray[np.float16]

    @property
    def shape(self) -> TableShape:
        """Rows and columns."""
        (grams, gram_dims), (words, word_dims) = self.grams.shape, self.words.shape
        return TableShape(grams=grams, gram_dims=gram_dims, words=words, word_dims=word_dims)

    def table(self) -> StaticTable:
        """The tables as the kernels look words up in them."""
        return StaticTable.build(
            self.keys,
            self.grams,
            self.gram_scales.astype(np.float32),
            self.idf.astype(np.float32),
            self.words,
            self.word_scales.astype(np.float32),
            self.weights.astype(np.float32),
        )

    def write(self, path: Path) -> None:
        """Write as safetensors."""
        write_arrays(path, vars(self))

    @classmethod
    def read(cls, path: Path, shape: TableShape) -> Self:
        """Read what `write` wrote.

        Raises:
            ModelError: arrays that do not fit.
        """
        grams, words = (shape.grams,), (shape.words,)
        return cls(
            **read_arrays(
                path,
                {
                    "keys": ("uint64", grams),
                    "grams": ("int8", (shape.grams, shape.gram_dims)),
                    "gram_scales": ("float16", grams),
                    "idf": ("float16", grams),
                    "words": ("int8", (shape.words, shape.word_dims)),
                    "word_scales": ("float16", words),
                    "weights": ("float16", words),
                },
            )
        )


class StaticFeatures(Options):
    """The table's shape and origin, and the head's."""

    table: TableShape
    head: HeadKind
    source: str
    """What the vectors were made of, in words."""
    source_sha256: Sha256
    """SHA-256 of the table's description."""


@dataclass(frozen=True)
class StaticScorer(Scorer):
    """A head on sums of static vectors.

    Attributes:
        options: shapes and origin.
        vectors: the table as stored.
        table: the table for look-up.
        head: features to scores.
    """

    options: StaticFeatures
    vectors: Vectors
    table: StaticTable
    head: Head

    normalisation = "words in lower case, runs of digits by their length; punctuation and line breaks are tokens"
    in_threads = True

    def score(self, packed: PackedText, window: int) -> Float32:
        """float32[n]: raw scores of the first `window` characters of each text."""
        return self.head(static_features(packed, self.table, window))

    def write(self, folder: Path) -> None:
        """Write the table and the head."""
        self.vectors.write(folder / TABLE)
        self.head.write(folder / HEAD)

    @classmethod
    def read(cls, folder: Path, features: Mapping[str, JsonValue]) -> Self:
        """Read what `write` wrote.

        Raises:
            ModelError: options or arrays that do not fit.
        """
        options = StaticFeatures.parse(folder, features)
        vectors = Vectors.read(folder / TABLE, options.table)
        table = vectors.table()
        return cls(options, vectors, table, read_head(folder / HEAD, options.head, table.columns))
