"""Histograms: exact, mergeable, and honest about thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from filters.scores.histogram import BINS, Histogram


def filled(scores: list[float], tokens: int = 2, text_bytes: int = 10) -> Histogram:
    histogram = Histogram()
    n = len(scores)
    histogram.add(
        np.array(scores, dtype=np.float32),
        tokens=np.full(n, tokens, dtype=np.int32),
        text_bytes=np.full(n, text_bytes, dtype=np.int64),
    )
    return histogram


def test_counts_by_every_weight() -> None:
    histogram = filled([0.0, 0.009, 0.5, 1.5, 4.999, 5.0])
    assert histogram.counts.sum(axis=1).tolist() == [6, 12, 60]
    assert histogram.coarse(5).tolist() == [3, 1, 0, 0, 2]


def test_what_lies_outside_counts_at_the_ends() -> None:
    histogram = filled([-1.0, 7.0])
    assert histogram.counts[0, 0] == 1
    assert histogram.counts[0, -1] == 1


def test_at_least_equals_counting_for_thresholds_on_borders() -> None:
    generator = np.random.default_rng(5)
    scores = generator.uniform(0, 5, 4000).astype(np.float32)
    histogram = filled(scores.tolist())
    for threshold in (0.0, 0.5, 1.5, 2.35, 4.99):
        assert abs(histogram.at_least(threshold) - int((scores >= threshold).sum())) <= 1
    assert histogram.at_least(1.5) == int((scores >= 1.5).sum())


def test_a_merge_equals_one_pass_in_any_order_and_big_integers_stay_exact() -> None:
    parts = [filled([0.3, 1.2]), filled([2.2, 4.8], tokens=2**30), filled([])]
    forward, backward = Histogram(), Histogram()
    for part in parts:
        forward.merge(part)
    for part in reversed(parts):
        backward.merge(part)
    assert np.array_equal(forward.counts, backward.counts)
    huge = filled([1.0], text_bytes=2**53)
    huge.merge(filled([1.0], text_bytes=1))
    assert huge.at_least(0, "bytes") == 2**53 + 1


def test_json_round_trip_and_refusal_of_other_bins() -> None:
    histogram = filled([0.1, 3.3])
    assert np.array_equal(Histogram.from_json(histogram.to_json()).counts, histogram.counts)
    with pytest.raises(ValueError, match="bins"):
        Histogram.from_json(histogram.to_json() | {"bins": BINS + 1})
    with pytest.raises(ValueError, match="divide"):
        histogram.coarse(7)
