"""Kind `static`: tokens, the table, features without a page's own states, and the contract."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from labelled_pages import columns, write
from scipy.stats import spearmanr

import filters.train.static_table as static_table
from filters.errors import ConfigError, ModelError
from filters.kernels.packed import PackedText
from filters.kernels.static import StaticTable, look_up, pair_hashes, static_features, static_tokens
from filters.model import QualityModel
from filters.model.folder import Manifest
from filters.model.scorers import LinearFeatures, LinearScorer
from filters.model.static_scorer import quantised
from filters.train.classifier import classifier_class
from filters.train.config import StaticConfig
from filters.train.features import FeatureStore
from filters.train.heads import LandmarkHead, RidgeHead, SvrHead
from filters.train.static_grams import count_grams, gram_vectors
from filters.train.static_table import TableConfig, build_table, read_table

WINDOW = 2000


def meanings(texts: Sequence[str]) -> Iterator[tuple[int, npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """States that stand in for an encoder's: a random but fixed vector of each word, moved by the word before."""
    for row, text in enumerate(texts):
        spans = [match.span() for match in re.finditer(r"\s*\S+", text)]
        words = [text[start:end].strip() for start, end in spans]
        vectors = [np.random.default_rng(sum(map(ord, word)) + 1000 * len(word)).normal(size=24) for word in words]
        states = [vector + 0.3 * vectors[place - 1] if place else vector for place, vector in enumerate(vectors)]
        yield row, np.array(states, np.float32).reshape(-1, 24), np.array(spans, np.int64).reshape(-1, 2)


def page_states(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """What stands in for an encoder's view of a page: the mean of its words' states."""
    means = np.zeros((len(texts), 24), np.float32)
    for row, states, _ in meanings(texts):
        means[row] = states.mean(axis=0)
    return means


def stand_in(monkeypatch: pytest.MonkeyPatch, tokens: Any = meanings, pages: Any = page_states) -> None:
    monkeypatch.setattr(static_table, "_source", lambda config: (tokens, "0" * 64, True))
    monkeypatch.setattr(static_table, "encoder_store", lambda options, cache: FeatureStore(pages, 24))


def table_config(texts: Path, output: Path, **changes: Any) -> TableConfig:
    settings = {"window": WINDOW, "gram_dims": 10, "word_dims": 12, "grams": 3000, "words": 800, "min_df": 1}
    return TableConfig.model_validate({"texts": [str(texts)], "output": str(output)} | settings | changes)


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
    assert look_up(made, np.array([1], np.uint64)).tolist() == [-1]
    with pytest.raises(ModelError, match="distinct"):
        StaticTable.build(np.r_[keys, keys[:1]], grams, scales, idf, words, word_scales, weights)


def test_grams_in_training_are_those_the_kernel_sums() -> None:
    """The matrix the vectors are fitted on, times the vectors, is what `static_features` gives."""
    texts = ["the sun is a star, the star is hot", "plants make sugar\nfrom light", "the light of the sun", ""]
    grams = count_grams(texts, singles=40, pairs=40, min_df=1)
    vectors = np.random.default_rng(0).normal(size=(len(grams.keys), 6)).astype(np.float32)
    whole, scales = quantised(vectors)
    rows = (whole, scales.astype(np.float32))
    table = StaticTable.build(
        grams.keys, *rows, grams.idf, rows[0][: grams.singles], rows[1][: grams.singles], rows[1][: grams.singles]
    )
    features = static_features(PackedText.from_strings(texts), table)
    expected = grams.matrix @ (whole * rows[1][:, None])
    np.testing.assert_allclose(features[:, :6], expected, atol=1e-4)
    assert len(count_grams(texts, singles=3, pairs=2, min_df=2).keys) == 4


def test_predictions_of_a_page_come_from_other_groups() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice([f"w{k}q" for k in "abcdefghijkl"], 12)) for _ in range(60)]
    grams = count_grams(texts, singles=50, pairs=150, min_df=1)
    targets = rng.normal(size=(60, 3)).astype(np.float32)
    groups = np.arange(60) // 2
    _, before = gram_vectors(grams, targets, 1.0, groups, 5)
    changed = targets.copy()
    changed[[6, 7]] += 10  # one group
    vectors, after = gram_vectors(grams, changed, 1.0, groups, 5)
    np.testing.assert_allclose(after[[6, 7]], before[[6, 7]], atol=1e-4)
    assert np.abs(after - before).max() > 0.1
    assert np.abs(grams.matrix @ vectors - changed + changed.mean(axis=0)).mean() < np.abs(changed).mean()


