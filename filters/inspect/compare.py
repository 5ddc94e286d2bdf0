"""Two runs side by side: did the scores drift, where, and what does that do to what is kept.

The population stability index is sum((p - q) ln(p / q)) over bins of the first run's scores with about a tenth of the
documents each (Siddiqi, Credit Risk Scorecards, 2006, where 0.1 is called a small shift and 0.25 a large one); the
Kolmogorov-Smirnov distance is the largest difference of the two cumulated shares. Both are taken over documents that
survived deduplication, from histograms alone.

Two samples of one distribution have a PSI too: it is about (1/n + 1/m) times a chi-squared variable with one degree of
freedom less than there are bins (Yurdakul and Naranjo 2020). An alarm needs more than the limit and more than that
chance gives, over all slices together, in `ERROR` of the comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from filters.arrays import Int64
from filters.errors import RunError
from filters.scores.finished_run import Run
from filters.scores.histogram import BINS, Histogram
from filters.scores.summary import Summary

PSI_BINS = 10
MAX_PSI = 0.25
ERROR = 0.05
FEWEST = 100
"""A slice with fewer documents in either run is too small to call drifted."""
FEWEST_OF_HOST = 20
CONSTANT_SHARE = 0.95
CONSTANT_BINS = 3
"""Scores are near-constant if `CONSTANT_SHARE` of them lie within this many neighbouring bins."""
HOSTS = 10


@dataclass(frozen=True)
class SliceDrift:
    """One slice in both runs: pairs are of this run and of the other.

    Attributes:
        by: column; None for all documents.
        value: of the column; None for documents without one.
        documents: survivors.
        share: of the run's survivors that the slice is.
        psi: population stability index; None where either has fewer than `FEWEST` documents.
        critical: what the psi of so few documents reaches by chance; None likewise.
        ks: Kolmogorov-Smirnov distance; None likewise.
        mean: mean score, None where there are no documents.
        kept: share of survivors at or above this run's threshold; None where there are no documents.
        constant: whether nearly all scores are the same.
    """

    by: str | None
    value: str | None
    documents: tuple[int, int]
    share: tuple[float, float]
    psi: float | None
    critical: float | None
    ks: float | None
    mean: tuple[float | None, float | None]
    kept: tuple[float | None, float | None]
    constant: tuple[bool, bool]

    @property
    def name(self) -> str:
        """The slice in words."""
        return "all documents" if self.by is None else f"{self.by} {self.value or '(none)'}"


@dataclass(frozen=True)
class MovedHost:
    """A host whose mean score differs between the runs by more than chance."""

    host: str
    documents: tuple[int, int]
    mean: tuple[float, float]
    keep_rate: tuple[float, float]


@dataclass(frozen=True)
class RunDrift:
    """What differs between two runs.

    Attributes:
        min_score: threshold of this run and of the other.
        models: digest of the model of each.
        total: all documents.
        slices: by language and the columns that both runs can be sliced by, largest first.
        mix_psi: column -> population stability index of the shares of its values.
        mix_critical: column -> what that reaches by chance.
        hosts: those that moved most, of hosts with `FEWEST_OF_HOST` documents in both.
        common_hosts: how many hosts have as many in both.
        max_psi: the allowed drift.
    """

    min_score: tuple[float, float]
    models: tuple[str, str]
    total: SliceDrift
    slices: tuple[SliceDrift, ...]
    mix_psi: Mapping[str, float]
    mix_critical: Mapping[str, float]
    hosts: tuple[MovedHost, ...]
    common_hosts: int
    max_psi: float

    @property
    def drifted(self) -> list[str]:
        """What lies over `max_psi`, in words; empty if nothing does."""
        found = [f"{drift.name}: PSI {drift.psi:.3f}" for drift in (self.total, *self.slices) if self.is_over(drift)]
        limits = {by: max(self.max_psi, self.mix_critical[by]) for by in self.mix_psi}
        return found + [f"mix of {by}: PSI {psi:.3f}" for by, psi in self.mix_psi.items() if psi > limits[by]]

    def is_over(self, drift: SliceDrift) -> bool:
        """Whether a slice drifted further than is allowed, and than chance explains."""
        return drift.psi is not None and drift.psi > max(self.max_psi, drift.critical or 0.0)

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self) | {"drifted": self.drifted}


def compare(run: Run, other: Run, *, max_psi: float = MAX_PSI) -> RunDrift:
    """Compare a run with another, such as the last dump's.

    Raises:
        RunError: the side files of either are missing or damaged, or `max_psi` is no limit.
    """
    if not max_psi >= 0:
        raise RunError(f"--max-psi {max_psi:g}: must be 0 or more")
    first, second = run.summary(groups=("host",)), other.summary(groups=("host",))
    totals = first.histograms.total, second.histograms.total
    columns = [by for by in first.histograms.slices if by in second.histograms.slices]
    slices: list[tuple[str, str | None, Histogram, Histogram]] = []
    mix, critical = {}, {}
    for by in columns:
        pair = first.histograms.slices[by], second.histograms.slices[by]
        values = sorted({*pair[0], *pair[1]}, key=lambda value: (value is None, value or ""))
        parts = [(value, pair[0].get(value) or Histogram(), pair[1].get(value) or Histogram()) for value in values]
        if set(values) <= {None}:
            continue
        slices += [(by, *part) for part in parts]
        counts = [np.array([part[side].total() for part in parts]) for side in (1, 2)]
        mix[by], critical[by] = psi(*counts), len(parts)
    tests = 1 + len(mix) + sum(min(one.total(), two.total()) >= FEWEST for _, _, one, two in slices)
    drifts = [_drift(by, value, one, two, totals, run.min_score, tests) for by, value, one, two in slices]
    hosts = list(_moved(first, second))
    return RunDrift(
        min_score=(run.min_score, other.min_score),
        models=(str(run.manifest["model"]["digest"]), str(other.manifest["model"]["digest"])),
        total=_drift(None, None, *totals, totals, run.min_score, tests),
        slices=tuple(sorted(drifts, key=lambda drift: (str(drift.by), -sum(drift.documents)))),
        mix_psi=mix,
        mix_critical={by: chance((totals[0].total(), totals[1].total()), bins, tests) for by, bins in critical.items()},
        hosts=tuple(moved for _, moved in sorted(hosts, key=lambda item: (-item[0], item[1].host))[:HOSTS] if _ > 3),
        common_hosts=len(hosts),
        max_psi=max_psi,
    )


def _drift(
    by: str | None,
    value: str | None,
    one: Histogram,
    two: Histogram,
    totals: tuple[Histogram, Histogram],
    min_score: float,
    tests: int,
) -> SliceDrift:
    pair = one, two
    counts = one.total(), two.total()
    known = min(counts) >= FEWEST
    borders = _decile_bins(one.counts[0])

    def of_both(value: Callable[[Histogram], float]) -> tuple[float | None, float | None]:
        first, second = (value(part) if part.total() else None for part in pair)
        return first, second

    return SliceDrift(
        by,
        value,
        counts,
        (counts[0] / max(totals[0].total(), 1), counts[1] / max(totals[1].total(), 1)),
        psi(np.add.reduceat(one.counts[0], borders), np.add.reduceat(two.counts[0], borders)) if known else None,
        chance(counts, len(borders), tests) if known else None,
        ks_distance(one.counts[0], two.counts[0]) if known else None,
        of_both(lambda part: part.mean_at_least(-1.0)),
        of_both(lambda part: part.at_least(min_score) / part.total()),
        (near_constant(one), near_constant(two)),
    )


def _decile_bins(counts: Int64) -> Int64:
    """First bins of at most `PSI_BINS` groups of bins with about the same number of documents."""
    cumulated = np.cumsum(counts)
    borders = np.searchsorted(cumulated, cumulated[-1] * np.arange(1, PSI_BINS) / PSI_BINS, side="left") + 1
    return np.unique(np.append(0, borders[borders < BINS])).astype(np.int64)


def psi(first: Int64, second: Int64) -> float:
    """Population stability index of two sets of counts over the same bins; 0 where either is empty.

    Half a document is added to every bin, so that an empty one is a large but finite difference.
    """
    if not first.sum() or not second.sum():
        return 0.0
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (first, second))
    return float(np.sum((p - q) * np.log(p / q)))


def chance(documents: tuple[int, int], bins: int, tests: int) -> float:
    """The PSI that one of `tests` comparisons of samples of one distribution reaches with probability `ERROR`."""
    from scipy.stats import chi2

    if not all(documents) or bins < 2:
        return 0.0
    return float(sum(1 / count for count in documents) * chi2.ppf(1 - ERROR / tests, bins - 1))


def ks_distance(first: Int64, second: Int64) -> float:
    """Kolmogorov-Smirnov distance of two sets of counts over the same fine bins."""
    p, q = (np.cumsum(counts) / max(int(counts.sum()), 1) for counts in (first, second))
    return float(np.abs(p - q).max())


def near_constant(histogram: Histogram) -> bool:
    """Whether nearly all scores are the same number: a model that says nothing, or a broken input."""
    total = histogram.total()
    if total < FEWEST:
        return False
    windows = np.convolve(histogram.counts[0], np.ones(CONSTANT_BINS, np.int64), mode="valid")
    return bool(windows.max() >= CONSTANT_SHARE * total)


def _moved(first: Summary, second: Summary) -> Iterator[tuple[float, MovedHost]]:
    """(standard errors between the means, host) of every host with enough documents in both runs."""
    spread = [_deviation(summary.histograms.total) for summary in (first, second)]
    hosts = first.groups["host"].largest(len(first.groups["host"]))
    frequent = [host for host in hosts if host.survivors >= FEWEST_OF_HOST]
    others = second.groups["host"].get([host.value for host in frequent])
    for one in frequent:
        two = others.get(one.value)
        if two is None or two.survivors < FEWEST_OF_HOST:
            continue
        error = float(np.sqrt(spread[0] ** 2 / one.survivors + spread[1] ** 2 / two.survivors))
        counts = one.survivors, two.survivors
        moved = MovedHost(one.value, counts, (one.mean_score, two.mean_score), (one.keep_rate, two.keep_rate))
        yield abs(one.mean_score - two.mean_score) / max(error, 1e-9), moved


def _deviation(histogram: Histogram) -> float:
    """Standard deviation of the scores, from the bins."""
    counts, edges = histogram.counts[0], histogram.edges.astype(np.float64)
    if not counts.sum():
        return 0.0
    centres = (edges[:-1] + edges[1:]) / 2
    mean = np.average(centres, weights=counts)
    return float(np.sqrt(np.average((centres - mean) ** 2, weights=counts)))
