"""Kind `static`: tokens, the table, features without a page's own states, and the contract."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

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
from filters.train.classifier import classifier_class
from filters.train.config import StaticConfig
from filters.train.heads import LandmarkHead, RidgeHead, SvrHead
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


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(static_table, "_source", lambda config: (meanings, "0" * 64, True))
    write(tmp_path / "raw.parquet", {"text": columns()["text"]})
    config = TableConfig(
        texts=(str(tmp_path / "raw.parquet"),), output=str(tmp_path / "table"), dims=12, entries=3000, min_count=1
    )
    return build_table(config, echo=lambda line: None)


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


def test_features_are_the_means_of_the_vectors() -> None:
    rng = np.random.default_rng(0)
    tokens = static_tokens(PackedText.from_strings(["sun light sun"])).hashes
    keys = np.r_[tokens[:2], pair_hashes(tokens[:1], tokens[1:2])]
    vectors = rng.integers(-127, 128, (3, 5)).astype(np.int8)
    scales, weights = np.float32([0.1, 0.2, 0.3]), np.float32([0.5, 0.25, 0])
    made = StaticTable.build(keys, vectors, scales, weights)
    features = static_features(PackedText.from_strings(["Sun light, sun", ""]), made)
    v = vectors * scales[:, None]
    np.testing.assert_allclose(features[0, :5], (2 * v[0] + v[1] + v[2]) / 4, rtol=1e-5)
    np.testing.assert_allclose(features[0, 5:10], (2 * 0.5 * v[0] + 0.25 * v[1]) / 1.25, rtol=1e-5)
    assert features[0, 10] == pytest.approx(np.log(4))
    assert features[0, 16] == pytest.approx(0.75)
    assert not features[1].any()
    assert look_up(made, np.array([1], np.uint64)).tolist() == [-1]
    with pytest.raises(ModelError, match="distinct"):
        StaticTable.build(np.r_[keys, keys[:1]], vectors, scales, weights)


def test_a_page_does_not_find_its_own_states_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored for a page equals, up to rounding to int8, the features by a table made without the page."""

    def moods(texts: Sequence[str]) -> Iterator[tuple[int, npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        """States that depend on the page more than on the word."""
        for row, states, spans in meanings(texts):
            yield row, states + np.random.default_rng(len(texts[row])).normal(size=24).astype(np.float32), spans

    monkeypatch.setattr(static_table, "_source", lambda config: (moods, "0" * 64, True))
    rng = np.random.default_rng(0)
    texts = [
        " ".join(rng.choice([f"w{'abcdefghij'[k % 10] * (1 + k // 10)}" for k in range(60)], 30)) for _ in range(40)
    ]

    def made(name: str, rows: list[str]) -> Path:
        write(tmp_path / f"{name}.parquet", {"text": rows})
        # The same components for both tables: those of the first, which the cache keeps.
        config = TableConfig(
            texts=(str(tmp_path / f"{name}.parquet"),), output=str(tmp_path / name), dims=24, entries=5000, min_count=1
        )
        monkeypatch.setattr(static_table, "_components", lambda *_: (np.zeros(24, np.float32), np.eye(24, dtype="f4")))
        return build_table(config, echo=lambda line: None)

    page = texts[7]
    whole = read_table(made("whole", texts))
    without = read_table(made("without", [text for text in texts if text != page]))
    packed = PackedText.from_strings([page])
    stored = whole.left_out[static_table.text_key(page)][:48]
    expected = static_features(packed, without.vectors.table())[0, :48]
    naive = static_features(packed, whole.vectors.table())[0, :48]
    gaps = np.abs(stored - expected).mean(), np.abs(naive - expected).mean()
    assert gaps[0] < 0.25 * gaps[1], gaps


@pytest.mark.parametrize("head", [RidgeHead(), SvrHead(), LandmarkHead(landmarks=64)])
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

    monkeypatch.setattr(static_table, "_source", lambda config: (refuse, "0" * 64, True))
    config = TableConfig(texts=(str(tmp_path / "raw.parquet"),), output=str(table), dims=12, entries=200, min_count=1)
    assert read_table(build_table(config, echo=lambda line: None)).info.entries == 200


def test_another_window_is_refused(table: Path) -> None:
    with pytest.raises(ConfigError, match="was made for 2000"):
        classifier_class("static").candidates(StaticConfig(table=str(table)), 1000)


def test_a_damaged_table_is_refused(table: Path) -> None:
    path = table / "table.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ModelError, match="sha256 differs"):
        read_table(table)
    with pytest.raises(ModelError, match="no table"):
        read_table(table.parent)


def test_a_folder_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="exists and is no table"):
        build_table(TableConfig(texts=("x.parquet",), output=str(tmp_path / "mine")))
