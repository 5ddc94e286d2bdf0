"""Encoders in ONNX files, computed by onnxruntime: no torch and no transformers."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from filters.arrays import Float32
from filters.errors import MissingExtraError, ModelError
from filters.model.encoder import OUTPUT, Encoder, EncoderOptions
from filters.model.encoder_files import ONNX_EXTRA, locate

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
