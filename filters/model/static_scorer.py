"""Kind `static`: the mean of a text's static word vectors under a small head; neither trained nor scored with torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, JsonValue

from filters.kernels.packed import PackedText
from filters.kernels.static import StaticTable, static_features
from filters.model.folder import Sha256, read_arrays, write_arrays
from filters.model.heads import HEAD, Head, HeadKind, read_head
from filters.model.scorers import Options

Float32 = npt.NDArray[np.float32]

TABLE = "table.safetensors"


@dataclass(frozen=True)
class Vectors:
    """The table as it is stored.

    Attributes:
        keys: uint64[v], hashes of tokens and of pairs (`filters.kernels.static`).
        vectors: int8[v, d].
        scales: float16[v].
        weights: float16[v].
    """

    keys: npt.NDArray[np.uint64]
    vectors: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float16]
    weights: npt.NDArray[np.float16]

    def table(self) -> StaticTable:
        """For look-up."""
        return StaticTable.build(
            self.keys, self.vectors, self.scales.astype(np.float32), self.weights.astype(np.float32)
        )

    def write(self, path: Path) -> None:
        """Write as safetensors."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "keys": self.keys,
            "vectors": self.vectors,
            "scales": self.scales,
            "weights": self.weights,
        }
        write_arrays(path, arrays)

    @classmethod
    def read(cls, path: Path, entries: int, dims: int) -> Self:
        """Read what `write` wrote.

        Raises:
            ModelError: arrays that do not fit.
        """
        size = (entries,)
        arrays = read_arrays(
            path,
            {
                "keys": ("uint64", size),
                "vectors": ("int8", (entries, dims)),
                "scales": ("float16", size),
                "weights": ("float16", size),
            },
        )
        return cls(**arrays)


class StaticFeatures(Options):
    """The table's shape and origin, and the head's."""

    entries: Annotated[int, Field(gt=0, le=2**24)]
    dims: Annotated[int, Field(gt=0, le=4096)]
    head: HeadKind
    source: str
    """What the vectors were made of, in words."""
    source_sha256: Sha256
    """Of the table's description."""


@dataclass(frozen=True)
class StaticScorer:
    """A head on means of static vectors.

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

    def score(self, packed: PackedText, window: int) -> Float32:
        """float32[n]: raw scores of the first `window` characters of each text."""
        return self.head(static_features(packed.head(window), self.table))

    def features(self) -> dict[str, JsonValue]:
        """Options as model.json holds them."""
        return self.options.model_dump(mode="json")

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
        vectors = Vectors.read(folder / TABLE, options.entries, options.dims)
        table = vectors.table()
        return cls(options, vectors, table, read_head(folder / HEAD, options.head, table.columns))
