"""Tables of static word vectors, made without labels: the knowledge of an encoder, averaged into words.

The vector of a token (`filters.kernels.static`) is the mean of a language model's states over its occurrences in raw
text, after a principal component analysis; that of a pair is what the pair's mean adds to its second token's, shrunk
towards nothing where it is rare. A token embedding matrix (wordllama) can stand in for the states: cheaper, and worse.

A page that the table was made from finds its own states in it, as no other page will. So for each of these pages the
features are stored that a table without it, and without its near copies, would give: training uses those.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from filters.errors import AnnotationsError, ConfigError, MissingExtraError, ModelError
from filters.kernels.packed import PackedText
from filters.kernels.static import static_tokens
from filters.model.encoder import EncoderOptions, open_encoder
from filters.model.encoder_files import EXTRA, locate
from filters.model.folder import Sha256, read_arrays, write_arrays
from filters.model.static_scorer import TABLE, Vectors
from filters.train.distill import read_texts
from filters.train.features import text_key
from filters.train.splits import connected, near_pairs
from filters.train.static_average import Part, average, left_out_features

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
States = Iterator[tuple[int, Float32, Int64]]

ABOUT = "table.json"
LEFT_OUT = "left_out.safetensors"

_PART = 64
_PCA_TEXTS = 256
_OUTLIER = 3000.0
"""Norm of a state beyond which it is a sink's, not a word's."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ContextualSource(_Section):
    """States of an encoder's hidden layer (extra `encoder`)."""

    kind: Literal["contextual"] = "contextual"
    encoder: str = "smollm2-135m"
    layer: Annotated[int, Field(ge=1)] = 19
    max_tokens: Annotated[int, Field(ge=8, le=32_768)] = 320


class EmbeddingSource(_Section):
    """Rows of a token embedding matrix: safetensors, with a tokenizer in JSON."""

    kind: Literal["embedding"] = "embedding"
    weights: str = "wordllama"
    """A .safetensors file, or "wordllama" for the one inside that wheel."""
    tokenizer: str | None = None
    """Its tokenizer.json; not needed with "wordllama"."""
    tensor: str = "embedding.weight"


class TableConfig(_Section):
    """What a table is made of."""

    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    """Parquet files with a column text; the annotated pages may be among them, their labels are not read."""
    output: Annotated[str, Field(min_length=1)]
    """Folder for the table. States are kept in a folder beside it, so that an interrupted run goes on."""
    source: Annotated[ContextualSource | EmbeddingSource, Field(discriminator="kind")] = ContextualSource()
    window: Annotated[int, Field(ge=1)] = 2000
    """Characters of a text that are read; the classifier must read as many."""
    dims: Annotated[int, Field(ge=2, le=1024)] = 96
    entries: Annotated[int, Field(ge=16, le=2**22)] = 75_000
    """Vectors, of dims + 12 bytes each; half at most are of single tokens."""
    min_count: Annotated[int, Field(ge=1)] = 2
    shrink: Annotated[float, Field(ge=0)] = 2.0
    """Occurrences that the mean of all tokens (for a pair: its second token's vector) counts for."""
    random_state: Annotated[int, Field(ge=0, lt=2**31)] = 0


class TableInfo(_Section):
    """Schema of table.json."""

    format: Literal["finesieve-static-table"] = "finesieve-static-table"
    source: str
    texts: tuple[str, ...]
    documents: Annotated[int, Field(ge=0)]
    window: int
    dims: int
    entries: int
    columns: int
    settings: dict[str, Any]
    files: dict[str, Sha256]


@dataclass(frozen=True)
class StaticTableFolder:
    """A table that was built.

    Attributes:
        info: table.json.
        digest: of table.json.
        vectors: the table.
        left_out: sha256 of a text's window -> its features without its own states.
    """

    info: TableInfo
    digest: str
    vectors: Vectors
    left_out: dict[bytes, Float32]


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
    texts, names = _texts(config)
    echo(f"{len(texts)} texts")
    parts = _states(config, texts, echo)
    if not parts or not sum(len(part.hashes) for part in parts):
        raise AnnotationsError(f"{', '.join(config.texts)}: no text has tokens. Remedy: give other texts")
    contextual = isinstance(config.source, ContextualSource)
    vectors, sums = average(parts, config.entries, config.min_count, config.shrink, with_pairs=contextual)
    echo(f"{len(vectors.keys)} vectors of {config.dims} values")
    groups = connected(len(texts), near_pairs(texts))
    left_out = left_out_features(vectors, sums, parts, texts, groups, config.shrink)
    output.mkdir(parents=True, exist_ok=True)
    vectors.write(output / TABLE)
    keys = np.stack([np.frombuffer(text_key(text), np.uint8) for text in texts])
    write_arrays(output / LEFT_OUT, {"keys": keys, "features": left_out})
    source = config.source
    what = (
        f"mean states of layer {source.layer} of {Path(source.encoder).name}"
        if isinstance(source, ContextualSource)
        else f"rows of {Path(source.weights).name}"
    )
    info = TableInfo(
        source=what,
        texts=names,
        documents=len(texts),
        window=config.window,
        dims=config.dims,
        entries=len(vectors.keys),
        columns=left_out.shape[1],
        settings=config.model_dump(mode="json", exclude={"texts": True, "output": True, "source": True}),
        files={name: hashlib.sha256((output / name).read_bytes()).hexdigest() for name in (TABLE, LEFT_OUT)},
    )
    temporary = output / f"{ABOUT}.partial"
    temporary.write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, output / ABOUT)
    return output


