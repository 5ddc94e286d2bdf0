"""Encoders that transformers loads: safetensors or GGUF."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.arrays import Float32
from filters.errors import ModelError
from filters.model.encoder import OUTPUT, Encoder, EncoderOptions
from filters.model.encoder_files import default_device, load_model, load_tokenizer, locate, require

if TYPE_CHECKING:
    from filters.model.tuned import TunedWeights


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
