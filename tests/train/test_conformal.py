from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from labelled_pages import columns, write

from filters.errors import ModelError
from filters.train.annotations import read_annotations
from filters.train.conformal import DROP, KEEP, UNDECIDED, ConformalTable, measure_coverage


def sample(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels whose distance grows with the score."""
    rng = np.random.default_rng(seed)
    scores = rng.gamma(2, 0.6, rows).clip(0, 4.5)
    return scores, (scores + rng.normal(0, 0.1 + 0.3 * scores)).clip(0, 5)


@pytest.mark.parametrize("residual", ["absolute", "signed"])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_bands_of_new_pages_hold_the_label_as_often_as_asked(residual: str, alpha: float) -> None:
    table = ConformalTable.fit(*sample(4000, 0), residual=residual)
    scores, expected = sample(4000, 1)
    low, high = table.interval(scores, alpha)
    assert np.mean((expected >= low) & (expected <= high)) == pytest.approx(1 - alpha, abs=0.02)


def test_bins_of_the_score_cover_everywhere_where_one_width_does_not() -> None:
    scores, expected = sample(8000, 1)
    coverage = {}
    for bins in (1, 8):
        low, high = ConformalTable.fit(*sample(8000, 0), bins=bins).interval(scores, 0.1)
        covered = (expected >= low) & (expected <= high)
        coverage[bins] = [covered[scores < 0.5].mean(), covered[scores > 2].mean()]
    assert coverage[1][0] > 0.97
    assert coverage[1][1] < 0.85
    assert np.abs(np.array(coverage[8]) - 0.9).max() < 0.04


def test_the_quantile_is_that_of_the_theorem() -> None:
    # Residuals 1/10 to 9/10: the ceil(10 * .9) = 9th smallest; for alpha .05 it would be the 10th of 9.
    scores, expected = np.full(9, 2.0), 2.0 + np.arange(1, 10) / 10
    table = ConformalTable.fit(scores, expected, bins=1, alphas=(0.05, 0.1, 0.5))
    assert table.above == ((None, pytest.approx(0.9), pytest.approx(0.5)),)
    assert table.rows[-1] == 9
    low, high = table.interval(np.array([1.0]), 0.1)
    assert (low[0], high[0]) == (pytest.approx(0.1), pytest.approx(1.9))
    assert [float(end[0]) for end in table.interval(np.array([1.0]), 0.05)] == [0, 5]
    assert table.interval(np.array([1.0]), 0.2)[1][0] == high[0]  # between stored ones: the safer


def test_a_document_is_keep_drop_or_undecided() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(500) * 4
    table = ConformalTable.fit(scores, scores + rng.choice([-0.4, 0.4], 500), bins=1)
    assert table.decide(np.array([0.5, 1.3, 1.8, 1.95]), 0.1, 1.5).tolist() == [DROP, UNDECIDED, UNDECIDED, KEEP]


def test_an_error_rate_without_a_quantile_is_refused() -> None:
    table = ConformalTable.fit(*sample(100, 0))
    for alpha in (0.001, 1.0):
        with pytest.raises(ValueError, match="must lie between"):
            table.interval(np.ones(1), alpha)


def test_a_table_survives_json_and_a_damaged_one_is_refused() -> None:
    table = ConformalTable.fit(*sample(200, 0), residual="signed")
    stored = json.loads(json.dumps(table.to_json()))
    assert ConformalTable.from_json(stored) == table
    for change in ({"edges": [2.0, 1.0]}, {"rows": [1]}, {"alphas": [0.0]}, {"residual": "x"}, {"below": [["a"]]}):
        with pytest.raises(ModelError, match=r"conformal table: .*Remedy"):
            ConformalTable.from_json(stored | change)
    with pytest.raises(ModelError, match="conformal table"):
        ConformalTable.from_json(None)


def test_coverage_is_measured_on_hosts_the_quantiles_have_not_seen(tmp_path: Path) -> None:
    labels = read_annotations(write(tmp_path / "labels.parquet", columns(900)))
    scores = labels.expected + np.random.default_rng(0).normal(0, 0.4, 900)
    narrow, wide = measure_coverage(scores, labels, 1.5, (0.1, 0.3), resamples=200, random_state=0)[::-1]
    for row in (narrow, wide):
        assert row.coverage.low < 1 - row.alpha < row.coverage.high
        assert row.keep + row.drop + row.undecided == pytest.approx(1)
        assert sum(part.rows for part in row.bins) == 900
    assert narrow.alpha == 0.3
    assert narrow.width < wide.width
    assert narrow.undecided < wide.undecided
    assert wide.wrong_keep.value is not None
    assert wide.wrong_keep.value <= 0.1
    # Hosts whose labels are all off by their own amount: rows of a host on both sides would hide that.
    spread = np.random.default_rng(1).normal(0, 1.5, labels.groups.max() + 1)[labels.groups]
    again = measure_coverage(labels.expected + spread, labels, 1.5, (0.1,), resamples=200, random_state=0)[0]
    assert again.width > wide.width
