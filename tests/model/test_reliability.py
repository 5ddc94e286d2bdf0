from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from filters.model import ConformalTable
from filters.model.reliability import DROP, KEEP, UNDECIDED


def sample(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels whose distance grows with the score."""
    rng = np.random.default_rng(seed)
    scores = rng.gamma(2, 0.6, rows).clip(0, 4.5)
    return scores, (scores + rng.normal(0, 0.1 + 0.3 * scores)).clip(0, 5)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_bands_of_new_pages_hold_the_label_as_often_as_asked(alpha: float) -> None:
    table = ConformalTable.fit(*sample(4000, 0))
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
    table = ConformalTable.fit(*sample(200, 0))
    stored = json.loads(table.model_dump_json())
    assert ConformalTable.model_validate(stored) == table
    for change in ({"edges": [2.0, 1.0]}, {"rows": [1]}, {"alphas": [0.0]}, {"residual": "x"}, {"below": [["a"]]}):
        with pytest.raises(ValidationError):
            ConformalTable.model_validate(stored | change)
