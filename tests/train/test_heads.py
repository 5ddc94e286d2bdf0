"""Heads: every kind by every loss, on problems with a known answer; what is saved scores as before."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open
from scipy.special import expit
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC, SVR

from filters.config_file import load_config
from filters.errors import ConfigError
from filters.model.heads import Head, LinearHead, RbfHead, read_head
from filters.train.config import TrainConfig
from filters.train.heads import LandmarkHead, RidgeHead, SvrHead, fit_head, strengths
from filters.train.losses import boundaries

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[2]
LOSSES = ("regression", "ordinal", "classification")
KINDS = {
    "ridge": RidgeHead(l2=(0.1,)),
    "svr": SvrHead(gamma=1.0, c=(10.0,)),
    "landmarks": LandmarkHead(gamma=1.0, landmarks=200, l2=(0.01,)),
}
every_head = pytest.mark.parametrize(("kind", "loss"), list(itertools.product(KINDS, LOSSES)))


def made(kind: str, loss: str, **changes: Any) -> Any:
    return KINDS[kind].model_copy(update={"loss": loss} | changes)


def fit(config: Any, x: Float32, targets: Float64, weights: Float64 | None = None, positive: float = 1.5) -> Head:
    weights = np.ones(len(x)) if weights is None else weights
    return fit_head(config, strengths(config)[0], x, targets, weights, 0, positive)


def standard(x: Float32) -> Float32:
    return (x - x.mean(0)) / x.std(0)


def slope(rows: int = 400, seed: int = 0) -> tuple[Float32, Float64]:
    """Features, and scores from 0 to 5 that the first of them tells, with noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(2, 3, size=(rows, 4)).astype(np.float32)
    return x, np.clip(2 + (x[:, 0] - 2) / 2 + 0.3 * rng.normal(size=rows), 0, 5)


@pytest.mark.parametrize("shape", [(200, 5), (20, 50)])
def test_a_ridge_head_is_ridge_regression(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, size=shape).astype(np.float32)
    targets, weights = rng.random(shape[0]) * 4, rng.random(shape[0]) + 0.5
    head = fit_head(RidgeHead(), 0.5, x, targets, weights, 0)
    z = (x - x.mean(0)) / x.std(0)
    reference = Ridge(alpha=0.5 * shape[1]).fit(z, targets, sample_weight=weights / weights.mean())
    np.testing.assert_allclose(head(x), reference.predict(z), atol=1e-3)


