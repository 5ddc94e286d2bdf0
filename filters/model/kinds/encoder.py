"""Kind `encoder`: language models and a small head, or a transformers sequence classifier with one output.

A frozen encoder is referred to by name or path, with the digest of its files; the model folder holds the head, and
what fine-tuning changed in the encoder. A sequence classifier that was imported lies in the model folder whole.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, JsonValue, model_validator

from filters.arrays import Float32, Float64, Int64
from filters.config.yaml_file import PathText, Section
from filters.errors import ModelError
from filters.kernels.packed import PackedText
from filters.model.encoder import (
    TUNED,
    WHEELS,
    Encoder,
    EncoderOptions,
    TunedFeatures,
    TunedWeights,
    default_device,
    load_model,
    load_tokenizer,
    locate,
    require,
)
from filters.model.encoder_runtimes import shared_encoder
from filters.model.folder import CARD, MANIFEST, Sha256, read_arrays, write_arrays
from filters.model.kinds import Classifier, HeadScorer, Options, Scorer
from filters.model.kinds.heads import (
    HEAD,
    Head,
    HeadConfig,
    HeadKind,
    RidgeHead,
    fit_head,
    read_head,
    strengths,
)
from filters.model.kinds.tuning import HeadOnly, TuneConfig, Tuned, fine_tune


class EncoderConfig(EncoderOptions):
    """Hidden states of a language model, or of several side by side, under a small head (extra `encoder`)."""

    kind: Literal["encoder"] = "encoder"
    """Chooses this kind of classifier."""
    beside: Annotated[tuple[EncoderOptions, ...], Field(max_length=7)] = ()
    """Other encoders that read the same pages; the head reads the states of all."""
    head: HeadConfig = RidgeHead(l2=(2.0,))
    """The small model on top of the states."""
    tune: TuneConfig = HeadOnly()
    """What is trained. head: only the head. last_layers: the uppermost layers of the language model too, which needs a
    GPU or patience: validation.repeats * folds * (inner_folds + 1) + inner_folds + 1 times."""
    cache: Annotated[PathText | None, Field(exclude=True)] = None
    """Folder that keeps features between trainings. null: none. Within a training each page is encoded once in any
    case."""

    @model_validator(mode="after")
    def _tuned_under_ridge(self) -> Self:
        if not isinstance(self.tune, HeadOnly) and not isinstance(self.head, RidgeHead):
            raise ValueError("tuning starts from, and ends in, a ridge head; give head: {kind: ridge, l2: [2.0]}")
        if not isinstance(self.tune, HeadOnly) and self.beside:
            raise ValueError("an encoder is tuned by itself; leave out beside, or make two members of an ensemble")
        return self

    def options(self) -> EncoderOptions:
        """What is read from the encoder itself."""
        return EncoderOptions.model_validate({name: getattr(self, name) for name in EncoderOptions.model_fields})

    def encoders(self) -> tuple[EncoderOptions, ...]:
        """What is read from it and from those beside it."""
        return (self.options(), *self.beside)


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

    def moved(self, path: Callable[[str], str]) -> Self:
        """The same with another path for each relative one; names and absolute paths stay."""

        def other(known: KnownEncoder) -> EncoderOptions:
            name = known.encoder.encoder
            stays = name in WHEELS or os.path.isabs(name)
            return known.encoder if stays else known.encoder.model_copy(update={"encoder": path(name)})

        beside = tuple(known.model_copy(update={"encoder": other(known)}) for known in self.beside)
        return self.model_copy(update={"encoder": other(self), "beside": beside})


@dataclass(frozen=True)
class EncoderScorer(HeadScorer):
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

    @property
    def embedding(self) -> Hashable:
        """The encoders, what is read from them, and what tuning changed."""
        return self.options.encoder, self.options.sha256, self.options.beside, self.tuned

    def embed(self, packed: PackedText, window: int) -> Float32:
        """float32[n, columns]: the states of the first `window` characters of each text."""
        return self.states(strings(packed, window))

    def stored(self, features: dict[str, JsonValue], folder: Path) -> dict[str, JsonValue]:
        """Relative paths of encoders as seen from the model folder."""
        return self.options.moved(lambda path: os.path.relpath(path, folder)).model_dump(mode="json")

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
        options = EncoderFeatures.parse(folder, features).moved(lambda path: os.path.abspath(folder / path))
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


_PART = 64
"""Texts per file, so that an interrupted run loses little."""


def text_key(text: str) -> bytes:
    """sha256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _text_keys(texts: Sequence[str]) -> list[bytes]:
    return [text_key(text) for text in texts]


