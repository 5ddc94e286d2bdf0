"""Estimates with intervals: percentile bootstraps over groups, because pages of one host are not independent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

CONFIDENCE = 0.95


class Estimate(BaseModel):
    """A value with the ends of its bootstrap interval; None where it is undefined (no kept page in the sample)."""

    model_config = ConfigDict(frozen=True)

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return "undefined"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


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
    # A resample draws groups, so rows are added up by group once.
    names, member = np.unique(groups, return_inverse=True)
    by_group = np.array([np.bincount(member, row, minlength=len(names)) for row in (*sums, *mass)])
    every = np.ones((len(names), 1))
    counts = np.array(list(group_resamples(np.arange(len(names)), resamples, random_state))).T
    totals = by_group @ np.hstack([every, counts])
    top, bottom = totals[: len(sums)], totals[len(sums) :]
    means = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
    return [interval(row[0], row[1:]) for row in means]


def number(value: float) -> float | None:
    """`value`, or None where it is NaN or infinite."""
    return float(value) if np.isfinite(value) else None
