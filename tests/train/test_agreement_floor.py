"""The floor of the judge's agreement with itself: a note above it, a warning below it, a refusal if told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from filters.errors import AnnotationsError
from filters.statistics.resampling import Measure
from filters.train.annotations import read_annotations
from filters.train.config import AgreementConfig, TrainConfig
from filters.train.evaluation import check_agreement
from filters.train.training import train
from tests.train import labelled_pages


def rated_twice(path: Path, noise: float) -> Path:
    columns = labelled_pages.columns(150)
    second = np.array(columns["expected_score"]) + np.random.default_rng(1).normal(0, noise, 150)
    return labelled_pages.write(path, columns | {"expected_score_2": np.clip(second, 0, 5).tolist()})


def check(path: Path, **options: Any) -> tuple[tuple[str, ...], list[str]]:
    lines: list[str] = []
    labels = read_annotations(path)
    return check_agreement(path, labels, AgreementConfig(**options), Measure(1.5, 100), lines.append), lines


def test_above_the_floor_the_agreement_is_told(tmp_path: Path) -> None:
    for metric in ("qwk", "spearman", "f1"):
        warnings, (line,) = check(rated_twice(tmp_path / "a.parquet", 0.1), metric=metric, refuse=True)
        assert warnings == ()
        assert line.startswith("agreement: ")
        assert "of 150 texts rated twice (columns expected_score and expected_score_2): 0.9" in line


def test_below_the_floor_is_warned_of(tmp_path: Path) -> None:
    (warning,), (line,) = check(rated_twice(tmp_path / "a.parquet", 3.0), floor=0.8)
    assert warning.startswith("agreement below the floor of 0.8: quadratic weighted kappa of rounded scores of 150")
    assert line.startswith(f"WARNING: {warning}")


def test_below_the_floor_is_refused_if_told_to(tmp_path: Path) -> None:
    path = rated_twice(tmp_path / "a.parquet", 3.0)
    config = TrainConfig.model_validate(
        {
            "annotations": str(path),
            "output": str(tmp_path / "model"),
            "name": "noisy",
            "agreement": {"floor": 0.8, "refuse": True},
        }
    )
    with pytest.raises(AnnotationsError, match=r"below the floor of 0\.8: .*Remedy: a better judge or rubric"):
        train(config, echo=lambda line: None)
    assert not (tmp_path / "model").exists()


def test_unknown_agreement_is_refused_only_if_told_to(tmp_path: Path) -> None:
    path = labelled_pages.write(tmp_path / "once.parquet", labelled_pages.columns(150))
    assert check(path) == ((), [])
    with pytest.raises(AnnotationsError, match="0 texts were rated twice, where 20 are needed"):
        check(path, refuse=True)
