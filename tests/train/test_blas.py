"""Linear algebra uses one thread wherever a classifier is fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_pages import columns, write
from threadpoolctl import threadpool_info, threadpool_limits

from benchmarks.gate import measure
from filters.annotate.agreement import learning_curve
from filters.evaluate.report import cross_validate_report
from filters.model.kinds.linear import LinearClassifier
from filters.train import training
from filters.train.annotations import read_annotations
from filters.train.config import TrainConfig


@pytest.mark.parametrize("entry", ["train", "evaluate", "gate", "learning curve"])
def test_fitting_uses_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    seen: list[int] = []
    fit = LinearClassifier.fit

    def watched(self: LinearClassifier, *args: Any) -> None:
        seen.extend(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")
        fit(self, *args)

    monkeypatch.setattr(LinearClassifier, "fit", watched)
    write(tmp_path / "labels.parquet", columns())
    config = TrainConfig.model_validate(
        {
            "annotations": str(tmp_path / "labels.parquet"),
            "output": str(tmp_path / "model"),
            "name": "x",
            "classifier": {"kind": "linear", "bits": 12},
            "validation": {"folds": 2, "repeats": 1, "inner_folds": 2, "resamples": 100},
        }
    )
    labels = read_annotations(config.annotations)
    with threadpool_limits(2, user_api="blas"):
        if entry == "train":
            training.train(config, echo=lambda line: None)
        elif entry == "evaluate":
            cross_validate_report(config, echo=lambda line: None)
        elif entry == "gate":
            measure(config, labels, 2, 2)
        else:
            learning_curve(labels.texts, labels.expected, np.arange(len(labels)), 1.5, resamples=2)
    assert seen
    assert set(seen) == {1}
