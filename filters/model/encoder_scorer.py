"""Kinds `encoder` (frozen encoder and a small head) and `sequence-classification` (a fine-tuned transformers model).

Their model folders hold the head only and refer to the encoder by name or path, with the digest of its files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, JsonValue

from filters.errors import ModelError
from filters.kernels.packed import PackedText
from filters.model.encoder import (
    Encoder,
    EncoderOptions,
    default_device,
    load_model,
    load_tokenizer,
    locate,
    require,
    shared_encoder,
)
from filters.model.folder import MANIFEST, Sha256
from filters.model.heads import HEAD, Head, HeadKind, read_head
from filters.model.scorers import Options

Float32 = npt.NDArray[np.float32]


def strings(packed: PackedText, window: int) -> list[str]:
    """The first `window` characters of each text; a byte that is no UTF-8 reads as U+FFFD."""
    return [text.decode("utf-8", "replace") for text in packed.head(window)]


def _check_digest(where: str, encoder: str, expected: str) -> None:
    found = locate(encoder).digest()
    if found != expected:
        raise ModelError(
            f"{where}: the encoder {encoder} has sha256 {found[:12]}..., and the model was trained with "
            f"{expected[:12]}.... Remedy: get the encoder it was trained with, or train again"
        )


class EncoderFeatures(Options):
    """A frozen encoder and the shape of its head."""

    encoder: EncoderOptions
    sha256: Sha256
    """Of the encoder's weights, config and tokenizer."""
    head: HeadKind
    columns: Annotated[int, Field(gt=0, le=2**20)]


@dataclass(frozen=True)
class EncoderScorer:
    """A head on the pooled hidden states of a frozen encoder.

    Attributes:
        options: the encoder and what is read from it.
        head: features to scores.
    """

    options: EncoderFeatures
    head: Head

    normalisation = "none: the encoder's tokenizer reads the text as it is"

    def encoder(self) -> Encoder:
        """The encoder, loaded once per process.

        Raises:
            MissingExtraError: torch or transformers is not installed.
        """
        return shared_encoder(self.options.encoder)

    def score(self, packed: PackedText, window: int) -> Float32:
        """float32[n]: raw scores of the first `window` characters of each text."""
        return self.head(self.encoder().features(strings(packed, window)))

    def features(self) -> dict[str, JsonValue]:
        """Options as model.json holds them."""
        return self.options.model_dump(mode="json")

    def write(self, folder: Path) -> None:
        """Write the head."""
        self.head.write(folder / HEAD)

    @classmethod
    def read(cls, folder: Path, features: Mapping[str, JsonValue]) -> Self:
        """Read what `write` wrote, and check that the encoder is the one it was trained with.

        Raises:
            ModelError: options or arrays that do not fit; another encoder, or none.
            MissingExtraError: torch or transformers is not installed.
        """
        options = EncoderFeatures.parse(folder, features)
        require(f"{folder / MANIFEST}: the encoder {options.encoder.encoder}")
        _check_digest(str(folder / MANIFEST), options.encoder.encoder, options.sha256)
        return cls(options, read_head(folder / HEAD, options.head, options.columns))


class SequenceFeatures(Options):
    """A transformers sequence classifier with one output."""

    path: Annotated[str, Field(min_length=1)]
    sha256: Sha256
    max_tokens: Annotated[int, Field(ge=8, le=32_768)] = 512


@dataclass(frozen=True)
class SequenceScorer:
    """AutoModelForSequenceClassification with one output, which is the score (HuggingFaceFW/fineweb-edu-classifier).

    Attributes:
        options: where it is.
        model: the transformers model, float32.
        tokenizer: its tokenizer.
    """

    options: SequenceFeatures
    model: Any
    tokenizer: Any

    normalisation = "none: the model's tokenizer reads the text as it is"

    @classmethod
    def refer(cls, folder: Path) -> Self:
        """Load a folder of config.json, safetensors and tokenizer.

        Raises:
            ModelError: it cannot be loaded, or has several outputs.
            MissingExtraError: torch or transformers is not installed.
        """
        require(f"{folder}: a transformers model")
        return cls._load(SequenceFeatures(path=str(folder), sha256=locate(str(folder)).digest()))

    @classmethod
    def _load(cls, options: SequenceFeatures) -> Self:
        files = locate(options.path)
        model = load_model(files, "AutoModelForSequenceClassification", default_device())
        if model.config.num_labels != 1:
            raise ModelError(
                f"{options.path}: has {model.config.num_labels} outputs, and a score needs one. Remedy: give a "
                "regression model (num_labels 1), as HuggingFaceFW/fineweb-edu-classifier is"
            )
        return cls(options, model, load_tokenizer(files))

    def score(self, packed: PackedText, window: int) -> Float32:
        """float32[n]: the model's output for the first `window` characters of each text, cut to `max_tokens`."""
        torch, _ = require("scoring with a transformers model")
        texts = strings(packed, window)
        scores = np.empty(len(texts), np.float32)
        limit = min(self.options.max_tokens, getattr(self.model.config, "max_position_embeddings", None) or 2**20)
        for rows in _by_length(texts):
            batch = self.tokenizer(
                [texts[row] for row in rows], return_tensors="pt", padding="longest", truncation=True, max_length=limit
            )
            with torch.inference_mode():
                logits = self.model(**batch.to(self.model.device)).logits
            scores[rows] = logits.float().squeeze(-1).cpu().numpy()
        return scores

    def features(self) -> dict[str, JsonValue]:
        """Options as model.json holds them."""
        return self.options.model_dump(mode="json")

    def write(self, folder: Path) -> None:
        """Nothing: the folder is referred to."""

    @classmethod
    def read(cls, folder: Path, features: Mapping[str, JsonValue]) -> Self:
        """Load the model referred to, if it is still the same.

        Raises:
            ModelError: options that do not fit, another model, or none.
            MissingExtraError: torch or transformers is not installed.
        """
        options = SequenceFeatures.parse(folder, features)
        require(f"{folder / MANIFEST}: a transformers model")
        _check_digest(str(folder / MANIFEST), options.path, options.sha256)
        return cls._load(options)


def _by_length(texts: Sequence[str], size: int = 16) -> list[list[int]]:
    order = np.argsort([-len(text) for text in texts], kind="stable").tolist()
    return [order[start : start + size] for start in range(0, len(order), size)]
