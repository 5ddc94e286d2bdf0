"""Comparing runs: drift where there is some, none where there is not, and an exit status for CI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from filters.errors import RunError
from filters.inspect.compare import chance, compare, ks_distance, near_constant, psi
from filters.scores.finished_run import Run
from filters.scores.histogram import Histogram
from tests.inspect.synthetic import write_run


def histogram(scores: Any) -> Histogram:
    found = Histogram()
    n = len(scores)
    found.add(np.asarray(scores, np.float32), tokens=np.ones(n, np.int64), text_bytes=np.ones(n, np.int64))
    return found


def test_distances_equal_their_definitions() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.normal(1, 0.3, 4000), generator.normal(1.2, 0.3, 3000)
    one, two = histogram(first.clip(0, 5)).counts[0], histogram(second.clip(0, 5)).counts[0]
    grid = np.linspace(0, 5, 501)
    plain = np.abs(np.searchsorted(np.sort(first), grid) / 4000 - np.searchsorted(np.sort(second), grid) / 3000).max()
    assert ks_distance(one, two) == pytest.approx(plain, abs=0.005)
    p, q = np.array([10, 30, 60]), np.array([30, 30, 40])
    assert psi(p * 1000, q * 1000) == pytest.approx(
        sum((a - b) / 100 * np.log(a / b) for a, b in zip(p, q, strict=True)), rel=1e-3
    )
    assert psi(p, p) == 0
    assert psi(p, p * 0) == 0


def test_near_constant_scores_are_seen() -> None:
    assert near_constant(histogram([1.0] * 990 + [3.0] * 10))
    assert not near_constant(histogram(np.linspace(0, 3, 1000)))
    assert not near_constant(histogram([1.0] * 5))


def test_a_shifted_language_and_a_moved_host_are_named(tmp_path: Path) -> None:
    before = write_run(tmp_path / "before", 6000, seed=1)
    same = write_run(tmp_path / "same", 5000, seed=2)
    shifted = write_run(tmp_path / "shifted", 6000, seed=3, shift={"da": 0.6}, host_shift={"host-1.example": 0.8})
    calm = compare(Run(same), Run(before))
    assert calm.drifted == []
    assert calm.hosts == ()
    assert calm.total.psi is not None
    assert calm.total.psi < 0.02
    found = compare(Run(shifted), Run(before))
    assert [part.split(":")[0] for part in found.drifted] == ["language da"]
    assert found.hosts[0].host == "host-1.example"
    assert found.hosts[0].mean[0] > found.hosts[0].mean[1]
    json.dumps(found.to_json())


def test_a_changed_mix_is_drift_too(tmp_path: Path) -> None:
    before, after = write_run(tmp_path / "a", 5000, seed=1), write_run(tmp_path / "b", 5000, seed=2, danish=0.7)
    assert "mix of language" in " ".join(compare(Run(after), Run(before)).drifted)


def test_chance_raises_no_alarm_in_small_slices() -> None:
    """20 slices of 100 documents of one distribution: 97 % of such comparisons raised an alarm."""
    alarms = drifted = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        for number in range(20):
            first, second = generator.gamma(2, 0.5, 100), generator.gamma(2, 0.5, 100)
            moved = second + 0.8
            borders = np.quantile(first, np.arange(1, 10) / 10)
            counts = [np.bincount(np.searchsorted(borders, part), minlength=10) for part in (first, second, moved)]
            limit = max(0.25, chance((100, 100), 10, 21))
            alarms += psi(counts[0], counts[1]) > limit
            drifted += number == 0 and psi(counts[0], counts[2]) > limit
    assert alarms <= 6  # of 60 runs one in twenty, and some for the chi-squared approximation
    assert drifted >= 55
    assert chance((10**7, 10**7), 10, 21) < 1e-4


@pytest.mark.parametrize("limit", [float("nan"), -1.0])
def test_a_limit_that_nothing_is_over_is_refused(tmp_path: Path, limit: float) -> None:
    run = Run(write_run(tmp_path / "run", 50, seed=1))
    with pytest.raises(RunError, match="must be 0 or more"):
        compare(run, run, max_psi=limit)
