"""A small head on means of static word vectors; the vectors come from a table (`filters.train.static_table`)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from filters.arrays import Float32, Float64, Int64
from filters.errors import ConfigError
from filters.kernels.packed import PackedText
from filters.kernels.static import StaticTable, static_features
from filters.model.folder import MANIFEST
from filters.model.static_scorer import StaticFeatures, StaticScorer
from filters.models import embedded_models
from filters.train.classifier import Classifier
from filters.train.config import SingleConfig, StaticConfig
from filters.train.features import text_key
from filters.train.heads import fit_head, strengths
from filters.train.static_table import StaticTableFolder, read_table, table_of_model


@functools.lru_cache(maxsize=2)
def _folder(path: str) -> tuple[StaticTableFolder, StaticTable]:
    of_model = path in embedded_models() or (Path(path) / MANIFEST).is_file()
    folder = table_of_model(path) if of_model else read_table(path)
    return folder, folder.vectors.table()


class StaticClassifier(Classifier[StaticScorer]):
    """A head on static features.

    A text the table was made from is seen, in fitting and in cross-validation, as a table without it would show it.

    Args:
        config: the table and the head.
        window: characters of a text that are read.
        strength: of the head's regularisation.

    Raises:
        ModelError: the table cannot be read.
        ConfigError: the table was made for another window.
    """

    def __init__(self, config: StaticConfig, window: int, strength: float) -> None:
        self.config = config
        self.window = window
        self.strength = strength
        self._table, self._look_up = _folder(config.table)
        made_for = self._table.window
        if made_for != window:
            raise ConfigError(
                f"window: {window}, and {config.table} was made for {made_for}. Remedy: window: {made_for}, or "
                "build the table again"
            )

    @classmethod
    def candidates(cls, config: SingleConfig, window: int) -> list[Self]:
        """One classifier per strength of the head's regularisation."""
        assert isinstance(config, StaticConfig)
        return [cls(config, window, strength) for strength in strengths(config.head)]

    @property
    def setting(self) -> str:
        """The strength of regularisation."""
        return f"{'c' if self.config.head.kind == 'svr' else 'l2'} = {self.strength:g}"

    def _features(self, texts: Sequence[str]) -> Float32:
        packed = PackedText.from_strings(texts).head(self.window)
        features = static_features(packed, self._look_up)
        for row, text in enumerate(packed):
            known = self._table.left_out.get(text_key(text.decode("utf-8", "replace")))
            if known is not None:
                features[row] = known
        return features

    def fit(
        self, texts: Sequence[str], targets: Float64, weights: Float64, random_state: int, groups: Int64 | None = None
    ) -> Self:
        """Fit to labels; see `filters.train.classifier.Classifier`."""
        features = self._features(texts)
        head = fit_head(self.config.head, self.strength, features, targets, weights, random_state)
        table = self._table
        about = StaticFeatures(
            table=table.vectors.shape, head=head.kind, source=table.source, source_sha256=table.digest
        )
        self._scorer = StaticScorer(about, self._table.vectors, self._look_up, head)
        return self

    def score(self, texts: Sequence[str]) -> Float32:
        """float32[n]: raw scores, those of the table's own texts as if they were not in it."""
        scorer = self.scorer
        return scorer.head(self._features(texts))
