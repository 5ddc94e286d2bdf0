"""Hashes that are equal for texts that differ in case and white space only."""

from __future__ import annotations

import itertools

import numpy as np
import xxhash

from filters.arrays import UInt64
from filters.kernels.packed import PackedText
from filters.kernels.words import normalize


def exact_hashes(packed: PackedText) -> UInt64:
    """xxh3-128 of each text as `filters.kernels.words.normalize` leaves it: uint64[n, 2], the high half first."""
    normal = normalize(packed)
    view = normal.data.data
    bounds = normal.offsets.tolist()
    digest = xxhash.xxh3_128_digest
    digests = b"".join([digest(view[start:end]) for start, end in itertools.pairwise(bounds)])
    return np.frombuffer(digests, dtype=">u8").reshape(-1, 2).astype(np.uint64)
