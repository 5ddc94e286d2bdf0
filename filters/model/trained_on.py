"""Remembers the texts a model was trained on, in 8 bytes each, to recognise them and their near copies.

A mark is eight MinHash values over runs of five words, lower-cased and without punctuation, one byte of each (b-bit
minwise hashing: Li and Koenig 2010). Texts of the same words have the same mark; two texts whose runs have Jaccard
similarity s agree in each byte with probability s + (1 - s) / 256, and are near copies where `LEAST` of the eight
agree: for s = .9 with probability .96, for .8 with .80, for .5 with .15, for texts without a run in common with 1e-13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import xxhash

from filters.arrays import UInt8
from filters.model.folder import read_arrays, write_arrays

FILE = "trained-on.safetensors"
BYTES = 8
LEAST = 6
_SHINGLE, _SEED = 5, 8
_PART = 2**24
"""Pairs of marks that are compared at once."""


@dataclass(frozen=True)
class TrainedOn:
    """The texts that a model learnt the judge's scores of.

    Attributes:
        marks: uint8[n, 8].
        window: characters that the model reads of a text, and the marks are of; None: all.
    """

    marks: UInt8
    window: int | None

    @classmethod
    def of(cls, texts: Sequence[str], window: int | None) -> Self:
        """Mark n texts."""
        return cls(_marks(texts, window), window)

    def __len__(self) -> int:
        return len(self.marks)

    def seen(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """bool[m]: which of m texts are among them, or near copies of one."""
        found = self._holds(_marks(texts, self.window))
        # Blanks that were added or taken out move what the window ends with.
        if self.window is not None:
            cut = [row for row in np.flatnonzero(~found).tolist() if len(texts[row]) > self.window]
            found[cut] = self._holds(_marks([" ".join(texts[row].split()) for row in cut], self.window))
        return found

    def _holds(self, marks: UInt8) -> npt.NDArray[np.bool_]:
        """bool[m]: which of uint8[m, 8] are of a text among them, or of a near copy."""
        found = np.zeros(len(marks), np.bool_)
        step = max(_PART // max(len(self.marks), 1), 1)
        for start in range(0, len(marks), step):
            part = marks[start : start + step, None]
            found[start : start + step] = ((part == self.marks).sum(axis=2, dtype=np.uint8) >= LEAST).any(axis=1)
        return found

    def write(self, folder: Path) -> None:
        """Write them into a model folder."""
        write_arrays(folder / FILE, {"marks": self.marks})

    @classmethod
    def read(cls, folder: Path, rows: int, window: int | None) -> Self:
        """Read what `write` wrote.

        Raises:
            ModelError: the file does not hold marks of `rows` texts.
        """
        return cls(read_arrays(folder / FILE, {"marks": ("uint8", (rows, BYTES))})["marks"], window)


def _marks(texts: Sequence[str], window: int | None) -> UInt8:
    from filters.kernels import GOLDEN
    from filters.kernels.minhash import signatures
    from filters.kernels.packed import PackedText
    from filters.kernels.words import word_hashes

    read = [text[:window] for text in texts]
    minima, has_words = signatures(
        word_hashes(PackedText.from_strings(read)), shingle=_SHINGLE, bands=BYTES, rows=1, seed=_SEED
    )
    # The lowest bits of a minimum follow from those of the shingle's hash: of texts with few words all bytes would.
    mixed = (minima.astype(np.uint64) + (np.arange(1, BYTES + 1, dtype=np.uint64) << np.uint64(32))) * GOLDEN
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    marks = (mixed >> np.uint64(56)).astype(np.uint8)
    for row in np.flatnonzero(~has_words).tolist():
        marks[row] = np.frombuffer(
            xxhash.xxh3_64_digest("".join(read[row].split()).encode("utf-8", "replace")), np.uint8
        )
    return marks
