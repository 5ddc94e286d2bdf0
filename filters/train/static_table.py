"""Tables of static vectors, made without labels: the knowledge of an encoder, taught to words and pairs of words.

A gram's vector (a token or a pair of neighbours; `filters.kernels.static`) comes from a regression: the vectors of a
page's grams add up to what the encoder's layers hold of the page (`filters.train.static_grams`). A token has a second
vector, the mean of the encoder's states over its occurrences (`filters.train.static_average`). A token embedding matrix
(wordllama) can stand in for the latter, without the former: cheaper, and worse.

A page that the table was made from finds itself in it, as no other page will. So for each of these pages the features
are stored that a table without it, its near copies and the other pages of its host would give: training uses those.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator

from filters.config_file import PathKey, PathText, Section
from filters.errors import AnnotationsError, ConfigError, MissingExtraError, ModelError
from filters.kernels.packed import PackedText
from filters.kernels.static import SHAPE, static_features, static_tokens
from filters.model import QualityModel
from filters.model.encoder import EncoderOptions, EncoderText, open_encoder
from filters.model.encoder_files import EXTRA, locate
from filters.model.folder import Sha256, read_arrays, read_manifest, write_arrays
from filters.model.static_scorer import TABLE, StaticScorer, TableShape, Vectors, quantised
from filters.models import EMBEDDED, embedded_models
from filters.statistics.splits import connected, near_pairs
from filters.train.blas import one_blas_thread
from filters.train.distill import read_pages
from filters.train.features import encoder_store, text_key
from filters.train.static_average import Averages, Part, left_out_means
from filters.train.static_grams import count_grams, gram_vectors

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
States = Iterator[tuple[int, Float32, Int64]]

ABOUT = "table.json"
LEFT_OUT = "left_out.safetensors"

_PART = 64
_PCA_TEXTS = 256
_ECHO = 512
_QUESTION = "\n\nThe educational value of the text above for school students, from 0 (none) to 5 (textbook), is:"
_OUTLIER = 3000.0
"""Norm of a state beyond which it is a sink's, not a word's."""


class ContextualSource(Section):
    """Hidden states of an encoder (extra `encoder`)."""

    kind: Literal["contextual"] = "contextual"
    encoder: EncoderText = "smollm2-135m"
    max_tokens: Annotated[int, Field(ge=8, le=32_768)] = 320
    layer: Annotated[int, Field(ge=1)] = 19
    """The layer whose states of tokens are averaged."""
    page_layers: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (16, 19, 22)
    """The layers whose states of a page, their mean and the last one, the vectors of its grams shall add up to."""
    suffix: str = _QUESTION
    """Put after a page, so that the last state is an answer."""
    cache: PathText | None = None
    """Folder of `EncoderConfig.cache`, where pages may be encoded already; null: beside the output."""

    @property
    def page(self) -> EncoderOptions:
        """What is read of a whole page."""
        return EncoderOptions.model_validate(
            {
                "encoder": self.encoder,
                "layers": self.page_layers,
                "pooling": ("mean", "last"),
                "suffix": self.suffix,
                "max_tokens": self.max_tokens,
            }
        )

    @property
    def token(self) -> EncoderOptions:
        """What is read of a token."""
        return EncoderOptions(encoder=self.encoder, layers=(self.layer,), max_tokens=self.max_tokens)

    @property
    def about(self) -> str:
        """In words."""
        layers = ", ".join(map(str, self.page_layers))
        return f"layers {layers} of {Path(self.encoder).name} regressed on grams, mean states of layer {self.layer}"


class EmbeddingSource(Section):
    """Rows of a token embedding matrix: safetensors, with a tokenizer in JSON."""

    kind: Literal["embedding"] = "embedding"
    weights: Annotated[str, PathKey(is_name=lambda value, path: value == "wordllama")] = "wordllama"
    """A .safetensors file, or "wordllama" for the one inside that wheel."""
    tokenizer: PathText | None = None
    """Its tokenizer.json; not needed with "wordllama"."""
    tensor: str = "embedding.weight"

    @property
    def about(self) -> str:
        """In words."""
        return f"rows of {Path(self.weights).name}"


class TableConfig(Section):
    """What a table is made of. See configs/table-edu-en.yaml."""

    texts: Annotated[tuple[PathText, ...], Field(min_length=1)]
    """Parquet files with a column text; the annotated pages may be among them, their labels are not read."""
    word_texts: Annotated[tuple[PathText, ...] | None, Field(min_length=1)] = None
    """Files whose tokens' states are averaged; null: those of texts. A page's token states are 32 KB on disk."""
    output: Annotated[PathText, Field(min_length=1)]
    """Folder for the table. States are kept in a folder beside it, so that an interrupted run goes on."""
    source: Annotated[ContextualSource | EmbeddingSource, Field(discriminator="kind")] = ContextualSource()
    window: Annotated[int, Field(ge=1)] = 3000
    """Characters of a text whose grams are counted; the classifier must read as many."""
    gram_dims: Annotated[int, Field(ge=2, le=1024)] = 64
    """Principal components of what the encoder holds of a page; without an encoder there are no vectors of grams."""
    word_dims: Annotated[int, Field(ge=2, le=1024)] = 96
    grams: Annotated[int, Field(ge=16, le=2**22)] = 85_000
    """Grams at most, of gram_dims + 12 bytes each."""
    words: Annotated[int, Field(ge=8, le=2**22)] = 30_000
    """Single tokens among them at most, of another word_dims + 4 bytes each."""
    min_df: Annotated[int, Field(ge=1)] = 3
    """Leave out grams that fewer texts have."""
    l2: Annotated[float, Field(gt=0)] = 1.0
    """Of the regression; a page's vector of grams has length 1."""
    shrink: Annotated[float, Field(ge=0)] = 2.0
    """Occurrences that the mean of all tokens counts for in a token's mean."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Of the cross-fitting that gives a page features of a table without it."""
    limit: Annotated[int, Field(ge=16, le=30_000)] = 20_000
    """Texts at most, drawn by random_state: the regression's memory grows with their square (4 GB at 20,000)."""
    random_state: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.words > self.grams:
            raise ValueError(f"words {self.words} are among the grams, of which there are {self.grams}")
        return self


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
        vectors: the table.
        left_out: sha256 of a text's window -> its features by a table without it.
    """

    source: str
    window: int
    digest: str
    vectors: Vectors
    left_out: dict[bytes, Float32]


@one_blas_thread
def build_table(config: TableConfig, echo: Callable[[str], None] = print) -> Path:
    """Make a table and write its folder.

    Raises:
        ConfigError: the output folder holds something else.
        AnnotationsError: a text file cannot be read, or the texts have no tokens.
        MissingExtraError: the source needs an extra.
        ModelError: the source cannot be loaded.
    """
    output = Path(config.output)
    if output.exists() and not (output / ABOUT).is_file():
        raise ConfigError(f"output: {output} exists and is no table. Remedy: give another folder")
    texts, of_words, groups, names = _texts(config)
    echo(f"{len(texts)} texts, {of_words} of them for the vectors of words")
    parts = _states(config, texts[:of_words], echo)
    if not parts or not sum(len(part.hashes) for part in parts):
        raise AnnotationsError(f"{', '.join(config.texts)}: no text has tokens. Remedy: give other texts")
    source = config.source
    contextual = isinstance(source, ContextualSource)
    grams = count_grams(texts, config.words, config.grams - config.words if contextual else 0, config.min_df)
    averages = Averages.of(parts, grams.keys[: grams.singles], config.shrink)
    if isinstance(source, ContextualSource):
        targets = _targets(config, source, texts, echo)
        vectors, predicted = gram_vectors(grams, targets, config.l2, groups, config.folds)
    else:
        vectors, predicted = np.zeros((len(grams.keys), 0), np.float32), np.zeros((len(texts), 0), np.float32)
    whole, scales = quantised(vectors)
    words, word_scales = quantised(averages.vectors)
    weights, idf = averages.weights.astype(np.float16), grams.idf.astype(np.float16)
    table = Vectors(grams.keys, whole, scales, idf, words, word_scales, weights)
    shape = table.shape
    echo(f"{shape.grams} grams of {shape.gram_dims} values, {shape.words} words of {shape.word_dims}")
    left_out = static_features(PackedText.from_strings(texts), table.table())
    left_out[:, : shape.gram_dims] = predicted
    left_out[:, shape.gram_dims : -len(SHAPE)] = left_out_means(averages, parts, texts, groups)
    output.mkdir(parents=True, exist_ok=True)
    table.write(output / TABLE)
    keys = np.stack([np.frombuffer(text_key(text), np.uint8) for text in texts])
    write_arrays(output / LEFT_OUT, {"keys": keys, "features": left_out.astype(np.float16)})
    info = TableInfo(
        source=source.about,
        texts=names,
        documents=len(texts),
        window=config.window,
        shape=shape,
        columns=left_out.shape[1],
        settings=config.model_dump(
            mode="json", exclude={"texts": True, "word_texts": True, "output": True, "source": {"cache"}}
        ),
        files={name: hashlib.sha256((output / name).read_bytes()).hexdigest() for name in (TABLE, LEFT_OUT)},
    )
    temporary = output / f"{ABOUT}.partial"
    temporary.write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, output / ABOUT)
    return output


def read_table(folder: str | Path) -> StaticTableFolder:
    """Read what `build_table` wrote.

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
        raise ModelError(f"{path}: no table of static vectors ({error}). Remedy: finesieve table CONFIG") from error
    except ValidationError as error:
        raise ModelError(f"{path}: {error.errors()[0]['msg']}. Remedy: build the table again") from error
    files = {name: folder / name for name in (TABLE, LEFT_OUT)}
    if set(info.files) != set(files):
        raise ModelError(f"{path}: files must be {', '.join(files)}. Remedy: build the table again")
    if not files[TABLE].exists():
        files[TABLE] = _embedded(info.files[TABLE]) or files[TABLE]
    for name, file in files.items():
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != info.files[name]:
            raise ModelError(f"{file}: missing, or not the file {ABOUT} speaks of. Remedy: build the table again")
    vectors = Vectors.read(files[TABLE], info.shape)
    columns = vectors.table().columns
    if info.columns != columns:
        raise ModelError(
            f"{path}: features of {info.columns} columns, and there are {columns} now. Remedy: build the table again"
        )
    size = info.documents
    arrays = read_arrays(
        files[LEFT_OUT], {"keys": ("uint8", (size, 32)), "features": ("float16", (size, info.columns))}
    )
    features = arrays["features"].astype(np.float32)
    left_out = {key.tobytes(): row for key, row in zip(arrays["keys"], features, strict=True)}
    return StaticTableFolder(info.source, info.window, hashlib.sha256(raw).hexdigest(), vectors, left_out)


