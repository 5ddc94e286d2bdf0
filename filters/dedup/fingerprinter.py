"""Computes the fingerprint of a document from its text: exact hash, band keys, shingles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from filters.arrays import Bool, Int32, UInt64
from filters.config.filter import NearConfig
from filters.dedup.exact import exact_hashes
from filters.dedup.near import near_keys
from filters.kernels.packed import PackedText
from filters.kernels.tokens import token_estimate


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """The fingerprints of n documents that deduplication compares.

    Attributes:
        exact: uint64[n, 2], the 128-bit hash of the normalised text; zeros if exact duplicates are not looked for.
        keys: uint64[n, bands], MinHash band keys; no columns if near duplicates are not looked for.
        has_signature: bool[n], whether the document has any words, and so has keys.
        tokens: int32[n], an estimate of how many BPE tokens the text has.
    """

    exact: UInt64
    keys: UInt64
    has_signature: Bool
    tokens: Int32


class Fingerprinter:
    """Computes `Fingerprints`. Without state: each document's depend on its text and the options alone."""

    def __init__(self, exact: bool, near: NearConfig | None) -> None:
        self.exact = exact
        self.near = near

    def fingerprint(self, packed: PackedText) -> Fingerprints:
        """Fingerprint n texts."""
        exact = exact_hashes(packed) if self.exact else np.zeros((len(packed), 2), np.uint64)
        keys, has_signature = np.zeros((len(packed), 0), np.uint64), np.zeros(len(packed), np.bool_)
        if self.near is not None:
            keys, has_signature = near_keys(packed, self.near)
        return Fingerprints(exact, keys, has_signature, token_estimate(packed))
