"""Options of the procedure: class balance, windows, ensembles and distillation, on made-up pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_pages import columns, write

from filters.config.yaml_file import load_config
from filters.errors import AnnotationsError, ModelError
from filters.model import QualityModel
from filters.model.ensemble import Combination
from filters.model.kinds.linear import LinearClassifier
from filters.train.annotations import read_annotations, read_raw_texts
from filters.train.config import DistillConfig, TrainConfig
from filters.train.procedure import Procedure
from filters.train.training import train

ROOT = Path(__file__).resolve().parents[2]
LINEAR = {"kind": "linear", "bits": 12}


def config(folder: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "annotations": str(folder / "labels.parquet"),
        "output": str(folder / "model"),
        "name": "lessons",
        "classifier": LINEAR,
        "validation": {"folds": 3, "repeats": 1, "inner_folds": 2, "resamples": 100},
    }
    return TrainConfig.model_validate(settings | changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "labels.parquet", columns())
    write(tmp_path / "raw.parquet", {"text": columns(200, seed=5)["text"]})
    return tmp_path


def quiet(line: str) -> None:
    assert line


@pytest.mark.parametrize(
    "changes",
    [
        {"windows": "begin-middle-end", "window": 200},
        {"windows": "max", "window": 200},
        {"windows": "length-weighted", "window": 200},
        {"balance": "full"},
    ],
)
def test_every_option_trains_saves_and_scores(folder: Path, changes: dict[str, Any]) -> None:
    result = train(config(folder, **changes), echo=quiet)
    assert (result.sample["pr_auc"].value or 0) > 0.9
    texts = columns(30, seed=3)["text"]
    np.testing.assert_array_equal(QualityModel.load(result.path).score(texts), result.model.score(texts))
    assert result.model.metadata.windows == changes.get("windows", "first")


def test_the_end_of_a_long_page_counts_if_it_is_to(folder: Path) -> None:
    lesson, spam = "photosynthesis light energy leaf plants " * 10, "buy cheap discount click offer " * 10
    first = train(config(folder, window=300), echo=quiet).model
    best = train(config(folder, window=300, windows="max"), overwrite=True, echo=quiet).model
    page = spam.ljust(600)[:300] + lesson
    assert first.score([page])[0] == pytest.approx(first.score([spam])[0], abs=0.3)
    assert best.score([page])[0] > first.score([page])[0] + 1


def test_balance_makes_the_kept_weigh_as_much(folder: Path) -> None:
    labels = read_annotations(folder / "labels.parquet")
    rows = np.arange(len(labels))
    for balance, power in (("none", 0.0), ("sqrt", 0.5), ("full", 1.0)):
        procedure = Procedure(config(folder, balance=balance), labels)
        weights = procedure._balanced(rows)
        ratio = (~procedure.kept).sum() / procedure.kept.sum()
        np.testing.assert_allclose(weights[procedure.kept], ratio**power)
        assert (weights[~procedure.kept] == 1).all()


def test_an_ensemble_is_a_folder_of_folders(folder: Path) -> None:
    chosen = {"kind": "ensemble", "members": [LINEAR, LINEAR | {"word_ngrams": 1}]}
    result = train(config(folder, classifier=chosen), echo=quiet)
    assert (result.sample["pr_auc"].value or 0) > 0.9
    texts = columns(50, seed=3)["text"]
    model = QualityModel.load(result.path)
    scores = model.score(texts)
    members = [QualityModel.load(result.path / name) for name in ("1-linear", "2-linear")]
    together = np.stack([member.score(texts) for member in members])
    assert np.corrcoef(scores, together.mean(axis=0))[0, 1] > 0.9
    # A member that was altered, even consistently, is not the member that was trained.
    weights = result.path / "2-linear" / "weights.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(ModelError, match=r"weights\.safetensors: its sha256 differs"):
        QualityModel.load(result.path)
    weights.write_bytes(before)
    manifest = result.path / "2-linear" / "model.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(ModelError, match=r"2-linear/model\.json: its sha256 differs"):
        QualityModel.load(result.path)


def test_the_highest_percentile_of_any_member_counts() -> None:
    scores = np.stack([np.linspace(0, 5, 100), np.linspace(2, 3, 100)])
    combination = Combination.fit(10, scores)
    low, high, both = combination(np.float32([[0.1, 0.1, 4.9], [2.05, 2.99, 2.99]]))
    assert low < 0.5
    assert 4.5 <= high < both <= 5


def test_distillation_says_what_it_gains(folder: Path) -> None:
    distill = {"teacher": LINEAR | {"bits": 14}, "texts": [str(folder / "raw.parquet")]}
    lines: list[str] = []
    result = train(config(folder, distill=distill), echo=lines.append)
    assert set(result.compared) == {"undistilled", "teacher"}
    assert any("undistilled:" in line for line in lines)
    (gain,) = [line for line in lines if line.startswith("distillation gains in pr_auc")]
    assert "[" in gain
    manifest = QualityModel.load(result.path).metadata
    assert set(manifest.metrics) >= {"undistilled", "teacher", "distillation"}
    assert manifest.training is not None
    assert any("distilled on" in note and "raw.parquet" in note for note in manifest.training.notes)
    assert str(folder) not in manifest.model_dump_json()


def test_no_teacher_sees_a_row_its_student_must_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = read_annotations(folder / "labels.parquet")
    distill = {"teacher": LINEAR | {"bits": 14}, "texts": [str(folder / "raw.parquet")]}
    procedure = Procedure(config(folder, distill=distill), labels)
    ((rows, test), *_) = procedure.folds(np.arange(len(labels)), 3, 0)
    seen: list[set[str]] = []
    fit = LinearClassifier.fit

    def spy(self: LinearClassifier, texts: Sequence[str], *rest: Any) -> LinearClassifier:
        seen.append(set(texts))
        return fit(self, texts, *rest)

    monkeypatch.setattr(LinearClassifier, "fit", spy)
    procedure.fit(rows, 0)
    hidden = {labels.texts[row] for row in test}
    assert not any(texts & hidden for texts in seen)
    # Inside, too: nothing was fitted to all of these rows before the out-of-fold scores were taken.
    inside = {labels.texts[row] for row in rows}
    students = [texts & inside for texts in seen if texts & set(procedure.raw_texts)]
    assert [len(texts) == len(inside) for texts in students] == [False, False, True]


def test_labels_do_not_leak_through_distillation(folder: Path) -> None:
    data = columns(300)
    order = np.random.default_rng(0).permutation(300)
    for name in ("score", "expected_score"):
        data[name] = [data[name][row] for row in order]
    write(folder / "labels.parquet", data)
    distill = {"teacher": LINEAR, "texts": [str(folder / "raw.parquet")], "compare": False}
    result = train(config(folder, distill=distill), echo=quiet)
    assert abs(result.sample["spearman"].value or 0) < 0.2


def test_raw_texts_that_repeat_a_labelled_page_are_left_out(folder: Path) -> None:
    labels = read_annotations(folder / "labels.parquet")
    fresh = columns(30, seed=8)["text"]
    texts = [labels.texts[0], labels.texts[1] + " end", *fresh, fresh[0], fresh[1] + " end", None, " "]
    write(folder / "raw.parquet", {"text": texts})
    distill = DistillConfig.model_validate({"teacher": LINEAR, "texts": [str(folder / "raw.parquet")]})
    found, note = read_raw_texts(distill, labels, 0)
    assert set(found) == set(fresh)
    assert "2 that nearly repeat a labelled page and 1 near copies" in note
    assert len(read_raw_texts(distill.model_copy(update={"limit": 7}), labels, 0)[0]) == 7
    write(folder / "raw.parquet", {"text": [labels.texts[0]]})
    with pytest.raises(AnnotationsError, match="every text repeats"):
        read_raw_texts(distill, labels, 0)
    write(folder / "raw.parquet", {"body": ["x"]})
    with pytest.raises(AnnotationsError, match="column 'text' is missing"):
        read_raw_texts(distill, labels, 0)


def test_the_layout_of_fineweb_edu_annotations(tmp_path: Path) -> None:
    data = columns(400)
    score: npt.NDArray[np.int64] = np.clip(np.rint(np.array(data["expected_score"]) * 1.3), 0, 5).astype(np.int64)
    layout = {"score": score, "text": data["text"], "metadata": [{"language": "en"}] * 400}
    pq.write_table(pa.table(layout), tmp_path / "train.parquet")
    loaded = load_config(
        TrainConfig,
        ROOT / "configs" / "train-fineweb-edu.yaml",
        [f"annotations={tmp_path / 'train.parquet'}", f"output={tmp_path / 'model'}", "classifier.bits=14"],
    )
    model = train(loaded, echo=quiet).model
    assert model.keep.rounded == 3
    assert model.metadata.training is not None
    assert model.metadata.training.target == "score"
    unseen = columns(200, seed=4)
    kept = model.keep.keep(model.score(unseen["text"]))
    wanted = np.array(unseen["expected_score"]) * 1.3 >= 2.5
    assert np.mean(kept == wanted) > 0.85


def test_another_language_trains_by_the_same_command(shared_data: Path, tmp_path: Path) -> None:
    loaded = load_config(
        TrainConfig,
        ROOT / "configs" / "train-edu-da.yaml",
        [
            f"annotations={shared_data / 'annotations' / 'edu-da-train.parquet'}",
            f"output={tmp_path / 'model'}",
            "validation={folds: 3, repeats: 1, inner_folds: 2, resamples: 100}",
        ],
    )
    result = train(loaded, echo=quiet)
    assert (result.sample["spearman"].value or 0) > 0.4
