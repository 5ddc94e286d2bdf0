"""Estimates with intervals by bootstraps over groups, and folds of whole groups: pages of one host are not independent.

Pages of one host, and near copies of a page, stay on the same side of a split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from filters.arrays import Float64, Int64

CONFIDENCE = 0.95


class Estimate(BaseModel):
    """A value with the ends of its bootstrap interval; None where it is undefined (no kept page in the sample)."""

    model_config = ConfigDict(frozen=True)

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return self.shown("{:.3f}".format, "undefined")

    def shown(self, form: Callable[[float], str] = "{:.1%}".format, undefined: str = "-", between: str = ", ") -> str:
        """The value and its interval in brackets, each number as `form` writes it; `undefined` where one is unknown."""
        if self.value is None or self.low is None or self.high is None:
            return undefined
        return f"{form(self.value)} [{form(self.low)}{between}{form(self.high)}]"


def group_resamples(groups: Int64, resamples: int, random_state: int) -> Iterator[Float64]:
    """How often each row counts in each bootstrap resample of whole groups: float64[n], `resamples` times.

    The same groups and random_state give the same resamples, so intervals of one report belong together.
    """
    names, member = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(random_state)
    even = np.full(len(names), 1 / len(names))
    for _ in range(resamples):
        yield rng.multinomial(len(names), even)[member].astype(np.float64)


def interval(value: float, drawn: Float64) -> Estimate:
    """`value` with the percentile interval of `drawn`, values of the resamples; undefined resamples are left out."""
    defined = drawn[np.isfinite(drawn)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail]) if len(defined) else (np.nan, np.nan)
    return Estimate(value=number(value), low=number(low), high=number(high))


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of whole groups.

    Attributes:
        groups: int64[n], group of each row, numbered from 0.
        counts: float64[b, g], how often each group was drawn.
    """

    groups: Int64
    counts: Float64

    @classmethod
    def draw(cls, groups: Int64, resamples: int, random_state: int) -> Self:
        """Resample groups; the draws are those of `group_resamples`."""
        names, member = np.unique(groups, return_inverse=True)
        counts = np.array(list(group_resamples(np.arange(len(names)), resamples, random_state)))
        return cls(member.astype(np.int64), counts.reshape(resamples, len(names)))

    def sums(self, values: npt.NDArray[Any], rows: Int64 | None = None) -> Float64:
        """float64[1 + b, k]: sums of `values` (number[m, k]) over `rows` (None: all), as they are and resampled."""
        groups = self.groups if rows is None else self.groups[rows]
        size = self.counts.shape[1]
        by_group = np.array([np.bincount(groups, column, minlength=size) for column in values.T]).reshape(-1, size).T
        return np.vstack([by_group.sum(0), self.counts @ by_group])

    def weights(self, rows: Int64) -> Iterator[Float64]:
        """float64[m]: weight of each of `rows`, as they are and resampled."""
        yield np.ones(len(rows))
        for counts in self.counts:
            yield counts[self.groups[rows]]


@dataclass(frozen=True)
class Measure:
    """How scores are held against labels: the keep rule, and the bootstrap behind every interval.

    Attributes:
        min_score: kept is a score, and a label, of at least this.
        resamples: of the bootstrap over groups.
        random_state: of everything random.
    """

    min_score: float
    resamples: int = 1000
    random_state: int = 0

    def means(
        self, values: Sequence[npt.NDArray[Any]], weights: Sequence[npt.NDArray[Any]], groups: Int64
    ) -> list[Estimate]:
        """Weighted means with their intervals; see `mean_estimates`."""
        return mean_estimates(values, weights, groups, self.resamples, self.random_state)


def mean_estimates(
    values: Sequence[npt.NDArray[Any]],
    weights: Sequence[npt.NDArray[Any]],
    groups: Int64,
    resamples: int,
    random_state: int,
) -> list[Estimate]:
    """Weighted means with their intervals, all from the same resamples; undefined where the weights sum to 0.

    Args:
        values: m times number[n].
        weights: m times number[n], not negative.
        groups: int64[n].
        resamples: of the bootstrap over groups.
        random_state: of the bootstrap.
    """
    mass = np.array(weights, dtype=np.float64)
    sums = mass * np.array(values, dtype=np.float64)
    totals = Bootstrap.draw(groups, resamples, random_state).sums(np.vstack([sums, mass]).T).T
    return [estimate(row) for row in ratio(totals[: len(sums)], totals[len(sums) :])]


def estimate(values: Float64) -> Estimate:
    """The first value with the interval of the others."""
    return interval(values[0], values[1:])


def ratio(top: Float64, bottom: Float64) -> Float64:
    """Quotients; NaN where the lower part is not positive."""
    quotients: Float64 = np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)
    return quotients


def number(value: float) -> float | None:
    """`value`, or None where it is NaN or infinite."""
    return float(value) if np.isfinite(value) else None


Fold = tuple[Int64, Int64]

# 20 bands of 5 rows: 5-word shingle sets of Jaccard similarity .5 are found with probability .47, .7 with .98, .8 with
# 1 - 4e-4. A false pair only makes a group larger, so the bands lean towards finding too many.
_SHINGLE, _BANDS, _ROWS = 5, 20, 5


def near_pairs(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (first, other) of texts that share a MinHash band, so that they are nearly the same text."""
    from filters.kernels.minhash import band_keys
    from filters.kernels.packed import PackedText
    from filters.kernels.words import word_hashes

    keys, valid = band_keys(
        word_hashes(PackedText.from_strings(texts)), shingle=_SHINGLE, bands=_BANDS, rows=_ROWS, seed=1
    )
    rows = np.flatnonzero(valid)
    pairs: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        _, first, inverse = np.unique(keys[rows, band], return_index=True, return_inverse=True)
        other = rows[first[inverse]]
        pairs.update((int(a), int(b)) for a, b in zip(other, rows, strict=True) if a != b)
    return sorted(pairs)


def connected(count: int, pairs: Iterable[tuple[int, int]]) -> Int64:
    """int64[count]: number of the connected component of each of `count` nodes, in order of first member."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return np.unique([root(node) for node in range(count)], return_inverse=True)[1].astype(np.int64)


def group_folds(groups: Int64, positive: npt.NDArray[np.bool_], folds: int, random_state: int) -> list[Fold]:
    """Split rows into `folds` parts of whole groups with about the same number of rows and of positives each.

    Groups are shuffled, then dealt from the largest to the smallest to the part that has the fewest rows (groups with
    a positive member: the fewest positives).

    Args:
        groups: int64[n].
        positive: bool[n].
        folds: number of parts, at least 2.
        random_state: seed of the shuffle.

    Returns:
        (training rows, test rows) of each part, sorted.

    Raises:
        ValueError: fewer groups than parts.
    """
    names, inverse = np.unique(groups, return_inverse=True)
    if len(names) < folds:
        raise ValueError(f"{len(names)} groups cannot fill {folds} folds")
    size = np.bincount(inverse)
    positives = np.bincount(inverse, positive.astype(np.float64))
    order = np.random.default_rng(random_state).permutation(len(names))
    order = order[np.lexsort((-size[order], -positives[order]))]
    part = np.empty(len(names), dtype=np.int64)
    held = np.zeros((folds, 2))
    for group in order:
        # Positives first: they are scarce, and their groups come first in `order`.
        choice = np.lexsort((held[:, 1], held[:, 0]))[0] if positives[group] else np.argmin(held[:, 1])
        part[group] = choice
        held[choice] += (positives[group], size[group])
    fold = part[inverse]
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(folds)]
