"""Opens an encoder with what it needs: torch and transformers, or onnxruntime."""

from __future__ import annotations

import functools

from filters.errors import ModelError
from filters.model.encoder import Encoder, EncoderOptions
from filters.model.encoder_files import locate
from filters.model.tuned import TunedWeights


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
        from filters.model.encoder_onnx import OnnxEncoder

        if tuned is not None:
            raise ModelError(f"encoder {options.encoder}: an ONNX file cannot be tuned. Remedy: give safetensors")
        return OnnxEncoder(options)
    from filters.model.encoder_torch import TorchEncoder

    return TorchEncoder(options, device, tuned)


@functools.lru_cache(maxsize=64)  # eight members of an ensemble, eight encoders each
def shared_encoder(options: EncoderOptions, tuned: TunedWeights | None = None) -> Encoder:
    """One loaded encoder for all that use the same options and weights in this process."""
    return open_encoder(options, tuned=tuned)
