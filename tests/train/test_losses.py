"""Losses on problems with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from filters.train.losses import boundaries, fit_loss


def test_classification_is_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4))
    targets = np.clip(1.5 + x[:, 0] + 0.5 * rng.normal(size=300), 0, 5)
    weights = rng.random(300) + 0.5
    found, intercept = fit_loss("classification", sparse.csr_array(x), targets, weights, 2.0, 1.5)
    reference = LogisticRegression(C=0.5, tol=1e-8).fit(x, targets >= 1.5, sample_weight=weights)
    np.testing.assert_allclose(found, reference.coef_[0], atol=2e-3)
    assert intercept == pytest.approx(reference.intercept_[0], abs=2e-3)


def test_ordinal_finds_the_direction_of_all_boundaries() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 5))
    direction = np.array([2.0, -1, 0.5, 0, 0])
    # A judge's scale is ordered, not even: a monotone map of what is to be learnt.
    targets = np.rint(np.clip(np.exp(x @ direction / 2), 0, 5))
    found, _ = fit_loss("ordinal", x, targets, np.ones(1000), 1.0, 1.5)
    assert found @ direction / np.linalg.norm(found) / np.linalg.norm(direction) > 0.99


def test_an_array_and_a_sparse_matrix_give_the_same_weights() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    targets = np.clip(2 + x[:, 0] + 0.5 * rng.normal(size=300), 0, 5)
    dense, first = fit_loss("ordinal", x, targets, np.ones(300), 2.0, 1.5)
    thin, second = fit_loss("ordinal", sparse.csr_array(x.astype(np.float64)), targets, np.ones(300), 2.0, 1.5)
    np.testing.assert_allclose(dense, thin, atol=1e-3)
    assert first == pytest.approx(second, abs=1e-3)


def test_a_boundary_needs_rows_on_both_sides() -> None:
    targets = np.r_[np.zeros(20), np.ones(20), np.full(5, 2.0), np.full(4, 3.0)]
    assert boundaries("ordinal", targets, 1.5) == [0.5, 1.5]
    assert boundaries("ordinal", targets[:45], 1.5) == [0.5, 1.5]
    assert boundaries("ordinal", targets[:44], 2.0) == [0.5]
    assert boundaries("ordinal", np.zeros(40), 2.0) == [2.0]
    assert boundaries("classification", targets, 2.25) == [2.25]
