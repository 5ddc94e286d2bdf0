"""Kind `static`: sums of a text's static vectors under a small head; neither trained nor scored with torch."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, JsonValue, ValidationError

from filters.arrays import Float32, Float64, Int64
from filters.config.yaml_file import PathKey, Section
from filters.errors import ConfigError, ModelError
from filters.kernels.packed import PackedText
from filters.kernels.static import StaticTable, static_features
from filters.model.folder import MANIFEST, Sha256, read_arrays, read_manifest, write_arrays
from filters.model.kinds import Classifier, HeadScorer, Options
from filters.model.kinds.encoder import text_key
from filters.model.kinds.heads import HEAD, Head, HeadConfig, HeadKind, SvrHead, fit_head, read_head, strengths
from filters.models import EMBEDDED, embedded_models


class StaticConfig(Section):
    """The mean of a page's word vectors under a small head: an encoder's knowledge at the speed of a table."""

    kind: Literal["static"] = "static"
    """Chooses this kind of classifier."""
    table: Annotated[
        str, PathKey(is_name=lambda value, path: value in embedded_models()), Field(exclude=True, min_length=1)
    ]
    """The word vectors: those of `edu-en`, of another model of kind static, or a folder that
    recipes/edu-en/build_table.py wrote."""
    share_table: bool = False
    """Name the table in the model folder, and do not copy it; it must be that of an embedded model. The folder is
    small, but only a finesieve that comes with the same table can load it."""
    head: HeadConfig = SvrHead(c=(5.0,), gamma=0.15)
    """The small model on top of the mean vector."""


TABLE = "table.safetensors"


class TableShape(Options):
    """Rows and columns of a table."""

    grams: Annotated[int, Field(gt=0, le=2**24)]
    gram_dims: Annotated[int, Field(ge=0, le=4096)]
    words: Annotated[int, Field(ge=0, le=2**24)]
    word_dims: Annotated[int, Field(gt=0, le=4096)]


@dataclass(frozen=True)
class Vectors:
    """The table as it is stored; see `filters.kernels.static.StaticTable`.

    Attributes:
        keys: uint64[v], hashes of tokens and of pairs, tokens first.
        grams: int8[v, d].
        gram_scales: float16[v].
        idf: float16[v].
        words: int8[s, e].
        word_scales: float16[s].
        weights: float16[s].
    """

    keys: npt.NDArray[np.uint64]
    grams: npt.NDArray[np.int8]
    gram_scales: npt.NDArray[np.float16]
    idf: npt.NDArray[np.float16]
    words: npt.NDArray[np.int8]
    word_scales: npt.NDArray[np.float16]
    weights: npt.NDArray[np.float16]

    @property
    def shape(self) -> TableShape:
        """Rows and columns."""
        (grams, gram_dims), (words, word_dims) = self.grams.shape, self.words.shape
        return TableShape(grams=grams, gram_dims=gram_dims, words=words, word_dims=word_dims)

    def table(self) -> StaticTable:
        """The tables as the kernels look words up in them."""
        return StaticTable.build(
            self.keys,
            self.grams,
            self.gram_scales.astype(np.float32),
            self.idf.astype(np.float32),
            self.words,
            self.word_scales.astype(np.float32),
            self.weights.astype(np.float32),
        )

    def write(self, path: Path) -> None:
        """Write as safetensors."""
        write_arrays(path, vars(self))

    @classmethod
    def read(cls, path: Path, shape: TableShape) -> Self:
        """Read what `write` wrote.

        Raises:
            ModelError: arrays that do not fit.
        """
        grams, words = (shape.grams,), (shape.words,)
        return cls(
            **read_arrays(
                path,
                {
                    "keys": ("uint64", grams),
                    "grams": ("int8", (shape.grams, shape.gram_dims)),
                    "gram_scales": ("float16", grams),
                    "idf": ("float16", grams),
                    "words": ("int8", (shape.words, shape.word_dims)),
                    "word_scales": ("float16", words),
                    "weights": ("float16", words),
                },
            )
        )


class StaticFeatures(Options):
    """The table's shape and origin, and the head's."""

    table: TableShape
    head: HeadKind
    source: str
    """What the vectors were made of, in words."""
    source_sha256: Sha256
    """SHA-256 of the table's description."""
    table_sha256: Sha256 | None = None
    """SHA-256 of an embedded model's table, which is the table of this model too. null: the table is in the folder."""