def _embedded(digest: str) -> Path | None:
    """The table of an embedded model, if it is that of this digest."""
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
    model = QualityModel.load(name_or_folder)
    if not isinstance(model.scorer, StaticScorer):
        raise ModelError(
            f"{name_or_folder}: kind {model.metadata.kind!r} has no table. Remedy: give one of kind static"
        )
    options = model.scorer.options
    return StaticTableFolder(options.source, model.window, options.source_sha256, model.scorer.vectors, {})


def _texts(config: TableConfig) -> tuple[list[str], int, Int64, tuple[str, ...]]:
    """(windows of all texts, each once and in random order, those for words first; how many these are; groups of near
    copies and hosts; names and digests of the files)."""
    first = config.word_texts if config.word_texts is not None else config.texts
    hosts: dict[str, str] = {}
    names = []
    ends = []
    for path in dict.fromkeys((*first, *config.texts)):
        pages = read_pages(path)
        # As the kernels see it: what is no Unicode becomes U+FFFD.
        packed = PackedText.from_strings([text[: config.window] for text in pages.texts])
        for text, host in zip(packed, pages.hosts, strict=True):
            hosts.setdefault(text.decode("utf-8", "replace"), host)
        ends.append(len(hosts))
        names.append(f"{Path(path).name} (sha256 {pages.sha256})")
    unique = list(hosts)
    rng = np.random.default_rng(config.random_state)
    of_words = ends[len(dict.fromkeys(first)) - 1]
    order = np.r_[rng.permutation(of_words), of_words + rng.permutation(len(unique) - of_words)][: config.limit]
    texts = [unique[row] for row in order.tolist()]
    seen: dict[str, int] = {}
    pairs = [(seen.setdefault(hosts[text], row), row) for row, text in enumerate(texts) if hosts[text]]
    groups = connected(len(texts), pairs + near_pairs(texts))
    return texts, min(of_words, len(texts)), groups, tuple(names)


