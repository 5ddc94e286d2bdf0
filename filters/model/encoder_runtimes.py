"""Encoders as transformers (safetensors, GGUF) or onnxruntime (ONNX) compute them."""

from __future__ import annotations

import functools
import importlib
import json
import time
from collections.abc import Sequence
from inspect import signature
from typing import Any

import numpy as np

from filters.arrays import Float32
from filters.errors import MissingExtraError, ModelError
from filters.model.encoder import (
    ONNX_EXTRA,
    OUTPUT,
    Encoder,
    EncoderOptions,
    TunedWeights,
    default_device,
    load_model,
    load_tokenizer,
    locate,
    require,
)

MAX_ERROR = 0.05
"""Relative difference from float32 up to which a faster precision is taken."""


class TorchEncoder(Encoder):
    """A transformers model, cut off after the highest layer that is read.

    Args:
        options: which, and what is read from it.
        device: of torch; None: a GPU where there is one.
        tuned: weights that fine-tuning changed.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ModelError: the encoder cannot be loaded, or has no such layers.
    """

    def __init__(self, options: EncoderOptions, device: str | None = None, tuned: TunedWeights | None = None) -> None:
        self.torch, _ = require(f"the encoder {options.encoder}")
        self.options = options
        self.device = device or default_device()
        files = locate(options.encoder)
        self._tokenizer = load_tokenizer(files)
        self.model = load_model(files, "AutoModel", self.device)
        self.model.requires_grad_(False)
        self.blocks = self._cut()
        self._states: dict[int, Any] = {}
        for layer in options.read:
            if layer != OUTPUT:
                self.blocks[layer - 1].register_forward_hook(functools.partial(self._keep, layer))
        if tuned is not None:
            tuned.apply(self.blocks, options.encoder)
        self.width = self.model.config.hidden_size
        self._no_cache = {"use_cache": False} if "use_cache" in signature(self.model.forward).parameters else {}
        self._prepare(self._positions())
        self.precision = self._choose_precision()
        self.model.to(getattr(self.torch, self.precision))

    def _cut(self) -> Any:
        count = self.model.config.num_hidden_layers
        found = [
            module
            for module in self.model.modules()
            if isinstance(module, self.torch.nn.ModuleList) and len(module) == count
        ]
        highest = max(self.options.read)
        if len(found) != 1 or highest > count:
            raise ModelError(
                f"encoder {self.options.encoder}: has {count} layers, layers: {list(self.options.read)} asked for. "
                "Remedy: choose layers it has"
            )
        if highest != OUTPUT:
            del found[0][highest:]
        return found[0]

    def _positions(self) -> int:
        """How many tokens the model can read."""
        positions: int = getattr(self.model.config, "max_position_embeddings", None) or self.options.max_tokens
        table = getattr(getattr(self.model, "embeddings", None), "position_embeddings", None)
        # RoBERTa and its kin count positions from after that of padding.
        skipped = getattr(table, "padding_idx", None)
        return positions if skipped is None else positions - skipped - 1

    def _keep(self, layer: int, module: Any, arguments: Any, output: Any) -> None:
        self._states[layer] = output[0] if isinstance(output, tuple) else output

    def _tokenize(
        self, texts: Sequence[str], limit: int | None, *, plain: bool, special: bool
    ) -> tuple[list[list[int]], list[Any]]:
        options: dict[str, Any] = {"split_special_tokens": plain, "add_special_tokens": special}
        if limit is not None:
            options |= {"truncation": True, "max_length": limit}
        coded = self._tokenizer(list(texts), return_offsets_mapping=True, **options)
        return coded["input_ids"], coded["offset_mapping"]

    @property
    def _blank(self) -> int:
        return self._tokenizer.eos_token_id or 0

    def states(self, batch: Sequence[Sequence[int]]) -> dict[int, Any]:
        """Layer -> states [n, longest, width] of torch; gradients flow where torch has them on."""
        torch = self.torch
        longest = max(map(len, batch))
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        output = self.model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device), **self._no_cache)
        states, self._states = self._states, {}
        if OUTPUT in self.options.read:
            states[OUTPUT] = output.last_hidden_state
        return states

    def pooled(self, batch: Sequence[Sequence[int]]) -> Any:
        """torch float32[n, columns]: features of token sequences without prefix and suffix; gradients flow."""
        states = {layer: every.float() for layer, every in self.states([self.surround(ids) for ids in batch]).items()}
        return self.torch.stack([self.torch.cat(self.pool(states, place, len(ids))) for place, ids in enumerate(batch)])

    def _forward(self, batch: Sequence[Sequence[int]]) -> dict[int, Any]:
        with self.torch.inference_mode():
            return {layer: every.float().cpu().numpy() for layer, every in self.states(batch).items()}

    def _compute(self, batch: Sequence[Sequence[int]]) -> Float32:
        with self.torch.inference_mode():
            features: Float32 = self.pooled(batch).cpu().numpy()
        return features

    def _choose_precision(self) -> str:
        """The fastest precision whose states agree with float32, by a short measurement."""
        torch, wanted = self.torch, self.options.precision
        if wanted != "auto":
            return wanted
        cuda = self.device.startswith("cuda")
        faster = "bfloat16" if not cuda or torch.cuda.is_bf16_supported() else "float16"
        known, longest = self.model.get_input_embeddings().num_embeddings, min(96, self._positions())
        batch = [[(7 + 13 * row + place) % known for place in range(longest)] for row in range(4)]
        seconds, means = {}, {}
        for name in ("float32", faster):
            self.model.to(getattr(torch, name))
            self._forward(batch)
            times = []
            for _ in range(3):
                start = time.perf_counter()
                states = self._forward(batch)[max(self.options.read)][:, 1:].mean(axis=1)
                times.append(time.perf_counter() - start)
            seconds[name], means[name] = min(times), states
        self.model.to(torch.float32)
        error = float(np.linalg.norm(means[faster] - means["float32"]) / np.linalg.norm(means["float32"]))
        return faster if error < MAX_ERROR and seconds[faster] < 0.9 * seconds["float32"] else "float32"


