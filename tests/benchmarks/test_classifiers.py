"""README's tables of the classifier kinds are made of the results' rows, in a fixed order, and of nothing else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.classifiers import AGAINST, BESIDE, FITS, KINDS, ROWS, WINDOWS, gains, load, tables

THREE = " | ".join(["0.400 [0.300, 0.500]"] * 3)


def row(name: str, value: float, speed: float) -> dict[str, Any]:
    estimate = {"value": value, "low": value - 0.1, "high": value + 0.1}
    metrics = ("f1", "best_f1", "pr_auc", "roc_auc", "spearman", "mae")
    return {"name": name, "sample": dict.fromkeys(metrics, estimate), "docs_per_second": speed, "bytes": 9_640_000}


def test_rows_appear_with_intervals_speed_and_size() -> None:
    found = tables({"rows": [row("edu-en", 0.5, 15357.4), row("fasttext", 0.25, 1.26), row("other", 0.1, 1)]})
    assert found["kinds"][2:] == [
        f"| {KINDS['fasttext']} | " + "0.250 [0.150, 0.350] | " * 3 + "1.3 | 9.6 |",
        f"| {KINDS['edu-en']} | " + "0.500 [0.400, 0.600] | " * 3 + "15,357 | 9.6 |",
    ]
    assert len(found["fit"]) == len(found["windows"]) == 2


def test_a_row_that_was_not_measured_is_left_out() -> None:
    found = tables({"rows": [row("linear-balanced", 0.4, 100)]})
    assert found["fit"][2:] == [f"| {' | '.join(FITS['linear-balanced'])} | {THREE} |  |"]
    assert len(found["kinds"]) == 2


def test_a_fit_has_its_difference_from_the_config_s() -> None:
    difference = {"value": -0.0123, "low": -0.03, "high": 0.0049}
    measured = row("encoder-landmarks", 0.4, 1) | {"gain": {"pr_auc": {"difference": difference}}}
    (line,) = tables({"rows": [measured]})["fit"][2:]
    assert line.endswith(f"| {THREE} | -0.012 [-0.030, +0.005] |")


def test_every_row_of_the_tables_can_be_measured_again() -> None:
    shipped = {name for name in KINDS if name.startswith("edu-")}
    assert set(ROWS) == (set(KINDS) | set(FITS) | set(WINDOWS) | set(BESIDE)) - shipped
    assert set(AGAINST.values()) <= set(ROWS) | shipped
    for name in ROWS:
        found, config = load(name, ["annotations=a.parquet", "output=b", "random_state=5"])
        assert (found, config.random_state) == (name, 5)
        if name.startswith("encoder"):
            assert config.classifier.kind == "encoder"
            assert config.classifier.beside == ()
        if name in BESIDE:
            assert len(config.classifier.beside) == len(BESIDE[name][1])


def test_a_config_may_be_named_and_changed() -> None:
    name, config = load("short=configs/train-edu-linear.yaml,window=900,classifier.bits=12", ["window=800"])
    assert (name, config.window, config.classifier.bits) == ("short", 900, 12)
    assert load("configs/train-edu-linear.yaml,window=900", [])[0] == "edu-linear"


class Labels(SimpleNamespace):
    """As much of annotations as a comparison asks for."""

    def __len__(self) -> int:
        return len(self.expected)


def test_gains_are_over_the_same_pages(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    expected = rng.random(200) * 3
    labels: Any = Labels(expected=expected, score=np.rint(expected).astype(np.int64), groups=np.arange(200))
    config: Any = SimpleNamespace(keep=SimpleNamespace(min_score=1.5))

    def result(noise: float) -> Any:
        return SimpleNamespace(held_out=[(expected + noise * rng.normal(size=200)).astype(np.float32)])

    assert gains("encoder-balanced", result(1.0), labels, config, tmp_path) == {}  # nothing to hold it against yet
    assert gains("encoder", result(1.0), labels, config, tmp_path) == {}
    found = gains("encoder-landmarks", result(0.1), labels, config, tmp_path)
    assert found["pr_auc"]["difference"]["low"] > 0.05
    assert found["pr_auc"]["first"] > 0.9 > found["pr_auc"]["second"]
    np.save(tmp_path / "linear.npy", np.zeros((2, 200), np.float32))
    assert gains("linear-balanced", result(0.1), labels, config, tmp_path) == {}