def test_a_page_does_not_find_its_own_states_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored for a page equals, up to rounding to int8, the features by a table made without the page."""

    def moods(texts: Sequence[str]) -> Iterator[tuple[int, npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        """States that depend on the page more than on the word."""
        for row, states, spans in meanings(texts):
            yield row, states + np.random.default_rng(len(texts[row])).normal(size=24).astype(np.float32), spans

    stand_in(monkeypatch, moods)
    rng = np.random.default_rng(0)
    texts = [
        " ".join(rng.choice([f"w{'abcdefghij'[k % 10] * (1 + k // 10)}" for k in range(60)], 30)) for _ in range(40)
    ]

    def made(name: str, rows: list[str]) -> Path:
        write(tmp_path / f"{name}.parquet", {"text": rows})
        # The same components for both tables.
        monkeypatch.setattr(static_table, "_components", lambda *_: (np.zeros(24, np.float32), np.eye(24, dtype="f4")))
        config = table_config(tmp_path / f"{name}.parquet", tmp_path / name, word_dims=24)
        return build_table(config, echo=lambda line: None)

    page = texts[7]
    whole = read_table(made("whole", texts))
    without = read_table(made("without", [text for text in texts if text != page]))
    packed = PackedText.from_strings([page])
    words = slice(10, 34)
    stored = whole.left_out[static_table.text_key(page)][words]
    expected = static_features(packed, without.vectors.table())[0, words]
    naive = static_features(packed, whole.vectors.table())[0, words]
    gaps = np.abs(stored - expected).mean(), np.abs(naive - expected).mean()
    assert gaps[0] < 0.25 * gaps[1], gaps


def test_pages_of_one_host_do_not_see_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"page {'abcdefghijklmnop'[k]} of the site about sums and letters" for k in range(16)]
    write(tmp_path / "raw.parquet", {"text": texts, "url": [f"https://h{k // 2}.org/{k}" for k in range(16)]})
    config = table_config(tmp_path / "raw.parquet", tmp_path / "table")
    found, of_words, groups, _ = static_table._texts(config)
    assert of_words == 16
    group = dict(zip(found, groups, strict=True))
    assert all(group[texts[k]] == group[texts[k + 1]] for k in range(0, 16, 2))


def test_a_token_embedding_makes_a_table_without_vectors_of_grams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    write(tmp_path / "raw.parquet", {"text": columns()["text"]})
    config = table_config(tmp_path / "raw.parquet", tmp_path / "table", source={"kind": "embedding"})
    read = read_table(build_table(config, echo=lambda line: None))
    assert read.vectors.shape.gram_dims == 0
    assert read.vectors.shape.grams == read.vectors.shape.words
    assert read.source == "rows of wordllama"


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


def test_states_are_computed_once(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(texts: Sequence[str]) -> Iterator[tuple[int, npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        raise AssertionError("encoded again")

    stand_in(monkeypatch, refuse)
    config = table_config(tmp_path / "raw.parquet", table, grams=200, words=20)
    assert read_table(build_table(config, echo=lambda line: None)).vectors.shape.grams == 200


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


def test_a_folder_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="exists and is no table"):
        build_table(TableConfig(texts=("x.parquet",), output=str(tmp_path / "mine")))


def test_a_table_with_features_of_another_number_is_refused(table: Path) -> None:
    about = json.loads((table / "table.json").read_text())
    about["columns"] += 1
    (table / "table.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match=r"table\.json: features of \d+ columns, and there are \d+ now. Remedy: build"):
        read_table(table)