def _targets(config: TableConfig, source: ContextualSource, texts: list[str], echo: Callable[[str], None]) -> Float32:
    """float32[n, gram_dims]: principal components of the standardised states of whole pages."""
    store = encoder_store(source.page, source.cache or f"{config.output}.states")
    states = np.empty((len(texts), store.columns), np.float32)
    for start in range(0, len(texts), _ECHO):
        states[start : start + _ECHO] = store.get(texts[start : start + _ECHO])
        echo(f"pages encoded: {min(start + _ECHO, len(texts))} of {len(texts)}")
    states -= states.mean(axis=0)
    states /= states.std(axis=0) + 1e-3
    if min(states.shape) < config.gram_dims:
        raise ConfigError(
            f"gram_dims: {config.gram_dims}, and {len(texts)} texts have states of {states.shape[1]} values. "
            "Remedy: lower gram_dims, or give more texts"
        )
    _, directions = np.linalg.eigh((states.T @ states / len(states)).astype(np.float64))
    targets: Float32 = states @ directions[:, ::-1][:, : config.gram_dims].astype(np.float32)
    return targets


def _source(config: TableConfig) -> tuple[Callable[[Sequence[str]], States], str, bool]:
    """(texts to states with spans, what they are, whether a word's state is its last token's, not the mean of all)."""
    source = config.source
    if isinstance(source, ContextualSource):
        options = source.token
        about = f"{locate(source.encoder).digest()} {options.model_dump_json(exclude={'encoder'})}"
        return open_encoder(options).token_states, about, True
    try:
        from safetensors.numpy import load
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtraError("a table of token embeddings", EXTRA, str(error)) from error
    weights, tokens = Path(source.weights), Path(source.tokenizer or "")
    if source.weights == "wordllama":
        spec = importlib.util.find_spec("wordllama")
        if spec is None or not spec.submodule_search_locations:
            raise ModelError("wordllama: not installed. Remedy: pip install --no-deps wordllama")
        place = Path(spec.submodule_search_locations[0])
        weights = place / "weights" / "l2_supercat_256.safetensors"
        tokens = place / "tokenizers" / "l2_supercat_tokenizer_config.json"
    if not weights.is_file() or not tokens.is_file():
        raise ModelError(f"{weights} or {tokens}: no such file. Remedy: give source.weights and source.tokenizer")
    raw = weights.read_bytes()
    matrix = load(raw)[source.tensor].astype(np.float32)
    tokenizer = Tokenizer.from_file(str(tokens))

    def rows(texts: Sequence[str]) -> States:
        for number, coded in enumerate(tokenizer.encode_batch(list(texts), add_special_tokens=False)):
            spans = np.array(coded.offsets, np.int64).reshape(-1, 2)
            whole = spans[:, 1] > spans[:, 0]
            yield number, matrix[np.array(coded.ids, np.int64)][whole], spans[whole]

    return rows, hashlib.sha256(raw + tokens.read_bytes()).hexdigest(), False


