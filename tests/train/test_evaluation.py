from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from labelled_pages import columns, write
from scipy.stats import spearmanr
from sklearn.metrics import (
    average_precision_score,
    cohen_kappa_score,
    f1_score,
    precision_recall_curve,
    precision_score,
    recall_score,
    roc_auc_score,
)

from filters.statistics.agreement import METRICS, LabelMetrics
from filters.statistics.resampling import Measure, mean_estimates
from filters.train.annotations import read_annotations
from filters.train.evaluation import COMPARED, compare, estimates


def sample(rows: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with many ties, expected labels and whole-number labels."""
    rng = np.random.default_rng(2)
    expected = np.round(np.clip(rng.gamma(2, 0.5, rows), 0, 5), 1)
    scores = np.round(np.clip(expected + rng.normal(0, 0.6, rows), 0, 5), 1).astype(np.float32)
    return scores, expected, np.rint(expected).astype(np.int64)


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_equal_those_of_scikit_learn(weighted: bool) -> None:
    scores, expected, judged = sample()
    weights = np.random.default_rng(3).random(500) + 0.1 if weighted else np.ones(500)
    metrics = LabelMetrics(scores, expected, judged, 1.5).metrics(weights)
    assert list(metrics) == list(METRICS)
    wanted, kept = expected >= 1.5, scores >= np.float32(1.5)
    assert metrics["precision"] == pytest.approx(precision_score(wanted, kept, sample_weight=weights))
    assert metrics["recall"] == pytest.approx(recall_score(wanted, kept, sample_weight=weights))
    assert metrics["f1"] == pytest.approx(f1_score(wanted, kept, sample_weight=weights))
    assert metrics["pr_auc"] == pytest.approx(average_precision_score(wanted, scores, sample_weight=weights))
    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(wanted, scores, sample_weight=weights))
    precision, recall, thresholds = precision_recall_curve(wanted, scores, sample_weight=weights)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert metrics["best_f1"] == pytest.approx(f1.max())
    assert metrics["best_threshold"] == pytest.approx(thresholds[f1.argmax()])
    rounded = np.rint(scores).astype(int)
    kappa = cohen_kappa_score(judged, rounded, weights="quadratic", sample_weight=weights)
    assert metrics["qwk"] == pytest.approx(kappa)
    assert metrics["mae"] == pytest.approx(np.average(np.abs(scores - expected), weights=weights))
    if not weighted:
        assert metrics["spearman"] == pytest.approx(spearmanr(scores, expected).statistic)


def test_a_row_of_weight_two_counts_as_two_rows() -> None:
    scores, expected, judged = sample(200)
    weights = np.random.default_rng(4).integers(0, 4, 200)
    weighted = LabelMetrics(scores, expected, judged, 1.5).metrics(weights.astype(float))
    repeated = LabelMetrics(
        np.repeat(scores, weights), np.repeat(expected, weights), np.repeat(judged, weights), 1.5
    ).metrics(np.ones(weights.sum()))
    assert weighted == pytest.approx(repeated)
    assert weighted["spearman"] == pytest.approx(
        spearmanr(np.repeat(scores, weights), np.repeat(expected, weights)).statistic
    )


def test_an_example_by_hand() -> None:
    # kept: rows 0, 1, 2; wanted: rows 0, 1, 3 -> precision 2/3, recall 2/3.
    scores = np.array([3.0, 2.0, 1.6, 1.0, 0.2], np.float32)
    expected = np.array([3.0, 1.5, 1.0, 1.6, 0.0])
    metrics = LabelMetrics(scores, expected, np.array([3, 2, 1, 2, 0]), 1.5).metrics(np.ones(5))
    assert metrics["precision"] == pytest.approx(2 / 3)
    assert metrics["recall"] == pytest.approx(2 / 3)
    assert metrics["best_f1"] == pytest.approx(6 / 7)  # keep rows 0 to 3
    assert metrics["best_threshold"] == 1.0
    assert metrics["pr_auc"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert metrics["roc_auc"] == pytest.approx(5 / 6)  # one of six pairs, (3, 2), is in the wrong order
    assert metrics["mae"] == pytest.approx((0 + 0.5 + 0.6 + 0.6 + 0.2) / 5)
    # Bins of 0.25, one page each: the mean distance is the error again.
    assert metrics["calibration_error"] == pytest.approx(metrics["mae"])
    assert metrics["kept_share"] == pytest.approx(0.6)
    assert metrics["judge_kept_share"] == pytest.approx(0.6)


def test_a_score_on_the_threshold_is_kept_in_float32() -> None:
    metrics = LabelMetrics(np.array([1.6, 0.0]), np.array([1.6, 0.0]), np.array([2, 0]), 1.6).metrics(np.ones(2))
    assert metrics["recall"] == 1
    assert metrics["precision"] == 1


def test_undefined_metrics_are_nan_not_a_number_that_looks_good() -> None:
    metrics = LabelMetrics(np.zeros(3, np.float32), np.zeros(3), np.zeros(3, np.int64), 1.5).metrics(np.ones(3))
    assert metrics["precision"] == 0
    for name in ("recall", "f1", "best_f1", "pr_auc", "roc_auc", "spearman", "qwk"):
        assert np.isnan(metrics[name]), name


def test_intervals_enclose_the_value_follow_the_seed_and_narrow_with_rows(tmp_path: Path) -> None:
    def run(rows: int, seed: int) -> dict[str, object]:
        labels = read_annotations(write(tmp_path / "labels.parquet", columns(rows)))
        scores = labels.expected + np.random.default_rng(0).normal(0, 0.8, len(labels))
        sample, natural = estimates([scores], labels, Measure(1.5, 300, seed))
        assert natural is not None
        assert natural["f1"].value != sample["f1"].value
        return dict(sample)

    few, many = run(150, 0), run(1500, 0)
    for name in ("f1", "pr_auc", "spearman"):
        assert few[name].low < few[name].value < few[name].high
        assert many[name].high - many[name].low < few[name].high - few[name].low
    assert run(150, 0) == few
    assert run(150, 1) != few


def test_several_predictions_are_averaged(tmp_path: Path) -> None:
    labels = read_annotations(write(tmp_path / "labels.parquet", columns()))
    rng = np.random.default_rng(0)
    predictions = [labels.expected + rng.normal(0, 0.5, len(labels)) for _ in range(3)]
    each = [estimates([p], labels, Measure(1.5, 100, 0))[0]["mae"].value for p in predictions]
    together = estimates(predictions, labels, Measure(1.5, 100, 0))[0]["mae"].value
    assert together == pytest.approx(np.mean(each))


def test_the_natural_mix_counts_random_rows_by_their_weight(tmp_path: Path) -> None:
    data = columns()
    data["sampling"] = ["random" if row % 2 else "active" for row in range(240)]
    labels = read_annotations(write(tmp_path / "labels.parquet", data))
    scores = labels.expected + np.random.default_rng(0).normal(0, 0.5, 240)
    _, natural = estimates([scores], labels, Measure(1.5, 100, 0))
    error = np.abs(scores.astype(np.float32) - labels.expected)
    assert natural is not None
    assert natural["mae"].value == pytest.approx(np.average(error[1::2], weights=data["natural_weight"][1::2]))


def test_bootstrap_draws_whole_groups(tmp_path: Path) -> None:
    # All pages of a host are alike: with hosts drawn whole the interval is wider than with rows drawn one by one.
    data = columns(300)
    texts = [f"{text} {row}" for row, text in enumerate(data["text"])]
    expected = np.repeat(np.random.default_rng(0).random(30) * 3, 10).round(1)
    data |= {"text": texts, "expected_score": expected.tolist(), "score": np.rint(expected).astype(int).tolist()}
    scores = np.zeros(300)
    alone = data | {"url": [f"https://h{row}.example/" for row in range(300)]}
    grouped = data | {"url": [f"https://h{row // 10}.example/" for row in range(300)]}
    width = {}
    for name, variant in (("alone", alone), ("grouped", grouped)):
        labels = read_annotations(write(tmp_path / f"{name}.parquet", variant))
        mae = estimates([scores], labels, Measure(1.5, 500, 0))[0]["mae"]
        width[name] = mae.high - mae.low
    assert width["grouped"] > 2 * width["alone"]


def test_errors_that_cancel_within_a_bin_are_no_calibration_error() -> None:
    scores = np.array([1.0, 1.1, 2.0, 2.1])
    expected = np.array([0.6, 1.5, 2.3, 2.4])
    metrics = LabelMetrics(scores, expected, np.rint(expected).astype(np.int64), 1.5).metrics(np.ones(4))
    # Bin 1.0 to 1.25: errors +.4 and -.4; bin 2.0 to 2.25: -.3 and -.3.
    assert metrics["calibration_error"] == pytest.approx((0 + 0.6) / 4)
    assert metrics["mae"] == pytest.approx((0.4 + 0.4 + 0.3 + 0.3) / 4)


def test_paired_bootstrap_tells_a_clearly_better_model(tmp_path: Path) -> None:
    labels = read_annotations(write(tmp_path / "labels.parquet", columns(300)))
    rng = np.random.default_rng(0)
    good, bad = (labels.expected + rng.normal(0, spread, 300) for spread in (0.2, 1.2))
    result = compare([good], [bad], labels, Measure(1.5, 300, 0))
    assert tuple(result) == COMPARED
    for row in result.values():
        assert row.first is not None
        assert row.second is not None
        assert row.difference.value == pytest.approx(row.first - row.second)
        assert row.difference.low > 0
        assert row.wins == 1
    reverse = compare([bad], [good], labels, Measure(1.5, 300, 0))
    assert reverse["f1"].wins == 0
    assert reverse["f1"].difference.high == pytest.approx(-result["f1"].difference.low)


def test_paired_bootstrap_of_equal_models_is_a_draw_and_sees_what_unpaired_intervals_hide(tmp_path: Path) -> None:
    labels = read_annotations(write(tmp_path / "labels.parquet", columns(300)))
    scores = labels.expected + np.random.default_rng(0).normal(0, 0.8, 300)
    same = compare([scores], [scores], labels, Measure(1.5, 100, 0))["pr_auc"]
    assert (same.difference.value, same.difference.low, same.difference.high, same.wins) == (0, 0, 0, 0.5)
    # A little worse everywhere: intervals of the two overlap, that of the difference does not reach 0.
    worse = scores + np.random.default_rng(1).normal(0, 0.3, 300)
    pair = compare([scores], [worse], labels, Measure(1.5, 300, 0))["spearman"]
    alone = [estimates([s], labels, Measure(1.5, 300, 0))[0]["spearman"] for s in (scores, worse)]
    assert alone[0].low < alone[1].high
    assert pair.difference.low > 0


def test_mean_estimates_are_weighted_means_with_intervals_by_group() -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.random((2, 400)), rng.random((2, 400))
    alone = mean_estimates(values, weights, np.arange(400), 400, 0)
    for row, (value, weight) in zip(alone, zip(values, weights, strict=True), strict=True):
        assert row.value == pytest.approx(np.average(value, weights=weight))
        # 1.96 standard errors of a weighted mean, within a quarter.
        error = 1.96 * np.sqrt(np.average((value - row.value) ** 2, weights=weight**2) * (weight**2).sum())
        assert (row.high - row.low) / 2 == pytest.approx(error / weight.sum(), rel=0.25)
    constant = np.repeat(rng.random(20), 20)
    grouped = mean_estimates([constant], [np.ones(400)], np.repeat(np.arange(20), 20), 400, 0)[0]
    single = mean_estimates([constant], [np.ones(400)], np.arange(400), 400, 0)[0]
    assert grouped.high - grouped.low > 2.5 * (single.high - single.low)
    assert mean_estimates([constant], [np.zeros(400)], np.arange(400), 100, 0)[0].value is None
