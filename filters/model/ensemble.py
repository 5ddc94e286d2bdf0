"""Kind `ensemble`: several models, each with its own window and calibration, and the highest percentile of any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from pydantic import Field, JsonValue

from filters.arrays import Float32, Float64
from filters.errors import ModelError
from filters.kernels.packed import PackedText
from filters.model.folder import read_arrays, write_arrays
from filters.model.kinds import Options, Scorer

if TYPE_CHECKING:
    from filters.model import QualityModel


COMBINATION = "combination.safetensors"


class EnsembleFeatures(Options):
    """Members, and into how many buckets their scores are cut."""

    members: Annotated[tuple[str, ...], Field(min_length=2, max_length=8)]
    """Names of their sub-folders."""
    buckets: Annotated[int, Field(ge=2, le=1000)] = 20


@dataclass(frozen=True)
class Combination:
    """From the calibrated scores of m members to one raw score, the highest of their percentiles (Su et al. 2024).

    Each member's scores are cut into buckets that hold equally many pages, and the highest bucket of any member counts,
    as a share of 5; within it the mean of the scores breaks ties.

    Attributes:
        edges: float32[m, buckets - 1], not decreasing: where a member's buckets end.
    """

    edges: Float32

    @classmethod
    def fit(cls, buckets: int, scores: Float64) -> Self:
        """Cut the calibrated out-of-fold scores of the annotated pages, float64[m, n], into buckets."""
        shares = np.linspace(0, 1, buckets + 1)[1:-1]
        return cls(np.quantile(scores, shares, axis=1).T.astype(np.float32))

    def __call__(self, scores: Float32) -> Float32:
        """float32[n] of calibrated scores float32[m, n]."""
        ranks = [np.searchsorted(edges, row, side="right") for edges, row in zip(self.edges, scores, strict=True)]
        highest = np.max(ranks, axis=0).astype(np.float32)
        # The mean lies within 0-5, so that a sixth of it stays inside a bucket.
        raw: Float32 = (highest + scores.mean(axis=0) / 6) * np.float32(5 / (self.edges.shape[1] + 1))
        return raw.astype(np.float32)


@dataclass(frozen=True)
class EnsembleScorer(Scorer):
    """Members' calibrated scores, combined.

    Attributes:
        options: names and number of buckets.
        members: the models, in the order of the names.
        combination: what joins their scores.
    """

    options: EnsembleFeatures
    members: tuple[QualityModel, ...]
    combination: Combination

    normalisation = "each member's own"

    @property
    def in_threads(self) -> bool:
        """Whether all members do."""
        return all(member.scorer.in_threads for member in self.members)

    def score(self, packed: PackedText, window: int) -> Float32:
        """float32[n]: raw scores; every member reads its own window, which is at most `window`."""
        return self.combination(np.stack([member.score_packed(packed) for member in self.members]))

    def write(self, folder: Path) -> None:
        """Write the members' folders, and what combines their scores."""
        for name, member in zip(self.options.members, self.members, strict=True):
            member.save(folder / name)
        write_arrays(folder / COMBINATION, {"edges": self.combination.edges})

    @classmethod
    def read(cls, folder: Path, features: Mapping[str, JsonValue]) -> Self:
        """Read what `write` wrote.

        Raises:
            ModelError: options, members or edges that do not fit.
        """
        from filters.model import QualityModel

        options = EnsembleFeatures.parse(folder, features)
        members = []
        for name in options.members:
            if Path(name).name != name or not (folder / name / "model.json").is_file():
                raise ModelError(f"{folder}: member {name!r} is missing. Remedy: copy the whole model folder again")
            # The path is absolute so that a member called like an embedded model is not taken for one.
            member = QualityModel.load((folder / name).resolve())
            if member.metadata.kind == "ensemble":
                raise ModelError(f"{folder / name}: an ensemble inside an ensemble. Remedy: train one of its members")
            members.append(member)
        shape = (len(members), options.buckets - 1)
        path = folder / COMBINATION
        edges = read_arrays(path, {"edges": ("float32", shape)})["edges"]
        if (np.diff(edges, axis=1) < 0).any():
            raise ModelError(f"{path}: edges decrease. Remedy: train the model again")
        return cls(options, tuple(members), Combination(edges))


def member_names(kinds: Sequence[str]) -> tuple[str, ...]:
    """A folder name for each member: its number and kind."""
    return tuple(f"{number}-{kind}" for number, kind in enumerate(kinds, 1))