@dataclass(frozen=True)
class StaticScorer(HeadScorer):
    """A head on sums of static vectors.

    Attributes:
        options: shapes and origin.
        vectors: the table as stored.
        table: the table for look-up.
        head: features to scores.
    """

    options: StaticFeatures
    vectors: Vectors
    table: StaticTable
    head: Head

    normalisation = "words in lower case, runs of digits by their length; punctuation and line breaks are tokens"
    in_threads = True

    @property
    def embedding(self) -> Hashable:
        """The loaded table: see `load_table`."""
        return id(self.table)

    def embed(self, packed: PackedText, window: int) -> Float32:
        """float32[n, d]: the static features of the first `window` characters of each text."""
        return static_features(packed, self.table, window)

    def write(self, folder: Path) -> None:
        """Write the head, and the table unless it is an embedded model's."""
        if self.options.table_sha256 is None:
            self.vectors.write(folder / TABLE)
        self.head.write(folder / HEAD)

    @classmethod
    def read(cls, folder: Path, features: Mapping[str, JsonValue]) -> Self:
        """Read what `write` wrote.

        Raises:
            ModelError: options or arrays that do not fit.
        """
        options = StaticFeatures.parse(folder, features)
        shared = options.table_sha256
        path = folder / TABLE if shared is None else embedded_table(shared)
        if path is None:
            raise ModelError(
                f"{folder / MANIFEST}: features.table_sha256: no model that comes with finesieve has the table of "
                f"sha256 {(shared or '')[:12]}.... Remedy: install the finesieve of its training, or train again"
            )
        digest = shared or json.loads((folder / MANIFEST).read_bytes())["files"][TABLE]["sha256"]
        vectors, table = load_table(path, digest, options.table)
        return cls(options, vectors, table, read_head(folder / HEAD, options.head, table.columns))


_tables: dict[tuple[str, TableShape], tuple[Vectors, StaticTable]] = {}


def load_table(path: Path, digest: str, shape: TableShape) -> tuple[Vectors, StaticTable]:
    """A table as stored and for look-up, once per process for all models that have it, wherever it lies.

    Raises:
        ModelError: it is missing, or arrays do not fit.
    """
    if (digest, shape) not in _tables:
        if not path.is_file():
            raise ModelError(f"{path}: missing. Remedy: copy the whole model folder again")
        vectors = Vectors.read(path, shape)
        if len(_tables) >= 4:
            _tables.pop(next(iter(_tables)), None)
        return _tables.setdefault((digest, shape), (vectors, vectors.table()))
    return _tables[digest, shape]


ABOUT = "table.json"
LEFT_OUT = "left_out.safetensors"


class TableInfo(Section):
    """Schema of table.json."""

    format: Literal["finesieve-static-table"] = "finesieve-static-table"
    source: str
    texts: tuple[str, ...]
    documents: Annotated[int, Field(ge=0)]
    window: int
    shape: TableShape
    columns: int
    settings: dict[str, Any]
    files: dict[str, Sha256]


@dataclass(frozen=True)
class StaticTableFolder:
    """A table that was built.

    Attributes:
        source: what it was made of, in words.
        window: characters of a text whose grams it counts.
        digest: of table.json.
        table_digest: of the table itself.
        vectors: the table as stored.
        look_up: the table for look-up.
        left_out: sha256 of a text's window -> its features by a table without it.
    """

    source: str
    window: int
    digest: str
    table_digest: str
    vectors: Vectors
    look_up: StaticTable
    left_out: dict[bytes, Float32]


def read_table(folder: str | Path) -> StaticTableFolder:
    """Read a folder of recipes/edu-en/build_table.py.

    The vectors of a table that an embedded model was made of need not be in its folder: they are taken from the model.

    Raises:
        ModelError: it is none, or damaged.
    """
    folder = Path(folder)
    path = folder / ABOUT
    try:
        raw = path.read_bytes()
        info = TableInfo.model_validate_json(raw)
    except OSError as error:
        raise ModelError(
            f"{path}: no table of static vectors ({error}). Remedy: build it with "
            "recipes/edu-en/build_table.py, or give edu-en, the table of the embedded model"
        ) from error
    except ValidationError as error:
        raise ModelError(f"{path}: {error.errors()[0]['msg']}. Remedy: build the table again") from error
    files = {name: folder / name for name in (TABLE, LEFT_OUT)}
    if set(info.files) != set(files):
        raise ModelError(f"{path}: files must be {', '.join(files)}. Remedy: build the table again")
    if not files[TABLE].exists():
        files[TABLE] = embedded_table(info.files[TABLE]) or files[TABLE]
    for name, file in files.items():
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != info.files[name]:
            raise ModelError(f"{file}: missing, or not the file {ABOUT} speaks of. Remedy: build the table again")
    vectors, look_up = load_table(files[TABLE], info.files[TABLE], info.shape)
    if info.columns != look_up.columns:
        raise ModelError(
            f"{path}: features of {info.columns} columns, and there are {look_up.columns} now. Remedy: build the table "
            "again"
        )
    size = info.documents
    arrays = read_arrays(
        files[LEFT_OUT], {"keys": ("uint8", (size, 32)), "features": ("float16", (size, info.columns))}
    )
    features = arrays["features"].astype(np.float32)
    left_out = {key.tobytes(): row for key, row in zip(arrays["keys"], features, strict=True)}
    about = info.source, info.window, hashlib.sha256(raw).hexdigest(), info.files[TABLE]
    return StaticTableFolder(*about, vectors, look_up, left_out)


