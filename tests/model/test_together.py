"""Several models of the same texts: what shares an embedding embeds once, and says what it says alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from labelled_pages import columns

import filters.model.kinds.static as static
from filters.errors import ConfigError, ModelError
from filters.kernels.packed import PackedText
from filters.model import QualityModel, predict_together
from filters.model.folder import Manifest
from filters.model.kinds import classifier_class
from filters.model.kinds.heads import HeadConfig, LogisticHead, RidgeHead
from filters.model.kinds.static import StaticConfig

TEXTS = columns(60)["text"]


def head_on_edu_en(head: HeadConfig, targets: list[float], window_rule: str = "first") -> QualityModel:
    config = StaticConfig(table="edu-en", share_table=True, head=head)
    (classifier,) = classifier_class("static").candidates(config, 3000)
    classifier.fit(TEXTS, np.array(targets, np.float64), np.ones(len(TEXTS)), 0)
    labels = ("lessons", "mixed", "shops") if head.kind == "logistic" else ()
    manifest = Manifest(
        name="made-up",
        kind="static",
        window=3000,
        windows=window_rule,  # type: ignore[arg-type]
        normalisation=classifier.scorer.normalisation,
        features=classifier.scorer.features(),
        labels=labels,
    )
    return QualityModel(classifier.scorer, None, manifest, "")


@pytest.fixture(scope="module")
def shares() -> list[float]:
    return [text.count("light") + text.count("water") - text.count("buy") - text.count("cart") for text in TEXTS]


@pytest.fixture(scope="module")
def topics(shares: list[float]) -> QualityModel:
    low, high = np.quantile(shares, [0.3, 0.7])
    return head_on_edu_en(LogisticHead(), [2.0 if x < low else 0.0 if x > high else 1.0 for x in shares])


def test_models_on_one_table_embed_once_and_predict_as_alone(
    topics: QualityModel, shares: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = head_on_edu_en(RidgeHead(l2=(1.0,)), shares)
    whole = head_on_edu_en(RidgeHead(l2=(1.0,)), shares, "max")
    edu = QualityModel.load("edu-en")
    models = [edu, topics, depth, whole, edu]
    packed = PackedText.from_strings([*TEXTS, "", "x " * 5000])
    alone = [predict_together([model], packed)[0] for model in models]
    calls = []
    features = static.static_features
    monkeypatch.setattr(static, "static_features", lambda *args: calls.append(args) or features(*args))
    together = predict_together(models, packed)
    assert len(calls) == 2  # `whole` reads other windows
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.score, other.score)
        assert (one.label is None) == (other.label is None)
    assert together[1].label is not None
    np.testing.assert_array_equal(together[1].label, alone[1].label)
    np.testing.assert_array_equal(together[0].score, edu.score_packed(packed))
    assert predict_together([], packed) == []
    assert len(predict_together(models, PackedText.from_strings([]))[1].score) == 0


def test_labels_come_with_their_probability(topics: QualityModel) -> None:
    lesson, shop = "water light energy leaf plants cells sugar because " * 5, "buy cheap casino bonus cart " * 9
    found = topics.predict([lesson, shop])
    assert found.label is not None
    assert [topics.labels[number] for number in found.label] == ["lessons", "shops"]
    assert (found.score > 1 / 3).all()
    assert (found.score <= 1).all()
    with pytest.raises(ModelError, match=r"tells labels apart and gives no score. Remedy: QualityModel.predict"):
        topics.score(TEXTS)


def test_a_shared_table_is_not_in_the_folder(
    topics: QualityModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "topics"
    read = topics.save(folder)
    assert not (folder / "table.safetensors").exists()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20_000
    assert read.labels == topics.labels
    assert read.scorer.embedding == QualityModel.load("edu-en").scorer.embedding
    before, after = topics.predict(TEXTS), read.predict(TEXTS)
    np.testing.assert_array_equal(before.score, after.score)
    about = json.loads((folder / "model.json").read_text())
    about["features"]["table_sha256"] = "0" * 64
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match=r"model\.json: features\.table_sha256: no model that comes .* 0{12}"):
        QualityModel.load(folder)
    about = json.loads((topics.save(folder, overwrite=True) and folder / "model.json").read_text())
    about["labels"] = ["lessons", "shops"]
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match=r"model\.json: labels: 2 names, and the head tells 3 apart"):
        QualityModel.load(folder)
    monkeypatch.setattr(static, "embedded_table", lambda digest: None)
    with pytest.raises(ConfigError, match="share_table: edu-en is not the table of a model that comes with"):
        classifier_class("static").candidates(StaticConfig(table="edu-en", share_table=True), 3000)
