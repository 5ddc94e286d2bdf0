"""recipes/edu-en: the table of a tiny stand-in encoder, and features without a page's own states."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import build_table
import numpy as np
import numpy.typing as npt
import pytest
from gram_vectors import count_grams, gram_vectors
from labelled_pages import columns, write
from table_stand_in import meanings, stand_in, table_config

from filters.config.yaml_file import load_config
from filters.errors import ConfigError
from filters.kernels.packed import PackedText
from filters.kernels.static import StaticTable, static_features
from filters.model.kinds.encoder import text_key
from filters.model.kinds.static import read_table

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "edu-en"


def test_the_recipe_is_the_one_edu_en_s_table_was_made_by() -> None:
    config = load_config(build_table.TableConfig, RECIPE / "table.yaml")
    made = read_table(RECIPE / "table")
    assert (config.window, config.source.about) == (made.window, made.source)
    shape = made.vectors.shape
    assert (config.gram_dims, config.word_dims, config.grams) == (shape.gram_dims, shape.word_dims, shape.grams)


def test_it_runs_from_the_command_line_and_says_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPE / "build_table.py"), "--set", f"output={tmp_path / 'table'}"]
    given = ["--set", f"texts=[{tmp_path / 'none.parquet'}]", "--set", "word_texts=null"]
    ended = subprocess.run([*command, *given], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr.startswith("build_table: ")
    assert "none.parquet" in ended.stderr


def test_grams_in_training_are_those_the_kernel_sums() -> None:
    """The matrix the vectors are fitted on, times the vectors, is what `static_features` gives."""
    texts = ["the sun is a star, the star is hot", "plants make sugar\nfrom light", "the light of the sun", ""]
    grams = count_grams(texts, singles=40, pairs=40, min_df=1)
    vectors = np.random.default_rng(0).normal(size=(len(grams.keys), 6)).astype(np.float32)
    whole, scales = build_table.quantised(vectors)
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
        monkeypatch.setattr(build_table, "_components", lambda *_: (np.zeros(24, np.float32), np.eye(24, dtype="f4")))
        config = table_config(tmp_path / f"{name}.parquet", tmp_path / name, word_dims=24)
        return build_table.build_table(config, echo=lambda line: None)

    page = texts[7]
    whole = read_table(made("whole", texts))
    without = read_table(made("without", [text for text in texts if text != page]))
    packed = PackedText.from_strings([page])
    words = slice(10, 34)
    stored = whole.left_out[text_key(page)][words]
    expected = static_features(packed, without.vectors.table())[0, words]
    naive = static_features(packed, whole.vectors.table())[0, words]
    gaps = np.abs(stored - expected).mean(), np.abs(naive - expected).mean()
    assert gaps[0] < 0.25 * gaps[1], gaps


def test_pages_of_one_host_do_not_see_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"page {'abcdefghijklmnop'[k]} of the site about sums and letters" for k in range(16)]
    write(tmp_path / "raw.parquet", {"text": texts, "url": [f"https://h{k // 2}.org/{k}" for k in range(16)]})
    config = table_config(tmp_path / "raw.parquet", tmp_path / "table")
    found, of_words, groups, _ = build_table._texts(config)
    assert of_words == 16
    group = dict(zip(found, groups, strict=True))
    assert all(group[texts[k]] == group[texts[k + 1]] for k in range(0, 16, 2))


def test_states_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    table = tmp_path / "table"
    write(tmp_path / "raw.parquet", {"text": columns()["text"]})
    build_table.build_table(table_config(tmp_path / "raw.parquet", table), echo=lambda line: None)

    def refuse(texts: Sequence[str]) -> Iterator[tuple[int, npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        raise AssertionError("encoded again")

    stand_in(monkeypatch, refuse)
    config = table_config(tmp_path / "raw.parquet", table, grams=200, words=20)
    assert read_table(build_table.build_table(config, echo=lambda line: None)).vectors.shape.grams == 200


def test_a_folder_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="exists and is no table"):
        build_table.build_table(build_table.TableConfig(texts=("x.parquet",), output=str(tmp_path / "mine")))