def _states(config: TableConfig, texts: list[str], echo: Callable[[str], None]) -> list[Part]:
    """States of all texts' tokens on principal components, part by part, from the cache where they are there."""
    cache = Path(f"{config.output}.states")
    read, what, last_only = _source(config)
    about = f"{what} {config.window} {config.word_dims} {config.random_state}"
    folder = cache / hashlib.sha256(about.encode()).hexdigest()[:24]
    folder.mkdir(parents=True, exist_ok=True)
    components: tuple[Float32, Float32] | None = None
    parts = []
    for start in range(0, len(texts), _PART):
        chunk = texts[start : start + _PART]
        name = hashlib.sha256(b"".join(map(text_key, chunk))).hexdigest()[:32]
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            if components is None:
                components = _components(folder / "components", read, texts[:_PCA_TEXTS], config.word_dims)
            part = _aligned(chunk, read, components, last_only)
            temporary = path.with_suffix(".partial")
            write_arrays(
                temporary,
                {
                    "keys": part.keys,
                    "counts": part.counts,
                    "hashes": part.hashes,
                    "states": part.states,
                },
            )
            temporary.replace(path)
            echo(f"states of {start + len(chunk)} of {len(texts)} texts")
        parts.append(
            Part(
                **read_arrays(
                    path,
                    {
                        "keys": ("uint8", (len(chunk), 32)),
                        "counts": ("int64", (len(chunk),)),
                        "hashes": ("uint64", (None,)),
                        "states": ("float16", (None, config.word_dims)),
                    },
                )
            )
        )
    return parts


