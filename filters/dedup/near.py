"""What near copies are found by, from texts to band keys and shingles, with the options of `dedup.near`."""

from __future__ import annotations

import numpy as np

from filters.config import NearConfig
from filters.kernels.arrays import Bool, Float64, UInt64
from filters.kernels.canonical import compose, fold_digits
from filters.kernels.minhash import band_keys
from filters.kernels.packed import PackedText
from filters.kernels.ragged import Ragged
from filters.kernels.shingles import CONTAINMENT, JACCARD, shingle_sets, similarities
from filters.kernels.words import WordHashes, word_hashes


def near_keys(packed: PackedText, near: NearConfig) -> tuple[UInt64, Bool]:
    """(uint64[n, bands]: band keys of n texts; bool[n]: whether a text has words, and so has keys)."""
    words = near_words(packed, near)
    return band_keys(words, shingle=near.shingle, bands=near.bands, rows=near.rows, seed=near.seed)


def shingles_of(packed: PackedText, near: NearConfig) -> Ragged:
    """The shingles of n texts."""
    return shingle_sets(near_words(packed, near), shingle=near.shingle)


def near_words(packed: PackedText, near: NearConfig) -> WordHashes:
    """The words of n texts in NFC, lower-cased; with `digits: fold`, all numbers are one word."""
    composed = compose(packed)
    return word_hashes(fold_digits(composed) if near.digits == "fold" else composed)


def similarity(removed: PackedText, kept: PackedText, near: NearConfig) -> Float64:
    """float64[n]: how much each removed text resembles the kept one in the same place."""
    n = len(removed)
    sets = Ragged.joined([shingles_of(kept, near), shingles_of(removed, near)], np.uint32)
    measure = CONTAINMENT if near.measure == "containment" else JACCARD
    return similarities(sets, np.arange(n), np.arange(n, 2 * n), measure)
