"""Kind `encoder`: language models and a small head, or a transformers sequence classifier with one output.

A frozen encoder is referred to by name or path, with the digest of its files; the model folder holds the head, and
what fine-tuning changed in the encoder. A sequence classifier that was imported lies in the model folder whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, JsonValue

from filters.arrays import Float32
from filters.errors import ModelError
from filters.kernels.packed import PackedText
from filters.model.encoder import Encoder, EncoderOptions
from filters.model.encoder_files import default_device, load_model, load_tokenizer, locate, require
from filters.model.folder import CARD, MANIFEST, Sha256
from filters.model.heads import HEAD, Head, HeadKind, read_head
from filters.model.open_encoder import shared_encoder
from filters.model.scorers import Options, Scorer
from filters.model.tuned import TUNED, TunedFeatures, TunedWeights

_INSIDE = "."
"""Path of a sequence classifier whose files are in the model folder."""
_TEXTS = 16
"""Texts of a batch of a sequence classifier."""


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


class KnownEncoder(Options):
    """An encoder, what is read from it, and which files it is."""

    encoder: EncoderOptions
    sha256: Sha256
    """SHA-256 of the encoder's weights, config and tokenizer."""


class EncoderFeatures(KnownEncoder):
    """An encoder, those beside it, and the shape of the head on the states of all."""

    head: HeadKind
    columns: Annotated[int, Field(gt=0, le=2**20)]
    tuned: TunedFeatures | None = None
    beside: Annotated[tuple[KnownEncoder, ...], Field(max_length=7)] = ()


@dataclass(frozen=True)
class EncoderScorer(Scorer):
    """A head on the pooled hidden states of an encoder, and of those beside it.

    Attributes:
        options: the encoders and what is read from them.
        head: features to scores.
        tuned: what fine-tuning changed in the encoder; None: nothing.
    """

    options: EncoderFeatures
    head: Head
    tuned: TunedWeights | None = None

    normalisation = "none: the encoder's tokenizer reads the text as it is"
    in_threads = False

    def encoders(self) -> list[Encoder]:
        """The encoder and those beside it, each loaded once per process.

        Raises:
            MissingExtraError: what they need is not installed.
        """
        return [
            shared_encoder(self.options.encoder, self.tuned),
            *(shared_encoder(other.encoder) for other in self.options.beside),
        ]

    def states(self, texts: Sequence[str]) -> Float32:
        """float32[n, columns]: what the head reads, encoder by encoder."""
        return np.concatenate([encoder.features(texts) for encoder in self.encoders()], axis=1)

    def score(self, packed: PackedText, window: int) -> Float32:
        """float32[n]: raw scores of the first `window` characters of each text."""
        return self.head(self.states(strings(packed, window)))

    def write(self, folder: Path) -> None:
        """Write the head, and the tuned weights."""
        self.head.write(folder / HEAD)
        if self.tuned is not None:
            self.tuned.write(folder / TUNED)

    @classmethod
    def read(cls, folder: Path, features: Mapping[str, JsonValue]) -> Self | SequenceScorer:
        """Read what `write` wrote, and check that the encoders are those it was trained with.

        A sequence classifier, which has a `path` among its features, is read as such.

        Raises:
            ModelError: options or arrays that do not fit; another encoder, or none.
            MissingExtraError: what the encoder needs is not installed.
        """
        if "path" in features:
            return SequenceScorer.read(folder, features)
        options = EncoderFeatures.parse(folder, features)
        for about in (options, *options.beside):
            name = about.encoder.encoder
            if locate(name).onnx is None:
                require(f"{folder / MANIFEST}: the encoder {name}")
            _check_digest(str(folder / MANIFEST), name, about.sha256)
        tuned = TunedWeights.read(folder / TUNED, options.tuned) if options.tuned is not None else None
        return cls(options, read_head(folder / HEAD, options.head, options.columns), tuned)


