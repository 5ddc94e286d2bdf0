"""Heads: every kind, on problems with a known answer; what is saved scores as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVR

from filters.config.yaml_file import load_config
from filters.errors import ConfigError
from filters.model.kinds.heads import Head, LandmarkHead, RbfHead, RidgeHead, SvrHead, fit_head, read_head, strengths
from filters.train.config import TrainConfig

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[3]
KINDS = {
    "ridge": RidgeHead(l2=(0.1,)),
    "svr": SvrHead(gamma=1.0, c=(10.0,)),
    "landmarks": LandmarkHead(gamma=1.0, landmarks=200, l2=(0.01,)),
}
every_head = pytest.mark.parametrize("kind", KINDS)


def made(kind: str, **changes: Any) -> Any:
    return KINDS[kind].model_copy(update=changes)


def fit(config: Any, x: Float32, targets: Float64, weights: Float64 | None = None) -> Head:
    weights = np.ones(len(x)) if weights is None else weights
    return fit_head(config, strengths(config)[0], x, targets, weights, 0)


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


def test_support_vectors_are_those_of_scikit_learn() -> None:
    x, targets = slope(200)
    z = standard(x).astype(np.float16).astype(np.float32)
    head = fit(made("svr"), x, targets)
    expected = SVR(gamma=0.25, C=10, epsilon=0.1).fit(z, targets).predict(z)
    np.testing.assert_allclose(head(x), expected, atol=0.05 * np.std(expected))


@every_head
def test_it_ranks_pages_it_has_not_seen(kind: str) -> None:
    x, targets = slope()
    unseen, truth = slope(seed=1)
    scores = fit(made(kind), x, targets)(unseen)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert roc_auc_score(truth >= 1.5, scores) > 0.95
    assert spearmanr(scores, truth).statistic > 0.9


@every_head
def test_a_kernel_learns_what_no_line_can(kind: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2)).astype(np.float32)
    targets = 1.5 + np.sign(x[:, 0] * x[:, 1])
    scores = fit(made(kind), x[:400], targets[:400])(x[400:])
    assert (roc_auc_score(targets[400:] > 1, scores) > 0.9) == (kind != "ridge")


@every_head
def test_weights_count(kind: str) -> None:
    x, targets = slope()
    odd = np.full((40, 4), 9, np.float32)  # the same features with two scores
    x, targets = np.r_[x, odd], np.r_[targets, [0.0, 5.0] * 20]
    low, high = np.r_[np.ones(400), [9.0, 1.0] * 20], np.r_[np.ones(400), [1.0, 9.0] * 20]
    first, second = (fit(made(kind), x, targets, weights)(odd[:1])[0] for weights in (low, high))
    assert second > first + 0.2


@every_head
def test_a_saved_head_scores_exactly_as_before(tmp_path: Path, kind: str) -> None:
    x, targets = slope()
    head = fit(made(kind), x, targets)
    head.write(tmp_path / "head.safetensors")
    again = read_head(tmp_path / "head.safetensors", head.kind, 4)
    unseen, _ = slope(seed=2)
    np.testing.assert_array_equal(again(unseen), head(unseen))


def test_support_vectors_are_reduced() -> None:
    x, targets = slope()
    whole, reduced = fit(made("svr"), x, targets), fit(made("svr", centres=40), x, targets)
    assert isinstance(whole, RbfHead)
    assert isinstance(reduced, RbfHead)
    assert len(reduced.centres) == 40 < len(whole.centres)
    assert np.corrcoef(whole(x), reduced(x))[0, 1] > 0.95


def test_the_same_page_many_times_does_no_harm_as_landmarks() -> None:
    x, targets = slope(60)
    x, targets = np.repeat(x, 10, axis=0), np.repeat(targets, 10)
    scores = fit(made("landmarks", landmarks=600), x, targets)(x)
    assert np.isfinite(scores).all()
    assert roc_auc_score(targets >= 1.5, scores) > 0.95


def test_the_same_random_state_gives_the_same_landmarks() -> None:
    x, targets = slope(500)
    config = made("landmarks", landmarks=50)
    first, second, other = (fit_head(config, 0.01, x, targets, np.ones(500), state)(x) for state in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@every_head
def test_a_head_is_its_arrays(tmp_path: Path, kind: str) -> None:
    x, targets = slope(100)
    fit(made(kind), x, targets).write(tmp_path / "head.safetensors")
    names = {"mean", "scale", "weights"} | ({"intercept"} if kind == "ridge" else {"centres", "shape"})
    with safe_open(tmp_path / "head.safetensors", "numpy") as arrays:
        assert set(arrays.keys()) == names


@pytest.mark.parametrize("config", ["train-edu-en", "train-edu-minilm"])
def test_an_option_that_went_is_refused_where_it_stands(tmp_path: Path, config: str) -> None:
    lines = (ROOT / "configs" / f"{config}.yaml").read_text().splitlines()
    (number,) = (number for number, line in enumerate(lines) if line.startswith("  head:"))
    lines[number] = "  head: {kind: svr, loss: ordinal}"
    (tmp_path / "mine.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="unknown key") as error:
        load_config(TrainConfig, tmp_path / "mine.yaml")
    assert str(error.value).startswith(f"{tmp_path / 'mine.yaml'}:{number + 1}: classifier.head.loss: ")
