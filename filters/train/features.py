"""Features of texts, computed once: cross-validation asks for the same pages many times, and an encoder is slow."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from filters.arrays import Float32
from filters.errors import ModelError
from filters.model.encoder import EncoderOptions
from filters.model.encoder_files import locate
from filters.model.folder import read_arrays, write_arrays
from filters.model.open_encoder import shared_encoder

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
