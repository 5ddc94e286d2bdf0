"""Duplicates against everything a run has seen so far: the first one to come stays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from filters.arrays import Bool, Int32, Int64, UInt32, UInt64
from filters.config.filter import NearConfig
from filters.dedup.exact import exact_hashes
from filters.dedup.near import near_keys
from filters.kernels.index import BandIndex, HashIndex
from filters.kernels.packed import PackedText
from filters.kernels.tokens import token_estimate


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What deduplication needs to know of n documents.

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


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where n documents stand among all documents of the run.

    Attributes:
        number: int64[n], running number over the documents that were alive; -1 for others.
        exact_root: int64[n], number of the first document with the same normalised text (its own if it is the first).
        near_root: int64[n], number of the document that survives of its near-duplicate cluster (its own if it founded
            the cluster). An exact duplicate is in the cluster of its exact root.
    """

    number: Int64
    exact_root: Int64
    near_root: Int64


class StreamingDedup:
    """Finds exact and near duplicates of a stream of fingerprints; first come wins.

    A document whose band keys lead to several clusters joins the one with the earliest root. A near duplicate's own
    keys lead to its cluster too, so the chain a ~ b ~ c ends up in one cluster even if a and c share nothing.
    The result depends on the order of the documents, not on how they are cut into batches.

    Args:
        exact: look for equal normalised texts.
        near: options of the keys that will be added; None to not look for near duplicates.
    """

    def __init__(self, exact: bool, near: NearConfig | None) -> None:
        self._hashes = HashIndex() if exact else None
        self._bands = BandIndex(near.bands) if near is not None else None
        self._near_roots: UInt32 = np.zeros(1024, np.uint32)
        self._count = 0

    @property
    def nbytes(self) -> int:
        """Bytes the indexes hold."""
        indexes = [index.nbytes for index in (self._hashes, self._bands) if index is not None]
        return sum(indexes) + self._near_roots.nbytes

    def add(self, exact_hash: UInt64, keys: UInt64 | None, has_signature: Bool, alive: Bool) -> Verdict:
        """Enter the documents that are alive, in order.

        Args:
            exact_hash: uint64[n, 2].
            keys: uint64[n, bands]; may be None if near duplicates are not looked for.
            has_signature: bool[n]; a document without one is nobody's near duplicate.
            alive: bool[n]; others get -1 everywhere.

        Raises:
            ValueError: near duplicates are looked for and `keys` is None or has another number of bands.
        """
        rows = np.flatnonzero(alive)
        first = self._count
        own = np.arange(first, first + len(rows), dtype=np.int64)
        self._count += len(rows)
        exact_root = own
        if self._hashes is not None:
            found = self._hashes.resolve(exact_hash[rows], np.ones(len(rows), np.bool_), own)
            exact_root = np.where(found >= 0, found, own)
        near_root = own
        if self._bands is not None:
            if keys is None:
                raise ValueError("near duplicates are looked for, so `keys` must be given")
            found = self._bands.resolve(keys[rows], has_signature[rows] & (exact_root == own), own)
            near_root = np.where(found >= 0, found, own)
        near_root = self._remember(near_root, exact_root, first)
        columns = np.full((3, len(alive)), -1, np.int64)
        columns[:, rows] = own, exact_root, near_root
        return Verdict(columns[0], columns[1], columns[2])

    def _remember(self, near_root: Int64, exact_root: Int64, first: int) -> Int64:
        """Store the cluster of each document by its number, and give exact duplicates that of their exact root."""
        if self._count > len(self._near_roots):
            self._near_roots.resize(max(self._count, int(len(self._near_roots) * 1.4)), refcheck=False)
        self._near_roots[first : self._count] = near_root
        # Exact roots are never exact duplicates themselves, so their entries are final.
        resolved = self._near_roots[exact_root].astype(np.int64)
        self._near_roots[first : self._count] = resolved
        return resolved