class FeatureStore:
    """Features of texts by content, in memory and optionally in a folder of safetensors.

    Args:
        compute: n texts to float32[n, columns].
        columns: features of a text.
        folder: keeps them between processes; one folder for one `compute`.
        identify: n texts to n keys of 32 bytes; texts of one key have the same features.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[str]], Float32],
        columns: int,
        folder: Path | None = None,
        identify: Callable[[Sequence[str]], list[bytes]] = _text_keys,
    ) -> None:
        self._compute = compute
        self.columns = columns
        self._folder = folder
        self._identify = identify
        self._names: dict[bytes, bytes] = {}
        self._rows: dict[bytes, Float32] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob("*.safetensors")):
                self._read(path)

    def _read(self, path: Path) -> None:
        try:
            part = read_arrays(path, {"keys": ("uint8", (None, 32)), "features": ("float32", (None, self.columns))})
        except ModelError:
            path.unlink()  # a cache: what is damaged is computed again
            return
        for key, row in zip(part["keys"], part["features"], strict=False):
            self._rows[key.tobytes()] = row

    def _keys(self, texts: Sequence[str]) -> list[bytes]:
        own = _text_keys(texts)
        new = {name: text for name, text in zip(own, texts, strict=True) if name not in self._names}
        self._names.update(zip(new, self._identify(list(new.values())), strict=True))
        return [self._names[name] for name in own]

    def get(self, texts: Sequence[str]) -> Float32:
        """float32[n, columns]."""
        keys = self._keys(texts)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._rows}
        pending = sorted(missing, key=lambda key: (-len(missing[key]), key))
        for start in range(0, len(pending), _PART):
            part = pending[start : start + _PART]
            features = self._compute([missing[key] for key in part])
            self._rows.update(zip(part, features, strict=True))
            if self._folder is not None:
                path = self._folder / f"{part[0].hex()[:32]}.safetensors"
                temporary = path.with_suffix(".partial")
                keys_array = np.frombuffer(b"".join(part), np.uint8).reshape(-1, 32)
                write_arrays(temporary, {"keys": keys_array, "features": features})
                temporary.replace(path)
        if not keys:
            return np.empty((0, self.columns), np.float32)
        return np.stack([self._rows[key] for key in keys])


@functools.lru_cache(maxsize=64)  # eight members of an ensemble, eight encoders each
def encoder_store(options: EncoderOptions, cache: str | None) -> FeatureStore:
    """The store of an encoder's features, one per process and set of options.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ModelError: the encoder cannot be loaded.
    """
    encoder = shared_encoder(options)
    folder = None
    if cache is not None:
        # Defaults are left out, so that an option that is new in a later version leaves the cache valid.
        read = options.model_dump_json(exclude={"encoder", "precision"}, exclude_defaults=True)
        about = f"{locate(options.encoder).digest()} {encoder.precision} {read}"
        folder = Path(cache) / hashlib.sha256(about.encode()).hexdigest()[:24]

    def identify(texts: Sequence[str]) -> list[bytes]:
        # Keyed by what is read of a page: pages cut to another window often have the same first tokens.
        return [hashlib.sha256(np.array(ids, "<i4").tobytes()).digest() for ids in encoder.tokens(texts)]

    return FeatureStore(encoder.features, encoder.columns, folder, identify)


class EncoderClassifier(Classifier[EncoderScorer]):
    """A head on the hidden states of an encoder, and of those beside it.

    Args:
        config: the encoder, what is read from it, what of it is tuned, and the head.
        window: characters of a text that are read.
        strength: of the head's regularisation; with tuning, the learning rate.
    """

    def __init__(self, config: EncoderConfig, window: int, strength: float) -> None:
        self.config = config
        self.window = window
        self.strength = strength
        self._tuned: Tuned | None = None

    @classmethod
    def candidates(cls, config: Section, window: int) -> list[Self]:
        """One classifier per strength of the head's regularisation, or per learning rate."""
        assert isinstance(config, EncoderConfig)
        choices = strengths(config.head) if isinstance(config.tune, HeadOnly) else config.tune.lr
        return [cls(config, window, choice) for choice in choices]

    @property
    def setting(self) -> str:
        """The strength of regularisation, or the learning rate and what tuning came to."""
        if isinstance(self.config.tune, HeadOnly):
            return f"{'c' if self.config.head.kind == 'svr' else 'l2'} = {self.strength:g}"
        setting = f"{self.config.tune.kind}, lr = {self.strength:g}"
        if self._tuned is not None:
            before, after = self._tuned.error
            setting += (
                f", {self._tuned.epochs:.1f} epochs, squared error of pages kept aside {before:.4f} -> {after:.4f}"
            )
        return setting

    def _stores(self) -> list[FeatureStore]:
        return [encoder_store(options, self.config.cache) for options in self.config.encoders()]

    def _features(self, texts: Sequence[str]) -> Float32:
        read = [text[: self.window] for text in texts]
        return np.concatenate([store.get(read) for store in self._stores()], axis=1)

    def fit(
        self, texts: Sequence[str], targets: Float64, weights: Float64, random_state: int, groups: Int64 | None = None
    ) -> Self:
        """Fit to labels; see `filters.model.kinds.Classifier`."""
        features = self._features(texts)
        options, tune = self.config.options(), self.config.tune
        head: Head
        if isinstance(tune, HeadOnly):
            head = fit_head(self.config.head, self.strength, features, targets, weights, random_state)
        else:
            assert isinstance(self.config.head, RidgeHead)
            self._tuned = fine_tune(
                tune,
                self.strength,
                options,
                [text[: self.window] for text in texts],
                targets,
                weights,
                groups,
                features,
                self.config.head,
                random_state,
            )
            head = self._tuned.head
        weights_changed = self._tuned.weights if self._tuned is not None else None
        about = EncoderFeatures(
            encoder=options,
            sha256=locate(options.encoder).digest(),
            head=head.kind,
            columns=sum(store.columns for store in self._stores()),
            tuned=weights_changed.features if weights_changed is not None else None,
            beside=tuple(
                KnownEncoder(encoder=other, sha256=locate(other.encoder).digest()) for other in self.config.beside
            ),
        )
        self._scorer = EncoderScorer(about, head, weights_changed)
        return self

    def score(self, texts: Sequence[str]) -> Float32:
        """float32[n]: raw scores; a frozen encoder reads no page twice."""
        scorer = self.scorer
        if scorer.tuned is None:
            return scorer.head(self._features(texts))
        return scorer.head(scorer.states([text[: self.window] for text in texts]))