OUTPUTS = ("last_hidden_state", "token_embeddings")
"""What exporters call the states of the last layer."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
POSITIONS = 512
"""Tokens that a model can read, if no config.json says it."""


class OnnxEncoder(Encoder):
    """An ONNX file with its tokenizer.json.

    Args:
        options: which, and what is read from it.

    Raises:
        MissingExtraError: onnxruntime or tokenizers is not installed.
        ModelError: the file cannot be loaded, or gives or takes something else than an encoder does.
    """

    def __init__(self, options: EncoderOptions) -> None:
        runtime, tokenizers = _require(f"the encoder {options.encoder}")
        self.options = options
        if options.layers != "output":
            raise ModelError(
                f"encoder {options.encoder}: an ONNX file has its last layer only. Remedy: layers: output, or give the "
                "model as safetensors"
            )
        files = locate(options.encoder)
        assert files.onnx is not None
        self.precision = "as exported"
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(files.folder / "tokenizer.json"))
            self._tokenizer.no_padding()
            providers = [
                name
                for name in ("CUDAExecutionProvider", "CPUExecutionProvider")
                if name in runtime.get_available_providers()
            ]
            self._session = runtime.InferenceSession(str(files.onnx), providers=providers)
        except Exception as error:  # both libraries raise classes of their own, and Exception itself
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{files.onnx}: cannot be loaded: {first}. Remedy: export the model again") from error
        self.device = self._session.get_providers()[0].removesuffix("ExecutionProvider").lower()
        self._inputs = self._known_inputs()
        self._output, self.width = self._hidden()
        self._prepare(_positions(files.folder / "config.json"))

    def _known_inputs(self) -> list[str]:
        names = [given.name for given in self._session.get_inputs()]
        strange = sorted(set(names) - set(INPUTS))
        if strange or "input_ids" not in names:
            raise ModelError(
                f"encoder {self.options.encoder}: wants the inputs {', '.join(names)}; known: {', '.join(INPUTS)}. "
                "Remedy: export it for feature extraction, without a cache of keys and values"
            )
        return names

    def _hidden(self) -> tuple[str, int]:
        """Name and width of the output with the token states."""
        states = [given for given in self._session.get_outputs() if len(given.shape) == 3]
        named = [given for given in states if given.name in OUTPUTS] or states[:1]
        if not named or not isinstance(named[0].shape[2], int):
            raise ModelError(
                f"encoder {self.options.encoder}: no output of token states [texts, tokens, width]. Remedy: export it "
                "for feature extraction"
            )
        return named[0].name, named[0].shape[2]

    def _tokenize(
        self, texts: Sequence[str], limit: int | None, *, plain: bool, special: bool
    ) -> tuple[list[list[int]], list[Any]]:
        self._tokenizer.encode_special_tokens = plain
        if limit is None:
            self._tokenizer.no_truncation()
        else:
            self._tokenizer.enable_truncation(limit)
        coded = self._tokenizer.encode_batch(list(texts), add_special_tokens=special)
        return [one.ids for one in coded], [one.offsets for one in coded]

    @property
    def _blank(self) -> int:
        return 0

    def _forward(self, batch: Sequence[Sequence[int]]) -> dict[int, Float32]:
        longest = max(map(len, batch))
        shape = (len(batch), longest)
        given = {name: np.zeros(shape, np.int64) for name in self._inputs}
        for row, tokens in enumerate(batch):
            given["input_ids"][row, : len(tokens)] = tokens
            if "attention_mask" in given:
                given["attention_mask"][row, : len(tokens)] = 1
        if "position_ids" in given:
            given["position_ids"][:] = np.arange(longest)
        (states,) = self._session.run([self._output], given)
        return {OUTPUT: np.asarray(states, np.float32)}

    def _compute(self, batch: Sequence[Sequence[int]]) -> Float32:
        states = self._forward([self.surround(ids) for ids in batch])
        rows = [np.concatenate(self.pool(states, place, len(ids))) for place, ids in enumerate(batch)]
        return np.stack(rows).astype(np.float32)


def _require(feature: str) -> tuple[Any, Any]:
    try:
        return importlib.import_module("onnxruntime"), importlib.import_module("tokenizers")
    except ImportError as error:
        raise MissingExtraError(feature, ONNX_EXTRA, str(error)) from error


def _positions(config: Any) -> int:
    try:
        positions = json.loads(config.read_bytes())["max_position_embeddings"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return POSITIONS
    return positions if isinstance(positions, int) and positions > 0 else POSITIONS


def open_encoder(options: EncoderOptions, device: str | None = None, tuned: TunedWeights | None = None) -> Encoder:
    """Load an encoder.

    Args:
        options: which, and what is read from it.
        device: of torch; None: a GPU where there is one.
        tuned: weights that fine-tuning changed.

    Raises:
        MissingExtraError: what it needs is not installed.
        ModelError: it cannot be loaded, or has no such layers.
    """
    if locate(options.encoder).onnx is not None:
        if tuned is not None:
            raise ModelError(f"encoder {options.encoder}: an ONNX file cannot be tuned. Remedy: give safetensors")
        return OnnxEncoder(options)

    return TorchEncoder(options, device, tuned)


@functools.lru_cache(maxsize=64)  # eight members of an ensemble, eight encoders each
def shared_encoder(options: EncoderOptions, tuned: TunedWeights | None = None) -> Encoder:
    """One loaded encoder for all that use the same options and weights in this process."""
    return open_encoder(options, tuned=tuned)