def embedded_table(digest: str) -> Path | None:
    """The table of an embedded model that has this sha256."""
    for name in embedded_models():
        manifest, _ = read_manifest(EMBEDDED / name)
        if TABLE in manifest.files and manifest.files[TABLE].sha256 == digest:
            return EMBEDDED / name / TABLE
    return None


def table_of_model(name_or_folder: str) -> StaticTableFolder:
    """The table inside a model of kind `static`: a page it was made from is not known to it as such.

    Raises:
        ModelError: it is no such model.
    """
    folder = EMBEDDED / name_or_folder if name_or_folder in embedded_models() else Path(name_or_folder)
    manifest, _ = read_manifest(folder)
    if manifest.kind != "static":
        raise ModelError(f"{name_or_folder}: kind {manifest.kind!r} has no table. Remedy: give one of kind static")
    scorer = StaticScorer.read(folder, manifest.features)
    options = scorer.options
    digest = options.table_sha256 or manifest.files[TABLE].sha256
    about = options.source, manifest.window, options.source_sha256, digest
    return StaticTableFolder(*about, scorer.vectors, scorer.table, {})


@functools.lru_cache(maxsize=2)
def _folder(path: str) -> StaticTableFolder:
    of_model = path in embedded_models() or (Path(path) / MANIFEST).is_file()
    return table_of_model(path) if of_model else read_table(path)


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
        self._table = _folder(config.table)
        if config.share_table and embedded_table(self._table.table_digest) is None:
            raise ConfigError(
                f"classifier.share_table: {config.table} is not the table of a model that comes with finesieve "
                f"({', '.join(embedded_models())}). Remedy: leave out share_table"
            )
        made_for = self._table.window
        if made_for != window:
            raise ConfigError(
                f"window: {window}, and {config.table} was made for {made_for}. Remedy: window: {made_for}, or "
                "build the table again"
            )

    @classmethod
    def candidates(cls, config: Section, window: int) -> list[Self]:
        """One classifier per strength of the head's regularisation."""
        assert isinstance(config, StaticConfig)
        return [cls(config, window, strength) for strength in strengths(config.head)]

    @property
    def setting(self) -> str:
        """The strength of regularisation."""
        return f"{'c' if self.config.head.kind == 'svr' else 'l2'} = {self.strength:g}"

    def _features(self, texts: Sequence[str]) -> Float32:
        packed = PackedText.from_strings(texts).head(self.window)
        features = static_features(packed, self._table.look_up)
        for row, text in enumerate(packed):
            known = self._table.left_out.get(text_key(text.decode("utf-8", "replace")))
            if known is not None:
                features[row] = known
        return features

    def fit(
        self, texts: Sequence[str], targets: Float64, weights: Float64, random_state: int, groups: Int64 | None = None
    ) -> Self:
        """Fit to labels; see `filters.model.kinds.Classifier`."""
        features = self._features(texts)
        head = fit_head(self.config.head, self.strength, features, targets, weights, random_state)
        table = self._table
        about = StaticFeatures(
            table=table.vectors.shape,
            head=head.kind,
            source=table.source,
            source_sha256=table.digest,
            table_sha256=table.table_digest if self.config.share_table else None,
        )
        self._scorer = StaticScorer(about, table.vectors, table.look_up, head)
        return self

    def score(self, texts: Sequence[str]) -> Float32:
        """float32[n]: raw scores, those of the table's own texts as if they were not in it."""
        scorer = self.scorer
        return scorer.head(self._features(texts))