def _components(
    path: Path, read: Callable[[Sequence[str]], States], texts: Sequence[str], dims: int
) -> tuple[Float32, Float32]:
    """(mean float32[w], projection float32[w, dims]): principal components of standardised states."""
    if path.is_file():
        arrays = read_arrays(path, {"mean": ("float32", (None,)), "projection": ("float32", (None, dims))})
        return arrays["mean"], arrays["projection"]
    states = np.concatenate([part for _, part, _ in read(texts)])
    states = states[np.linalg.norm(states, axis=1) < _OUTLIER]
    if states.shape[1] < dims or len(states) < 2 * dims:
        raise ConfigError(
            f"word_dims: {dims}, and there are {len(states)} states of {states.shape[1]} values to take them from. "
            "Remedy: lower word_dims, or give more texts"
        )
    mean, scale = states.mean(axis=0), states.std(axis=0) + 1e-3
    z = (states - mean) / scale
    _, directions = np.linalg.eigh((z.T @ z / len(z)).astype(np.float64))
    projection = (directions[:, ::-1][:, :dims] / scale[:, None]).astype(np.float32)
    temporary = path.with_suffix(".partial")
    write_arrays(temporary, {"mean": mean, "projection": projection})
    temporary.replace(path)
    return mean, projection


def _aligned(
    texts: Sequence[str],
    read: Callable[[Sequence[str]], States],
    components: tuple[Float32, Float32],
    last_only: bool,
) -> Part:
    packed = PackedText.from_strings(texts)
    tokens = static_tokens(packed)
    characters = np.cumsum((packed.data & 0xC0) != 0x80) - 1
    mean, projection = components
    nothing: tuple[UInt64, Float32] = (np.empty(0, np.uint64), np.empty((0, projection.shape[1]), np.float32))
    found = [nothing] * len(texts)
    for row, states, spans in read(texts):
        low, high = tokens.offsets[row], tokens.offsets[row + 1]
        hashes = tokens.hashes[low:high]
        places = characters[tokens.last[low:high]] - (characters[packed.offsets[row]] if high > low else 0)
        covering = np.searchsorted(spans[:, 1], places, side="right")
        inside = covering < len(spans)
        inside[inside] &= spans[covering[inside], 0] <= places[inside]
        covering = covering[inside]
        reduced = np.clip((states - mean) @ projection, -6e4, 6e4)
        if not last_only and len(covering):
            # The mean of the pieces since the token before.
            sums = np.concatenate([np.zeros((1, reduced.shape[1])), np.cumsum(reduced, axis=0, dtype=np.float64)])
            first = np.minimum(np.r_[0, covering[:-1] + 1], covering)
            reduced = ((sums[covering + 1] - sums[first]) / (covering + 1 - first)[:, None]).astype(np.float32)
            covering = np.arange(len(covering))
        found[row] = hashes[inside], reduced[covering].astype(np.float32)
    return Part(
        keys=np.stack([np.frombuffer(text_key(text), np.uint8) for text in texts]),
        counts=np.array([len(part[0]) for part in found], np.int64),
        hashes=np.concatenate([part[0] for part in found]),
        states=np.concatenate([part[1] for part in found]).astype(np.float16),
    )
