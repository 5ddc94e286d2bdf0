"""Make the table behind edu-en, without labels: an encoder's knowledge, taught to words and pairs of words.

    python recipes/edu-en/build_table.py [CONFIG] [--set KEY=VALUE]

A gram's vector (a token or a pair of neighbours; `filters.kernels.static`) comes from a regression: the vectors of a
page's grams add up to what the encoder's layers hold of the page (`gram_vectors`). A token has a second vector, the
mean of the encoder's states over its occurrences (`word_averages`).

A page that the table was made from finds itself in it, as no other page will. So for each of these pages the features
are stored that a table without it, its near copies and the other pages of its host would give: training uses those.
Needs the extra `encoder`. An interrupted run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from gram_vectors import count_grams, gram_vectors
from pydantic import Field, model_validator
from word_averages import Averages, Part, left_out_means

from filters.arrays import Float32, Int64, UInt64
from filters.config.yaml_file import PathText, Section, load_config
from filters.errors import AnnotationsError, ConfigError, FinesieveError
from filters.kernels.packed import PackedText
from filters.kernels.static import SHAPE, static_features, static_tokens
from filters.model.encoder import EncoderOptions, EncoderText, locate
from filters.model.encoder_runtimes import open_encoder
from filters.model.folder import read_arrays, write_arrays
from filters.model.kinds.encoder import encoder_store, text_key
from filters.model.kinds.static import ABOUT, LEFT_OUT, TABLE, TableInfo, Vectors
from filters.statistics.resampling import connected, near_pairs
from filters.train.annotations import read_pages
from filters.train.procedure import one_blas_thread

States = Iterator[tuple[int, Float32, Int64]]

CONFIG = Path(__file__).with_name("table.yaml")

_PART = 64
_PCA_TEXTS = 256
_ECHO = 512
_QUESTION = "\n\nThe educational value of the text above for school students, from 0 (none) to 5 (textbook), is:"
_OUTLIER = 3000.0
"""Largest norm of a word's state; a larger one belongs to an attention sink."""


class Source(Section):
    """Hidden states of an encoder."""

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


class TableConfig(Section):
    """What a table is made of. See table.yaml."""

    texts: Annotated[tuple[PathText, ...], Field(min_length=1)]
    """Parquet files with a column text; the annotated pages may be among them, their labels are not read."""
    word_texts: Annotated[tuple[PathText, ...] | None, Field(min_length=1)] = None
    """Files whose tokens' states are averaged; null: those of texts. A page's token states are 32 KB on disk."""
    output: Annotated[PathText, Field(min_length=1)]
    """Folder for the table. States are kept in a folder beside it, so that an interrupted run goes on."""
    source: Source = Source()
    window: Annotated[int, Field(ge=1)] = 3000
    """Characters of a text whose grams are counted; the classifier must read as many."""
    gram_dims: Annotated[int, Field(ge=2, le=1024)] = 64
    """Principal components of what the encoder holds of a page."""
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


@one_blas_thread
def build_table(config: TableConfig, echo: Callable[[str], None] = print) -> Path:
    """Make a table and write its folder.

    Raises:
        ConfigError: the output folder holds something else.
        AnnotationsError: a text file cannot be read, or the texts have no tokens.
        MissingExtraError: the extra `encoder` is not installed.
        ModelError: the encoder cannot be loaded.
    """
    output = Path(config.output)
    if output.exists() and not (output / ABOUT).is_file():
        raise ConfigError(f"output: {output} exists and is no table. Remedy: give another folder")
    texts, of_words, groups, names = _texts(config)
    echo(f"{len(texts)} texts, {of_words} of them for the vectors of words")
    parts = _states(config, texts[:of_words], echo)
    if not parts or not sum(len(part.hashes) for part in parts):
        raise AnnotationsError(f"{', '.join(config.texts)}: no text has tokens. Remedy: give other texts")
    grams = count_grams(texts, config.words, config.grams - config.words, config.min_df)
    averages = Averages.of(parts, grams.keys[: grams.singles], config.shrink)
    vectors, predicted = gram_vectors(grams, _targets(config, texts, echo), config.l2, groups, config.folds)
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
        source=config.source.about,
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


def quantised(vectors: Float32) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """(int8[v, d], float16[v]) whose product is nearly `vectors` float32[v, d]."""
    scales = np.abs(vectors).max(axis=1, initial=0) / 127
    stored = np.maximum(scales.astype(np.float16), np.float16(1e-6))
    whole = np.clip(np.rint(vectors / stored.astype(np.float32)[:, None]), -127, 127).astype(np.int8)
    return whole, stored


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


def _targets(config: TableConfig, texts: list[str], echo: Callable[[str], None]) -> Float32:
    """float32[n, gram_dims]: principal components of the standardised states of whole pages."""
    store = encoder_store(config.source.page, config.source.cache or f"{config.output}.states")
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


def _source(config: TableConfig) -> tuple[Callable[[Sequence[str]], States], str]:
    """(texts to states of tokens with their spans, what these are)."""
    options = config.source.token
    about = f"{locate(config.source.encoder).digest()} {options.model_dump_json(exclude={'encoder'})}"
    return open_encoder(options).token_states, about


def _states(config: TableConfig, texts: list[str], echo: Callable[[str], None]) -> list[Part]:
    """States of all texts' tokens on principal components, part by part, from the cache where they are there."""
    cache = Path(f"{config.output}.states")
    read, what = _source(config)
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
            part = _aligned(chunk, read, components)
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
    texts: Sequence[str], read: Callable[[Sequence[str]], States], components: tuple[Float32, Float32]
) -> Part:
    """The tokens of texts with the states of the encoder's tokens in which they end."""
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
        found[row] = hashes[inside], reduced[covering].astype(np.float32)
    return Part(
        keys=np.stack([np.frombuffer(text_key(text), np.uint8) for text in texts]),
        counts=np.array([len(part[0]) for part in found], np.int64),
        hashes=np.concatenate([part[0] for part in found]),
        states=np.concatenate([part[1] for part in found]).astype(np.float16),
    )


def main() -> None:
    """Build the table of a config."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", type=Path, default=CONFIG)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    options = parser.parse_args()
    try:
        folder = build_table(load_config(TableConfig, options.config, options.overrides))
    except FinesieveError as error:
        sys.exit(f"build_table: {error}")
    print(f"table: {folder}")


if __name__ == "__main__":
    main()