def test_a_ridge_head_by_classification_is_logistic_regression() -> None:
    x, targets = slope()
    head = fit(made("ridge", "classification", l2=(2.0,)), x, targets)
    assert isinstance(head, LinearHead)
    # The penalty is per feature, and a quarter of that of squared error.
    reference = LogisticRegression(C=1 / (2.0 * 4 / 4), tol=1e-8).fit(standard(x), targets >= 1.5)
    np.testing.assert_allclose(head(x), reference.decision_function(standard(x)), atol=5e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_support_vectors_are_those_of_scikit_learn(loss: str) -> None:
    x, targets = slope(200)
    z = standard(x).astype(np.float16).astype(np.float32)
    head = fit(made("svr", loss), x, targets)
    if loss == "regression":
        expected = SVR(gamma=0.25, C=10, epsilon=0.1).fit(z, targets).predict(z)
    else:
        edges = (0.5, 1.5, 2.5, 3.5, 4.5) if loss == "ordinal" else (1.5,)
        expected = sum(SVC(gamma=0.25, C=10).fit(z, targets >= edge).decision_function(z) for edge in edges)
    np.testing.assert_allclose(head(x), expected, atol=0.05 * np.std(expected))


def test_landmarks_at_every_row_are_kernel_logistic_regression() -> None:
    x, targets = slope(200)
    head = fit(made("landmarks", "classification", l2=(0.4,)), x, targets)
    assert isinstance(head, RbfHead)
    assert len(head.centres) == 200
    # Where the gradient vanishes, the weight of a row is its residual over the penalty.
    scores = head(x).astype(np.float64)
    residuals = (targets >= 1.5) - expit(scores)
    kernel = rbf_kernel(standard(x).astype(np.float64), gamma=0.25)
    np.testing.assert_allclose(kernel @ residuals / (0.4 / 4) + head.intercept, scores, atol=0.02 * np.std(scores))
    assert residuals.sum() == pytest.approx(0, abs=0.05)


@every_head
def test_only_what_a_loss_looks_at_counts(kind: str, loss: str) -> None:
    x, targets = slope()
    within = np.clip(np.rint(targets) + 0.3 * np.sin(np.arange(400)), 0, 5)  # on the same sides of all boundaries
    sides = np.where(targets >= 1.5, 4.0, 1.0)  # on the same side of the keep rule
    first, second, third = (fit(made(kind, loss), x, scores)(x) for scores in (np.rint(targets), within, sides))
    if kind == "landmarks" and loss != "regression":
        # Which rows are landmarks hangs on the scores, what is learnt hardly.
        assert np.corrcoef(first, second)[0, 1] > 0.99
        return
    assert np.array_equal(first, second) == (loss != "regression")
    assert np.array_equal(second, third) == (loss == "classification")


@every_head
def test_it_ranks_pages_it_has_not_seen(kind: str, loss: str) -> None:
    x, targets = slope()
    unseen, truth = slope(seed=1)
    scores = fit(made(kind, loss), x, targets)(unseen)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert roc_auc_score(truth >= 1.5, scores) > 0.95
    if loss != "classification":
        assert spearmanr(scores, truth).statistic > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_classification_learns_the_side_of_the_keep_rule(kind: str) -> None:
    """Two features, each of which tells one threshold: the keep rule says which of them counts."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2)).astype(np.float32)
    targets = np.where(x[:, 0] > 0, np.where(x[:, 1] > 0, 4.0, 2.0), 1.0)
    low, high = (fit(made(kind, "classification"), x, targets, positive=at)(x) for at in (1.5, 3.0))
    assert roc_auc_score(targets >= 1.5, low) > 0.95 > roc_auc_score(targets >= 3.0, low) + 0.05
    assert roc_auc_score(targets >= 3.0, high) > 0.95


@every_head
def test_a_kernel_learns_what_no_line_can(kind: str, loss: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2)).astype(np.float32)
    targets = 1.5 + np.sign(x[:, 0] * x[:, 1])
    scores = fit(made(kind, loss), x[:400], targets[:400])(x[400:])
    assert (roc_auc_score(targets[400:] > 1, scores) > 0.9) == (kind != "ridge")


@every_head
def test_weights_count(kind: str, loss: str) -> None:
    x, targets = slope()
    odd = np.full((40, 4), 9, np.float32)  # the same features with two scores
    x, targets = np.r_[x, odd], np.r_[targets, [0.0, 5.0] * 20]
    low, high = np.r_[np.ones(400), [9.0, 1.0] * 20], np.r_[np.ones(400), [1.0, 9.0] * 20]
    first, second = (fit(made(kind, loss), x, targets, weights)(odd[:1])[0] for weights in (low, high))
    assert second > first + 0.2


@every_head
def test_a_saved_head_scores_exactly_as_before(tmp_path: Path, kind: str, loss: str) -> None:
    x, targets = slope()
    head = fit(made(kind, loss), x, targets)
    head.write(tmp_path / "head.safetensors")
    again = read_head(tmp_path / "head.safetensors", head.kind, 4)
    unseen, _ = slope(seed=2)
    np.testing.assert_array_equal(again(unseen), head(unseen))


@pytest.mark.parametrize("loss", LOSSES)
def test_support_vectors_are_reduced_under_any_loss(loss: str) -> None:
    x, targets = slope()
    whole, reduced = fit(made("svr", loss), x, targets), fit(made("svr", loss, centres=40), x, targets)
    assert isinstance(whole, RbfHead)
    assert isinstance(reduced, RbfHead)
    assert len(reduced.centres) == 40 < len(whole.centres)
    assert np.corrcoef(whole(x), reduced(x))[0, 1] > 0.95


@pytest.mark.parametrize("loss", LOSSES)
def test_the_same_page_many_times_does_no_harm_as_landmarks(loss: str) -> None:
    x, targets = slope(60)
    x, targets = np.repeat(x, 10, axis=0), np.repeat(targets, 10)
    scores = fit(made("landmarks", loss, landmarks=600), x, targets)(x)
    assert np.isfinite(scores).all()
    assert roc_auc_score(targets >= 1.5, scores) > 0.95


@pytest.mark.parametrize("loss", LOSSES)
def test_the_same_random_state_gives_the_same_landmarks(loss: str) -> None:
    x, targets = slope(500)
    config = made("landmarks", loss, landmarks=50)
    first, second, other = (fit_head(config, 0.01, x, targets, np.ones(500), state)(x) for state in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@every_head
def test_no_loss_needs_other_arrays(tmp_path: Path, kind: str, loss: str) -> None:
    x, targets = slope(100)
    fit(made(kind, loss), x, targets).write(tmp_path / "head.safetensors")
    names = {"mean", "scale", "weights"} | ({"intercept"} if kind == "ridge" else {"centres", "shape"})
    with safe_open(tmp_path / "head.safetensors", "numpy") as arrays:
        assert set(arrays.keys()) == names


@pytest.mark.parametrize("config", ["train-edu-en", "train-edu-minilm"])
@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("{kind: ridge, loss: hinge}", "'regression', 'ordinal' or 'classification' (got 'hinge')"),
        ("{kind: svr, loss: [ordinal]}", "'regression', 'ordinal' or 'classification' (got ['ordinal'])"),
        ("{kind: landmarks, loss: null}", "'regression', 'ordinal' or 'classification' (got None)"),
        ("{kind: landmarks, los: ordinal}", "unknown key; did you mean 'loss'? Allowed here: kind, landmarks, l2"),
    ],
)
def test_a_loss_that_there_is_not_is_refused_where_it_stands(
    tmp_path: Path, config: str, head: str, message: str
) -> None:
    lines = (ROOT / "configs" / f"{config}.yaml").read_text().splitlines()
    (number,) = (number for number, line in enumerate(lines) if line.startswith("  head:"))
    lines[number] = f"  head: {head}"
    (tmp_path / "mine.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        load_config(TrainConfig, tmp_path / "mine.yaml")
    key = "los" if "los:" in head else "loss"
    assert str(error.value).startswith(f"{tmp_path / 'mine.yaml'}:{number + 1}: classifier.head.{key}: ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_boundary_that_is_not_learnt_moves_no_score(kind: str) -> None:
    """Enough rows above 3.5 in one part of a cross-validation, too few in the next: one calibration serves both."""
    x, targets = slope()
    targets = np.minimum(targets, 3.4)
    rare, fewer = targets.copy(), targets.copy()
    top = np.argsort(targets, kind="stable")[-7:]
    rare[top], fewer[top[:4]] = 4.0, 4.0
    assert boundaries("ordinal", rare, 1.5) == [0.5, 1.5, 2.5, 3.5] != boundaries("ordinal", fewer, 1.5)
    first, second = (fit(made(kind, "ordinal"), x, scores)(x) for scores in (rare, fewer))
    shown = targets < 3
    assert abs(np.mean(first[shown] - second[shown])) < 0.1 * np.std(first[shown])
