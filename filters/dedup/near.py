"""Finds candidates for near copies: from texts to band keys and shingles, with the options of `dedup.near`."""

from __future__ import annotations

import numpy as np

from filters.arrays import Bool, Float64, UInt64
from filters.config.filter import NearConfig
from filters.kernels.canonical import fold_digits, recomposed
from filters.kernels.minhash import band_keys
from filters.kernels.packed import PackedText
from filters.kernels.ragged import Ragged
from filters.kernels.shingles import CONTAINMENT, JACCARD, shingle_sets, similarities
from filters.kernels.words import WordHashes, word_hashes


def near_keys(packed: PackedText, near: NearConfig) -> tuple[UInt64, Bool]:
    """(uint64[n, bands]: band keys of n texts; bool[n]: whether a text has words, and so has keys).

    Texts are taken in NFC and in lower case; with `digits: fold`, all numbers are one word.
    """

    def keys_of(texts: PackedText) -> tuple[UInt64, Bool]:
        return band_keys(_words(texts, near), shingle=near.shingle, bands=near.bands, rows=near.rows, seed=near.seed)

    keys, has_signature = keys_of(packed)
    rows, composed = recomposed(packed)
    if len(rows):
        keys[rows], has_signature[rows] = keys_of(composed)
    return keys, has_signature


def shingles_of(packed: PackedText, near: NearConfig) -> Ragged:
    """The shingles of n texts, which are taken as by `near_keys`."""
    sets = shingle_sets(_words(packed, near), shingle=near.shingle)
    rows, composed = recomposed(packed)
    if not len(rows):
        return sets
    chosen = np.arange(len(packed))
    chosen[rows] = len(packed) + np.arange(len(rows))
    return Ragged.joined([sets, shingle_sets(_words(composed, near), shingle=near.shingle)], np.uint32).take(chosen)


def _words(packed: PackedText, near: NearConfig) -> WordHashes:
    return word_hashes(fold_digits(packed) if near.digits == "fold" else packed, clusters=True)


def similarity(removed: PackedText, kept: PackedText, near: NearConfig) -> Float64:
    """float64[n]: how much each removed text resembles the kept one in the same place."""
    n = len(removed)
    sets = Ragged.joined([shingles_of(kept, near), shingles_of(removed, near)], np.uint32)
    measure = CONTAINMENT if near.measure == "containment" else JACCARD
    return similarities(sets, np.arange(n), np.arange(n, 2 * n), measure)
