"""The fingerprint of a document: the hash of its normalised text, MinHash band keys, shingles."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import xxhash

from filters.arrays import Bool, Float64, Int32, Int64, UInt64
from filters.config.filter import NearConfig
from filters.kernels.canonical import fold_digits
from filters.kernels.minhash import CONTAINMENT, JACCARD, band_keys, shingle_sets, similarities
from filters.kernels.packed import PackedText, Ragged
from filters.kernels.tokens import exact_tokens, load_tokenizer, token_estimate
from filters.kernels.words import WordHashes, normalize, word_hashes
from filters.phases.phase import Job
from filters.phases.texts import read_texts


def exact_hashes(packed: PackedText) -> UInt64:
    """xxh3-128 of each text as `filters.kernels.words.normalize` leaves it: uint64[n, 2], the high half first.

    It is equal for texts that differ in case and white space only.
    """
    normal = normalize(packed)
    view = normal.data.data
    bounds = normal.offsets.tolist()
    digest = xxhash.xxh3_128_digest
    digests = b"".join([digest(view[start:end]) for start, end in itertools.pairwise(bounds)])
    return np.frombuffer(digests, dtype=">u8").reshape(-1, 2).astype(np.uint64)


def near_keys(packed: PackedText, near: NearConfig) -> tuple[UInt64, Bool]:
    """(uint64[n, bands]: band keys of n texts; bool[n]: whether a text has words, and so has keys).

    Texts are taken in NFC and in lower case; with `digits: fold`, all numbers are one word.
    """
    return band_keys(_words(packed, near), shingle=near.shingle, bands=near.bands, rows=near.rows, seed=near.seed)


def shingles_of(packed: PackedText, near: NearConfig) -> Ragged:
    """The shingles of n texts, which are taken as by `near_keys`."""
    return shingle_sets(_words(packed, near), shingle=near.shingle)


def shingles_of_rows(job: Job, unit: int, rows: Int64) -> Iterator[tuple[Int64, Ragged]]:
    """(rows, their shingles), in chunks, of some rows (ascending) of an input unit, whose texts are read once more.

    Raises:
        DamagedError, InputError: see `filters.phases.texts.read_texts`.
    """
    near = job.config.dedup.near
    assert near is not None
    for row, batch in read_texts(job, unit, rows):
        start, stop = np.searchsorted(rows, [row, row + len(batch)]).tolist()
        texts = PackedText.from_arrow(batch.text.take(pa.array(rows[start:stop] - row)))
        yield rows[start:stop], shingles_of(texts, near)


def _words(packed: PackedText, near: NearConfig) -> WordHashes:
    return word_hashes(fold_digits(packed) if near.digits == "fold" else packed)


def measure_of(near: NearConfig) -> int:
    """The measure of `filters.kernels.minhash.similarities` that the config asks for."""
    return CONTAINMENT if near.measure == "containment" else JACCARD


def similarity(removed: PackedText, kept: PackedText, near: NearConfig) -> Float64:
    """float64[n]: how much each removed text resembles the kept one in the same place."""
    n = len(removed)
    sets = Ragged.joined([shingles_of(kept, near), shingles_of(removed, near)], np.uint32)
    measure = CONTAINMENT if near.measure == "containment" else JACCARD
    return similarities(sets, np.arange(n), np.arange(n, 2 * n), measure)


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """The fingerprints of n documents that deduplication compares.

    Attributes:
        exact: uint64[n, 2], the 128-bit hash of the normalised text; zeros if exact duplicates are not looked for.
        keys: uint64[n, bands], MinHash band keys; no columns if near duplicates are not looked for.
        has_signature: bool[n], whether the document has any words, and so has keys.
        tokens: int32[n], how many tokens the text has: counted by a tokenizer, or estimated.
    """

    exact: UInt64
    keys: UInt64
    has_signature: Bool
    tokens: Int32


class Fingerprinter:
    """Computes `Fingerprints`. Without state: each document's depend on its text and the options alone."""

    def __init__(self, exact: bool, near: NearConfig | None, tokenizer: str | None = None) -> None:
        self.exact = exact
        self.near = near
        self._tokenizer = None if tokenizer is None else load_tokenizer(tokenizer, "tokens.tokenizer")

    def fingerprint(self, packed: PackedText) -> Fingerprints:
        """Fingerprint n texts."""
        exact = exact_hashes(packed) if self.exact else np.zeros((len(packed), 2), np.uint64)
        keys, has_signature = np.zeros((len(packed), 0), np.uint64), np.zeros(len(packed), np.bool_)
        if self.near is not None:
            keys, has_signature = near_keys(packed, self.near)
        tokens = token_estimate(packed) if self._tokenizer is None else exact_tokens(self._tokenizer, packed)
        return Fingerprints(exact, keys, has_signature, tokens)
