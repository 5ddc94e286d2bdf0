from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import benchmarks.gate as gate
from benchmarks.gate import GATED, Floors
from filters.config.yaml_file import load_config
from filters.errors import ConfigError
from filters.model import QualityModel
from filters.statistics.agreement import METRICS
from filters.train.annotations import read_annotations
from filters.train.config import TrainConfig
from tests.train.labelled_pages import columns, write

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
annotations: nowhere.parquet
output: unused
name: lessons
classifier: {kind: linear, bits: 12, l2: [0.3]}
validation: {folds: 3, repeats: 2, inner_folds: 2, resamples: 100}
"""


@pytest.fixture
def floors(tmp_path: Path) -> Path:
    """Floors of edu-en's digest over made-up labels, low enough to be met."""
    labels = write(tmp_path / "labels.parquet", columns())
    (tmp_path / "config.yaml").write_text(CONFIG)
    recorded = Floors(
        model="edu-en",
        model_digest=QualityModel.load("edu-en").digest,
        config=str(tmp_path / "config.yaml"),
        annotations_sha256=read_annotations(labels).sha256,
        folds=3,
        inner_folds=2,
        floors={"f1": 0.3, "pr_auc": 0.3, "spearman": 0.3},
    )
    recorded.write(tmp_path / "floors.json")
    return tmp_path / "floors.json"


def run(floors: Path, *options: str) -> int:
    return gate.main([str(floors), "--annotations", str(floors.parent / "labels.parquet"), *options])


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_metrics_above_the_floors_pass_and_leave_the_file_alone(floors: Path, capsys: Any) -> None:
    before = floors.read_bytes()
    assert run(floors) == 0
    assert "gate: passed" in capsys.readouterr().out
    assert floors.read_bytes() == before


def test_a_missed_floor_is_named_and_fails(floors: Path, capsys: Any) -> None:
    change(floors, floors={"f1": 0.3, "pr_auc": 0.3, "spearman": 0.999})
    assert run(floors) == 1
    errors = capsys.readouterr().err
    assert "spearman" in errors
    assert "below its floor 0.9990" in errors
    assert "f1" not in errors


def test_raising_moves_floors_up_and_never_down(floors: Path, capsys: Any) -> None:
    assert run(floors, "--raise") == 0
    raised = Floors.read(floors)
    assert all(value > 0.5 for value in raised.floors.values())
    assert run(floors) == 0
    change(floors, floors=raised.floors | {"f1": 0.999})
    before = floors.read_bytes()
    assert run(floors, "--raise") == 1
    assert "--lower" in capsys.readouterr().err
    assert floors.read_bytes() == before
    assert run(floors, "--lower") == 0
    assert Floors.read(floors) == raised


def test_another_model_or_other_labels_need_new_floors(floors: Path, capsys: Any) -> None:
    for key, message in (("model_digest", "edu-en has changed"), ("annotations_sha256", "other labels")):
        good = json.loads(floors.read_text())[key]
        change(floors, **{key: "0" * 64})
        assert run(floors) == 1
        assert message in capsys.readouterr().err
        assert run(floors, "--raise") == 0
        assert json.loads(floors.read_text())[key] == good


def test_within_epsilon_of_the_floor_is_enough_and_nan_never_is() -> None:
    floors = Floors(
        model="m", model_digest="", config="c", annotations_sha256="", epsilon=0.01, floors={"f1": 0.5, "pr_auc": 0.5}
    )
    assert floors.missed({"f1": 0.491, "pr_auc": 0.6}) == []
    assert len(floors.missed({"f1": 0.489, "pr_auc": float("nan")})) == 2
    slightly = floors.moved({"f1": 0.491, "pr_auc": 0.6}, "d", "a", lower=False)
    assert slightly.floors == {"f1": 0.5, "pr_auc": 0.6}
    with pytest.raises(ConfigError, match=r"f1 0\.4000 is below its floor 0\.5000"):
        floors.moved({"f1": 0.4, "pr_auc": 0.6}, "d", "a", lower=False)


def test_absent_labels_skip_with_a_notice_and_damaged_floors_fail(floors: Path, capsys: Any) -> None:
    assert gate.main([str(floors), "--annotations", "nowhere.parquet"]) == 0
    assert "SKIPPED" in capsys.readouterr().out
    change(floors, floors={"mae": 1.0})
    assert run(floors) == 1
    assert "Remedy" in capsys.readouterr().err


def test_recorded_floors_belong_to_the_shipped_config() -> None:
    recorded = Floors.read(ROOT / "benchmarks" / "floors.json")
    assert set(recorded.floors) == set(GATED) <= set(METRICS)
    assert load_config(TrainConfig, ROOT / recorded.config).name == recorded.model
    assert recorded.epsilon <= 0.01
