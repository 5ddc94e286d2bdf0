from __future__ import annotations

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from filters.train.calibration import fit_calibration


def sample(rows: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    expected = np.round(np.clip(rng.gamma(2, 0.5, rows), 0, 5), 1)
    raw = 0.4 * expected + rng.normal(0, 0.25, rows)
    return raw, expected


def test_map_is_monotone_and_stays_on_the_scale() -> None:
    raw, expected = sample()
    calibration = fit_calibration(raw, expected)
    assert np.all(np.diff(calibration.raw) > 0)
    assert np.all(np.diff(calibration.score) >= 0)
    scores = calibration(np.linspace(-100, 100, 10_001))
    assert scores.dtype == np.float32
    assert np.all(np.diff(scores) >= 0)
    assert scores[0] == 0
    assert scores[-1] == 5


def test_order_is_kept_beyond_the_scores_seen() -> None:
    raw, expected = sample()
    calibration = fit_calibration(raw, expected)
    above = calibration(np.array([raw.max(), raw.max() + 0.05, raw.max() + 0.1]))
    assert np.all(np.diff(above) > 0)


@pytest.mark.parametrize("min_score", [0.5, 1.5, 3.0])
def test_anchored_keeps_at_the_keep_rule_what_the_judge_keeps(min_score: float) -> None:
    raw, expected = sample()
    scores = fit_calibration(raw, expected, min_score=min_score)(raw)
    assert np.mean(scores >= np.float32(min_score)) == pytest.approx(np.mean(expected >= min_score), abs=0.001)


def test_anchored_counts_rows_by_weight() -> None:
    raw, expected = sample(400)
    weights = np.random.default_rng(1).integers(1, 4, 400).astype(float)
    scores = fit_calibration(raw, expected, weights)(raw)
    kept, wanted = (weights[side >= 1.5].sum() / weights.sum() for side in (scores, expected))
    assert kept == pytest.approx(wanted, abs=0.005)


@pytest.mark.parametrize("min_score", [1.0, 1.5, 2.0])
def test_anchored_piles_nothing_up_at_the_keep_rule(min_score: float) -> None:
    raw, expected = sample(20_000)
    scores = fit_calibration(raw, expected, min_score=min_score)(raw)
    counts = np.histogram(scores, np.arange(min_score - 0.2, min_score + 0.21, 0.05))[0]
    assert counts.max() < 4 * counts.min()
    assert np.all(counts[1:] < 2 * counts[:-1])


def test_it_keeps_every_difference_of_rank_and_is_nearly_the_expectation() -> None:
    raw, expected = sample()
    scores = fit_calibration(raw, expected)(raw).astype(np.float64)
    ordered = scores[np.argsort(raw, kind="stable")]
    assert np.all(np.diff(ordered[(ordered > 0) & (ordered < 5)]) > 0)
    best = np.mean((IsotonicRegression().fit_transform(raw, expected) - expected) ** 2)
    assert np.mean((scores - expected) ** 2) < 1.1 * best
    for high in (2.0, 2.5):
        assert abs((scores - expected)[scores >= high].mean()) < 0.15


def test_it_is_the_line_where_labels_are_one() -> None:
    raw = np.linspace(0, 1, 200)
    scores = fit_calibration(raw, 0.5 + 3 * raw)(raw)
    np.testing.assert_allclose(scores, 0.5 + 3 * raw, atol=0.02)


def test_labels_that_fall_give_a_map_that_rises() -> None:
    raw = np.linspace(0, 1, 200)
    assert np.all(np.diff(fit_calibration(raw, 3 - 2 * raw)(raw)) > 0)


def test_constant_scores_cannot_be_calibrated() -> None:
    with pytest.raises(ValueError, match="all raw scores are equal"):
        fit_calibration(np.zeros(60), np.arange(60) / 20)


@pytest.mark.parametrize("noise", [3.0, 1.7, 1.2, 0.8, 0.5, 0.3])
@pytest.mark.parametrize("shape", [0.6, 2.0])
def test_an_anchored_map_promises_little_too_much_however_weak_the_classifier(noise: float, shape: float) -> None:
    """Rank correlations of .2 to .9 with the judge; measured on rows that the map was not fitted on."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        expected = np.round(np.clip(rng.gamma(shape, 0.9 / shape, 8000), 0, 5), 1)
        raw = expected + rng.normal(0, noise, 8000)
        scores = fit_calibration(raw[:4000], expected[:4000])(raw[4000:])
        kept = scores >= 1.5
        if kept.sum() >= 50:
            assert scores[kept].mean() - expected[4000:][kept].mean() < 0.45
        assert np.all(np.diff(scores[np.argsort(raw[4000:], kind="stable")]) >= 0)


@pytest.mark.parametrize(
    ("correlation", "share", "most", "least_kept"),
    [
        (0.3, 0.3, 0.25, 0.9),
        (0.5, 0.11, 0.45, 0),
        (0.7, 0.035, 0.55, 0.3),
        (0.9, 0.11, 0.2, 0.9),
        (0.9, 0.035, 0.3, 0.9),
    ],
)
def test_what_a_map_promises_of_rare_pages(correlation: float, share: float, most: float, least_kept: float) -> None:
    """1,500 labels of which few are kept; docs/experiments.md has the means."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        hidden = rng.normal(size=41_500)
        raw = correlation * hidden + np.sqrt(1 - correlation**2) * rng.normal(size=len(hidden))
        expected = np.clip(1.5 + 0.9 * (hidden - np.quantile(hidden, 1 - share)), 0, 5)
        scores = fit_calibration(raw[:1500], expected[:1500])(raw[1500:])
        kept = scores >= 1.5
        assert kept.mean() >= least_kept * share * 0.7
        if kept.any():
            assert scores[kept].mean() - expected[1500:][kept].mean() < most


def test_a_good_classifier_stays_anchored() -> None:
    raw, expected = sample()
    scores = fit_calibration(raw, expected)(raw)
    assert np.mean(scores >= 1.5) == pytest.approx(np.mean(expected >= 1.5), abs=0.002)