def read_table(folder: str | Path) -> StaticTableFolder:
    """Read what `build_table` wrote.

    Raises:
        ModelError: it is none, or damaged.
    """
    folder = Path(folder)
    path = folder / ABOUT
    try:
        raw = path.read_bytes()
        info = TableInfo.model_validate_json(raw)
    except OSError as error:
        raise ModelError(f"{path}: no table of word vectors ({error}). Remedy: build one (build_table)") from error
    except ValidationError as error:
        raise ModelError(f"{path}: {error.errors()[0]['msg']}. Remedy: build the table again") from error
    for name, digest in info.files.items():
        if Path(name).name != name or hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise ModelError(f"{folder / name}: its sha256 differs from the one in {ABOUT}. Remedy: build it again")
    vectors = Vectors.read(folder / TABLE, info.entries, info.dims)
    size = info.documents
    arrays = read_arrays(
        folder / LEFT_OUT, {"keys": ("uint8", (size, 32)), "features": ("float32", (size, info.columns))}
    )
    left_out = {key.tobytes(): row for key, row in zip(arrays["keys"], arrays["features"], strict=True)}
    return StaticTableFolder(info, hashlib.sha256(raw).hexdigest(), vectors, left_out)


def _texts(config: TableConfig) -> tuple[list[str], tuple[str, ...]]:
    """(windows of all texts, each once, in random order; names and digests of the files)."""
    seen: dict[str, None] = {}
    names = []
    for path in config.texts:
        texts, digest = read_texts(path)
        # As the kernels see it: what is no Unicode becomes U+FFFD.
        packed = PackedText.from_strings([text[: config.window] for text in texts])
        seen.update(dict.fromkeys(text.decode("utf-8", "replace") for text in packed))
        names.append(f"{Path(path).name} (sha256 {digest})")
    unique = list(seen)
    order = np.random.default_rng(config.random_state).permutation(len(unique))
    return [unique[row] for row in order.tolist()], tuple(names)


def _source(config: TableConfig) -> tuple[Callable[[Sequence[str]], States], str, bool]:
    """(texts to states with spans, digest, whether a word's state is its last token's rather than the mean of all)."""
    source = config.source
    if isinstance(source, ContextualSource):
        options = EncoderOptions(encoder=source.encoder, layers=(source.layer,), max_tokens=source.max_tokens)
        return open_encoder(options).token_states, locate(source.encoder).digest(), True
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
    read, digest, last_only = _source(config)
    about = f"{digest} {config.source.model_dump_json()} {config.window} {config.dims} {config.random_state}"
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
                components = _components(folder / "components", read, texts[:_PCA_TEXTS], config.dims)
            part = _aligned(chunk, read, components, last_only)
            temporary = path.with_suffix(".partial")
            write_arrays(
                temporary,
                {
                    "keys": part.keys,
                    "counts": part.counts,
                    "hashes": part.hashes,
                    "before": part.before,
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
                        "before": ("uint64", (None,)),
                        "states": ("float16", (None, config.dims)),
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
            f"dims: {dims}, and there are {len(states)} states of {states.shape[1]} values to take them from. "
            "Remedy: lower dims, or give more texts"
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
    found: list[tuple[UInt64, UInt64, Float32]] = [
        (np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty((0, projection.shape[1]), np.float32))
    ] * len(texts)
    for row, states, spans in read(texts):
        low, high = tokens.offsets[row], tokens.offsets[row + 1]
        hashes = tokens.hashes[low:high]
        before: UInt64 = np.concatenate([np.zeros(1, np.uint64), hashes])[: len(hashes)]
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
        found[row] = hashes[inside], before[inside], reduced[covering].astype(np.float32)
    return Part(
        keys=np.stack([np.frombuffer(text_key(text), np.uint8) for text in texts]),
        counts=np.array([len(part[0]) for part in found], np.int64),
        hashes=np.concatenate([part[0] for part in found]),
        before=np.concatenate([part[1] for part in found]),
        states=np.concatenate([part[2] for part in found]).astype(np.float16),
    )
