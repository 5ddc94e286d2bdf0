"""Other targets than the judge's score: names such as topics, and several numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_pages import columns, write
from pydantic import ValidationError
from sklearn.metrics import accuracy_score, f1_score

from filters.config.filter import FilterConfig
from filters.errors import AnnotationsError, ConfigError, ModelError
from filters.evaluate.report import run_evaluation
from filters.model import QualityModel
from filters.models import EMBEDDED
from filters.run.plan import make_plan
from filters.run.scoring import score_files
from filters.train.annotations import read_annotations
from filters.train.card import write_card, write_label_card
from filters.train.config import TrainConfig
from filters.train.targets import measure_names, train_each
from filters.train.training import train

LOGISTIC = {"kind": "static", "table": "edu-en", "share_table": True, "head": {"kind": "logistic", "l2": [1.0, 30.0]}}
RIDGE = {"kind": "static", "table": "edu-en", "share_table": True, "head": {"kind": "ridge", "l2": [1.0]}}
FAST = {"folds": 3, "repeats": 2, "inner_folds": 2, "resamples": 100}


def pages() -> dict[str, list[Any]]:
    data = columns(180)
    share = [sum(word in text for word in ("light", "water", "leaf", "cells")) for text in data["text"]]
    buys = [text.count("buy") + text.count("cart") for text in data["text"]]
    order = np.argsort(np.argsort(buys, kind="stable"), kind="stable")
    return data | {
        "topic": ["Plants | <b>" if row > 110 else "Shops" if row > 60 else "Mixed" for row in (179 - order).tolist()],
        "promo": (order // 45).astype(int).tolist(),
        "depth": [min(count, 3) for count in share],
    }


def config(tmp_path: Path, data: dict[str, list[Any]], **changes: Any) -> TrainConfig:
    values = {"annotations": str(write(tmp_path / "pages.parquet", data)), "output": str(tmp_path / "{target}-model")}
    values |= {"name": "{target}-en", "language": "en", "validation": FAST, "remarks": ["Made up."]}
    return TrainConfig.model_validate(values | changes)


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("topics")
    (result,) = train_each(config(folder, pages(), targets=["topic"], classifier=LOGISTIC), echo=lambda line: None)
    return result.path


def test_names_are_told_apart_with_measured_accuracy(topics: Path) -> None:
    model = QualityModel.load(topics)
    assert topics.name == "topic-model"
    assert (model.name, model.labels) == ("topic-en", ("Mixed", "Plants | <b>", "Shops"))
    metrics: dict[str, Any] = model.metadata.metrics
    accuracy, majority = metrics["sample"]["accuracy"], metrics["sample"]["majority_accuracy"]
    assert accuracy["low"] > majority["high"]
    assert majority["value"] == pytest.approx(69 / 180)
    assert metrics["natural"]["macro_f1"]["value"] > metrics["natural"]["majority_macro_f1"]["value"]
    assert [part["rows"] for part in metrics["labels"]] == [61, 69, 50]
    said = model.predict(pages()["text"])
    assert said.label is not None
    assert np.mean([model.labels[k] for k in said.label] == np.array(pages()["topic"])) >= accuracy["value"]
    card = (topics / "README.md").read_text()
    assert "says which topic a page has, of 3" in card
    assert "| Plants \\| &lt;b> | 69 |" in card
    assert "Made up." in card
    assert not (topics / "table.safetensors").exists()


def test_metrics_of_names_are_those_of_scikit_learn(tmp_path: Path) -> None:
    labels = read_annotations(write(tmp_path / "pages.parquet", pages()), target="topic", named=True)
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(len(labels), 3)).astype(np.float32) for _ in range(2)]
    weights = rng.random(len(labels)) + 0.1
    found = measure_names(logits, labels, weights, 100, 0)
    named = [each.argmax(axis=1) for each in logits]
    accuracy = np.mean([accuracy_score(labels.score, each, sample_weight=weights) for each in named])
    macro = np.mean([f1_score(labels.score, each, average="macro", sample_weight=weights) for each in named])
    assert found["accuracy"].value == pytest.approx(accuracy)
    assert found["macro_f1"].value == pytest.approx(macro)
    assert found["top_two"].value >= found["accuracy"].value  # type: ignore[operator]
    sure = np.full((len(labels), 3), -100, np.float32)
    sure[np.arange(len(labels)), labels.score] = 100
    perfect = measure_names([sure], labels, weights, 100, 0)
    assert (perfect["accuracy"].value, perfect["calibration_error"].value) == (1, 0)


def test_a_model_for_each_of_several_numbers(tmp_path: Path) -> None:
    wanted = config(tmp_path, pages(), targets=["promo", "depth"], classifier=RIDGE)
    results = train_each(wanted, echo=lambda line: None)
    assert [result.path.name for result in results] == ["promo-model", "depth-model"]
    for result, target in zip(results, ("promo", "depth"), strict=True):
        assert result.model.metadata.training is not None
        assert result.model.metadata.training.target == target
        assert result.sample["spearman"].value > 0.5  # type: ignore[operator]
        scores = result.model.score([*pages()["text"], "buy cart " * 300, "light water leaf cells " * 200, ""])
        assert scores.min() >= 0
        assert scores.max() <= 3  # the scale ends where the labels end
        assert f"predicts the {target}, a number from 0 up" in (result.path / "README.md").read_text()
    with pytest.raises(ModelError, match="a model is already there"):
        train_each(wanted, echo=lambda line: None)


def test_score_prints_labels_with_their_probability(topics: Path, tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("buy cart offer cheap " * 40)
    rows = [{"id": "a", "text": "water light energy leaf plants cells sugar " * 9}, {"id": "b", "text": " "}]
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [str(tmp_path / "page.txt"), str(tmp_path / "pages.jsonl")]
    found = [json.loads(line) for line in score_files(str(topics), files, id_key="id")]
    assert [line["label"] for line in found] == [found[0]["label"], found[1]["label"], None]
    assert found[0]["label"] != found[1]["label"]
    assert all(1 / 3 <= line["probability"] <= 1 for line in found[:2])
    assert "keep" not in found[0]
    assert found[2]["reason"] == "empty_text"
    with pytest.raises(ModelError, match=r"have no bands. Remedy: leave out --error-rate"):
        next(score_files(str(topics), files, error_rate=0.1))


def test_a_run_cannot_keep_by_labels(topics: Path, tmp_path: Path) -> None:
    (tmp_path / "pages.jsonl").write_text('{"text": "A page."}\n')
    run = FilterConfig.model_validate(
        {
            "input": {"kind": "jsonl", "paths": [str(tmp_path / "pages.jsonl")]},
            "model": str(topics),
            "output": {"path": str(tmp_path / "run")},
        }
    )
    with pytest.raises(ConfigError, match=r"model: topic-en tells labels apart \(Mixed, .*\) and gives no score"):
        make_plan(run)
    several = run.model_dump(include={"input", "output"}) | {"scores": {"topic": str(topics), "edu": "edu-en"}}
    with pytest.raises(ConfigError, match=r"scores\.topic: .* Remedy: name a model that gives a score before it"):
        make_plan(FilterConfig.model_validate(several))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classifier": LOGISTIC}, "tells names apart; say in which column"),
        ({"target": "topic", "targets": ["promo"]}, "exclude each other"),
        ({"targets": ["promo", "promo"]}, "names a column twice"),
        ({"targets": ["promo"], "name": "promo"}, "name has {target} in it if, and only if"),
        ({"target": "promo", "name": "promo"}, "output has {target} in it if, and only if"),
        ({"targets": ["../promo"]}, "pattern"),
        ({"targets": ["topic"], "classifier": LOGISTIC, "balance": "full"}, "neither distill nor balance"),
    ],
)
def test_targets_that_contradict_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(tmp_path, pages(), **changes)


def test_columns_that_cannot_be_learnt_are_refused(tmp_path: Path) -> None:
    quiet = {"echo": lambda line: None}
    with pytest.raises(AnnotationsError, match="column 'topik' is missing"):
        train_each(config(tmp_path, pages(), targets=["topik"], classifier=LOGISTIC), **quiet)
    with pytest.raises(AnnotationsError, match="topic"):  # names, and a head of numbers
        train_each(config(tmp_path, pages(), targets=["topic"], classifier=RIDGE), **quiet)
    rare = pages()
    rare["topic"] = ["Rare", "Rare", *rare["topic"][2:]]
    with pytest.raises(AnnotationsError, match=r"2 texts have 'Rare', where two names at least, and 10 texts of each"):
        train_each(config(tmp_path, rare, targets=["topic"], classifier=LOGISTIC), **quiet)
    with pytest.raises(AnnotationsError, match=r"1 names, where two names"):
        train_each(config(tmp_path, pages() | {"topic": ["a"] * 180}, targets=["topic"], classifier=LOGISTIC), **quiet)
    with pytest.raises(AnnotationsError, match="'promo' must lie between 0 and 5; 7 found"):
        train_each(config(tmp_path, pages() | {"promo": [7] * 180}, targets=["promo"], classifier=RIDGE), **quiet)
    with pytest.raises(ConfigError, match="several targets, or names"):
        train(config(tmp_path, pages(), targets=["topic"], classifier=LOGISTIC), **quiet)


def test_rows_without_a_name_are_left_out_with_a_note(tmp_path: Path) -> None:
    data = pages()
    data["topic"] = [None, "", *data["topic"][2:]]
    data["text"][5] = data["text"][4]
    data["id"][5] = data["id"][4]
    labels = read_annotations(write(tmp_path / "pages.parquet", data), target="topic", named=True)
    assert len(labels) == 177
    assert "2 rows without topic left out" in labels.notes
    assert any("each text counts once with the first of its labels" in note for note in labels.notes)
    assert labels.names[int(labels.expected[2])] == data["topic"][4]


def test_an_evaluation_is_of_scores(topics: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "pages.parquet", pages())
    options: dict[str, Any] = {"overrides": (), "against": None, "probes": False, "echo": print}
    with pytest.raises(ModelError, match="tells labels apart, and an evaluation is of scores"):
        run_evaluation(model=str(topics), annotations=path, config=None, **options)
    written = tmp_path / "train.yaml"
    chosen = config(tmp_path, pages(), targets=["topic"], classifier=LOGISTIC).model_dump()
    written.write_text(json.dumps(chosen | {"classifier": LOGISTIC}))
    with pytest.raises(ConfigError, match="an evaluation is of one score"):
        run_evaluation(model=None, annotations=None, config=written, **options)


def test_the_embedded_heads_are_small_and_their_cards_say_what_was_measured() -> None:
    edu = QualityModel.load("edu-en")
    size = 0
    for name, count in (("topic-en", 23), ("format-en", 24), ("promo-en", 0), ("depth-en", 0)):
        model = QualityModel.load(name)
        assert (model.name, model.metadata.language, len(model.labels)) == (name, "en", count)
        assert model.scorer.embedding == edu.scorer.embedding
        assert (EMBEDDED / name / "README.md").read_text() == (write_label_card if count else write_card)(
            model.metadata
        )
        size += sum(path.stat().st_size for path in (EMBEDDED / name).iterdir())
    assert size < 2 * 2**20
    page = "A fraction names a part of a whole. Multiply both numbers by the same factor and its value stays. " * 9
    shop = "Buy now! Free shipping on all orders. Add to cart and save 20 % today, this offer ends soon. " * 9
    promo, depth = (QualityModel.load(name).score([page, shop]) for name in ("promo-en", "depth-en"))
    assert promo[1] > promo[0]
    assert depth[0] > depth[1]