class SequenceFeatures(Options):
    """A transformers sequence classifier with one output."""

    path: Annotated[str, Field(min_length=1)]
    """Folder of the encoder; "." means the model folder itself."""
    sha256: Sha256
    max_tokens: Annotated[int, Field(ge=8, le=32_768)] = 512


@dataclass(frozen=True)
class SequenceScorer(Scorer):
    """AutoModelForSequenceClassification with one output, which is the score (HuggingFaceFW/fineweb-edu-classifier).

    Attributes:
        options: how it is read.
        folder: where it is.
        model: the transformers model, float32.
        tokenizer: its tokenizer.
    """

    options: SequenceFeatures
    folder: Path
    model: Any
    tokenizer: Any

    normalisation = "none: the model's tokenizer reads the text as it is"
    in_threads = False

    @classmethod
    def refer(cls, folder: Path) -> Self:
        """Load a folder of config.json, safetensors and tokenizer.

        Raises:
            ModelError: it cannot be loaded, or has several outputs.
            MissingExtraError: torch or transformers is not installed.
        """
        require(f"{folder}: a transformers model")
        return cls._load(SequenceFeatures(path=_INSIDE, sha256=locate(str(folder)).digest()), folder)

    @classmethod
    def _load(cls, options: SequenceFeatures, folder: Path) -> Self:
        files = locate(str(folder))
        if files.onnx is not None:
            raise ModelError(f"{folder}: a sequence classifier is loaded from safetensors. Remedy: give these")
        model = load_model(files, "AutoModelForSequenceClassification", default_device())
        if model.config.num_labels != 1:
            raise ModelError(
                f"{folder}: has {model.config.num_labels} outputs, and a score needs one. Remedy: give a "
                "regression model (num_labels 1), as HuggingFaceFW/fineweb-edu-classifier is"
            )
        return cls(options, folder, model, load_tokenizer(files))

    def score(self, packed: PackedText, window: int) -> Float32:
        """float32[n]: the model's output for the first `window` characters of each text, cut to `max_tokens`."""
        torch, _ = require("scoring with a transformers model")
        texts = strings(packed, window)
        scores = np.empty(len(texts), np.float32)
        limit = min(self.options.max_tokens, getattr(self.model.config, "max_position_embeddings", None) or 2**20)
        for rows in _by_length(texts):
            batch = self.tokenizer(
                [texts[row] for row in rows],
                return_tensors="pt",
                padding="longest",
                truncation=True,
                max_length=limit,
                split_special_tokens=True,  # a page that spells one out has only written its characters
            )
            with torch.inference_mode():
                logits = self.model(**batch.to(self.model.device)).logits
            scores[rows] = logits.float().squeeze(-1).cpu().numpy()
        return scores

    def write(self, folder: Path) -> None:
        """Copy the model: its weights, config and tokenizer, and nothing that could be code."""
        for path in sorted(self.folder.iterdir()):
            if path.suffix in (".safetensors", ".json", ".txt", ".model") and path.name not in (MANIFEST, CARD):
                shutil.copyfile(path, folder / path.name)

    @classmethod
    def read(cls, folder: Path, features: Mapping[str, JsonValue]) -> Self:
        """Load the model that `write` copied.

        Raises:
            ModelError: options that do not fit, another model, or none.
            MissingExtraError: torch or transformers is not installed.
        """
        options = SequenceFeatures.parse(folder, features)
        if options.path != _INSIDE:
            raise ModelError(
                f"{folder / MANIFEST}: features.path: {options.path!r} is not the model folder itself. Remedy: import "
                "the model again"
            )
        require(f"{folder / MANIFEST}: a transformers model")
        _check_digest(str(folder / MANIFEST), str(folder), options.sha256)
        return cls._load(options, folder)


def _by_length(texts: Sequence[str]) -> list[list[int]]:
    order = np.argsort([-len(text) for text in texts], kind="stable").tolist()
    return [order[start : start + _TEXTS] for start in range(0, len(order), _TEXTS)]
