"""Kind `static`: tokens, the table, features without a page's own states, and the contract."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from build_table import build_table
from labelled_pages import columns, write
from scipy.stats import spearmanr
from table_stand_in import WINDOW, stand_in, table_config

import filters.model.kinds.static as static_table
from filters.errors import ConfigError, ModelError
from filters.kernels.packed import PackedText
from filters.kernels.static import StaticTable, pair_hashes, static_features, static_tokens
from filters.model import QualityModel
from filters.model.folder import Manifest
from filters.model.kinds import classifier_class
from filters.model.kinds.heads import LandmarkHead, RidgeHead, SvrHead
from filters.model.kinds.linear import LinearFeatures, LinearScorer
from filters.model.kinds.static import StaticConfig, read_table


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw.parquet and the table made of it."""
    folder = tmp_path_factory.mktemp("built")
    write(folder / "raw.parquet", {"text": columns()["text"]})
    with pytest.MonkeyPatch.context() as monkeypatch:
        stand_in(monkeypatch)
        build_table(table_config(folder / "raw.parquet", folder / "table"), echo=lambda line: None)
    return folder


@pytest.fixture
def table(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the table, which a test may change."""
    stand_in(monkeypatch)
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return tmp_path / "table"


def hashes(text: str) -> list[int]:
    return static_tokens(PackedText.from_strings([text])).hashes.tolist()


def test_tokens_are_words_numbers_line_breaks_and_single_characters() -> None:
    assert hashes("Plants Make") == hashes("plants make")
    assert hashes("1984") == hashes("2024") != hashes("12")
    assert hashes("123456") == hashes("99999")
    assert hashes("don't") == hashes("DON\u2019T")
    assert len(hashes("don't")) == 1
    assert len(hashes("'don' 't")) == 5
    assert len(hashes("a\n \n\tb")) == 3
    assert len(hashes("a \t b")) == 2
    assert len(hashes("x3y")) == 3
    assert len(hashes("\u5149\u5408")) == 2
    assert hashes("so\u00adft") == hashes("soft")
    assert hashes("") == []
    assert len(hashes("a, b?")) == 4


def test_the_last_character_of_each_token_is_known() -> None:
    text = "Zo\u00eb's 42\ncaf\u00e9s."
    packed = PackedText.from_strings([text])
    positions = (np.cumsum((packed.data & 0xC0) != 0x80) - 1)[static_tokens(packed).last]
    assert [text[position] for position in positions] == ["s", "2", "\n", "s", "."]


def test_features_are_sums_of_grams_and_means_of_words() -> None:
    rng = np.random.default_rng(0)
    tokens = static_tokens(PackedText.from_strings(["sun light sun"])).hashes
    keys = np.r_[tokens[:2], pair_hashes(tokens[:1], tokens[1:2])]
    grams, words = (rng.integers(-127, 128, shape).astype(np.int8) for shape in ((3, 5), (2, 4)))
    scales, idf = np.float32([0.1, 0.2, 0.3]), np.float32([1.5, 2, 3])
    word_scales, weights = np.float32([0.4, 0.5]), np.float32([0.5, 0.25])
    made = StaticTable.build(keys, grams, scales, idf, words, word_scales, weights)
    features = static_features(PackedText.from_strings(["Sun light, sun", "", "Sun light, sun"]), made)
    factors = idf * [1 + np.log(2), 1, 1]
    np.testing.assert_allclose(features[0, :5], (factors * scales) @ grams / np.sqrt(factors @ factors), rtol=1e-5)
    v = words * word_scales[:, None]
    np.testing.assert_allclose(features[0, 5:9], (2 * 0.5 * v[0] + 0.25 * v[1]) / 1.25, rtol=1e-5)
    assert features[0, 9] == pytest.approx(np.log(4))
    assert features[0, 14] == pytest.approx(0.75)
    assert not features[1].any()
    np.testing.assert_array_equal(features[2], features[0])
    np.testing.assert_array_equal(static_features(PackedText.from_strings(["SUN LIGHT, SUN"]), made)[0], features[0])
    with pytest.raises(ModelError, match="distinct"):
        StaticTable.build(np.r_[keys, keys[:1]], grams, scales, idf, words, word_scales, weights)


@pytest.mark.parametrize(
    "head",
    [
        RidgeHead(),
        SvrHead(),
        SvrHead(scale="root", centres=100),
        LandmarkHead(landmarks=64),
    ],
    ids=repr,
)
def test_the_contract(tmp_path: Path, table: Path, head: object) -> None:
    data = columns()
    config = StaticConfig.model_validate({"table": str(table), "head": head})
    (classifier,) = classifier_class("static").candidates(config, WINDOW)
    with pytest.raises(ValueError, match="fit comes before score"):
        classifier.score(["text"])
    targets = np.array(data["expected_score"])
    classifier.fit(data["text"], targets, np.ones(len(targets)), 0)
    unseen = columns(seed=1)
    assert spearmanr(classifier.score(unseen["text"]), unseen["expected_score"]).statistic > 0.85
    scorer = classifier.scorer
    manifest = Manifest(
        name="saved", kind="static", window=WINDOW, normalisation=scorer.normalisation, features=scorer.features()
    )
    model = QualityModel(scorer, None, manifest, "").save(tmp_path / "model")
    texts = [*unseen["text"], "", "unknown", "\n", "\u00e9\ud800"]
    np.testing.assert_allclose(model.score(texts), classifier.score(texts), atol=1e-5)
    again = QualityModel.load(tmp_path / "model")
    np.testing.assert_array_equal(again.score(texts), model.score(texts))


def test_the_table_of_a_model_serves_other_labels(tmp_path: Path, table: Path) -> None:
    data = columns()
    targets = np.array(data["expected_score"])
    (first,) = classifier_class("static").candidates(StaticConfig(table=str(table)), WINDOW)
    scorer = first.fit(data["text"], targets, np.ones(len(targets)), 0).scorer
    manifest = Manifest(
        name="saved", kind="static", window=WINDOW, normalisation=scorer.normalisation, features=scorer.features()
    )
    QualityModel(scorer, None, manifest, "").save(tmp_path / "model")
    (second,) = classifier_class("static").candidates(StaticConfig(table=str(tmp_path / "model")), WINDOW)
    second.fit(data["text"], targets, np.ones(len(targets)), 0)
    unseen = columns(seed=1)
    assert spearmanr(second.score(unseen["text"]), unseen["expected_score"]).statistic > 0.85
    scorer = LinearScorer(LinearFeatures(bits=8), np.zeros(256, np.float32), np.zeros(256, np.float32), 0.0)
    manifest = manifest.model_copy(update={"kind": "linear", "features": scorer.features()})
    QualityModel(scorer, None, manifest, "").save(tmp_path / "linear")
    with pytest.raises(ModelError, match="'linear' has no table"):
        classifier_class("static").candidates(StaticConfig(table=str(tmp_path / "linear")), WINDOW)


def test_a_table_may_leave_its_vectors_in_the_embedded_model(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (classifier,) = classifier_class("static").candidates(StaticConfig(table=str(table)), WINDOW)
    targets = np.array(columns()["expected_score"])
    scorer = classifier.fit(columns()["text"], targets, np.ones(len(targets)), 0).scorer
    manifest = Manifest(
        name="saved", kind="static", window=WINDOW, normalisation=scorer.normalisation, features=scorer.features()
    )
    QualityModel(scorer, None, manifest, "").save(tmp_path / "models" / "mine")
    (table / "table.safetensors").unlink()
    with pytest.raises(ModelError, match="missing"):
        read_table(table)
    monkeypatch.setattr(static_table, "EMBEDDED", tmp_path / "models")
    monkeypatch.setattr(static_table, "embedded_models", lambda: ["mine"])
    np.testing.assert_array_equal(read_table(table).vectors.keys, scorer.vectors.keys)


def test_another_window_is_refused(table: Path) -> None:
    with pytest.raises(ConfigError, match="was made for 2000"):
        classifier_class("static").candidates(StaticConfig(table=str(table)), 1000)


def test_a_damaged_table_is_refused(table: Path) -> None:
    path = table / "table.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ModelError, match="not the file"):
        read_table(table)
    with pytest.raises(ModelError, match="no table"):
        read_table(table.parent)


def test_a_table_with_features_of_another_number_is_refused(table: Path) -> None:
    about = json.loads((table / "table.json").read_text())
    about["columns"] += 1
    (table / "table.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match=r"table\.json: features of \d+ columns, and there are \d+ now. Remedy: build"):
        read_table(table)
