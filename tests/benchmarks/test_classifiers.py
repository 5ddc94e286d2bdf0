"""README's tables of the classifier kinds are made of the results' rows, in a fixed order, and of nothing else."""

from __future__ import annotations

from benchmarks.classifiers import KINDS, LOSSES, tables


def row(name: str, value: float, speed: float) -> dict[str, object]:
    estimate = {"value": value, "low": value - 0.1, "high": value + 0.1}
    metrics = ("f1", "best_f1", "pr_auc", "roc_auc", "spearman", "mae")
    return {"name": name, "sample": dict.fromkeys(metrics, estimate), "docs_per_second": speed, "bytes": 9_640_000}


def test_rows_appear_with_intervals_speed_and_size() -> None:
    found = tables({"rows": [row("edu-en", 0.5, 15357.4), row("fasttext", 0.25, 1.26), row("other", 0.1, 1)]})
    assert found["kinds"][2:] == [
        f"| {KINDS['fasttext']} | " + "0.250 [0.150, 0.350] | " * 3 + "1.3 | 9.6 |",
        f"| {KINDS['edu-en']} | " + "0.500 [0.400, 0.600] | " * 3 + "15,357 | 9.6 |",
    ]
    assert len(found["loss"]) == len(found["windows"]) == 2


def test_a_row_that_was_not_measured_is_left_out() -> None:
    found = tables({"rows": [row("linear-ordinal", 0.4, 100)]})
    assert found["loss"][2:] == [f"| {LOSSES['linear-ordinal']} | " + " | ".join(["0.400 [0.300, 0.500]"] * 3) + " |"]
    assert len(found["kinds"]) == 2
