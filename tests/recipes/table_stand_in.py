"""A table without an encoder: states of words that are drawn at random, and fixed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import build_table
import numpy as np
import numpy.typing as npt
import pytest

from filters.model.kinds.encoder import FeatureStore

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
    monkeypatch.setattr(build_table, "_source", lambda config: (tokens, "0" * 64))
    monkeypatch.setattr(build_table, "encoder_store", lambda options, cache: FeatureStore(pages, 24))


def table_config(texts: Path, output: Path, **changes: Any) -> build_table.TableConfig:
    settings = {"window": WINDOW, "gram_dims": 10, "word_dims": 12, "grams": 3000, "words": 800, "min_df": 1}
    return build_table.TableConfig.model_validate({"texts": [str(texts)], "output": str(output)} | settings | changes)
