"""Decisions about the documents of an input unit, and the output file each document goes to."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from filters.arrays import Bool, Int32, Int64


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What deduplication over the whole run says of the n rows of an input unit.

    Attributes:
        id: string[n], unique in the run.
        renamed: bool[n], whether `id` got a suffix.
        exact_cluster: int64[n], number of the first document with the same normalised text; -1 for rows not alive.
        near_cluster: int64[n], number of the document that stays of the cluster; -1 for rows not alive. Where that is
            one of an earlier run: of the first copy.
        cluster_size: int32[n], documents in the near cluster (1 for a document without copies); 0 for rows not alive.
        duplicate_of: string[n], id of the document that a removed one is a copy of, null for a survivor; "RUN:ID" for a
            document of an earlier run.
        similarity: float64[n], how much the two resemble each other; null for a survivor.
        reason: string[n], "exact_duplicate", "near_duplicate", "in_earlier_run" or the reason the row had;
            null for a survivor.
    """

    id: pa.Array
    renamed: Bool
    exact_cluster: Int64
    near_cluster: Int64
    cluster_size: Int32
    duplicate_of: pa.Array
    similarity: pa.Array
    reason: pa.Array


@dataclass(frozen=True, slots=True)
class Decisions:
    """What becomes of the n rows of an input unit.

    Attributes:
        verdicts: of deduplication; the reason is also "low_score", "low_rank", "over_quota", "other_bucket" or "rule"
            where the keep rule removes.
        copies: int64[n], how many times the document is written; 0 for removed ones.
        bucket: string[n], name of its bucket, null for what is no survivor; None where there are no buckets.
    """

    verdicts: Verdicts
    copies: Int64
    bucket: pa.Array | None


@dataclass(frozen=True, slots=True)
class OutputFile:
    """An output file of documents, as a stretch of the run in input order.

    Attributes:
        rejected: a file of removed documents instead of kept ones.
        turn: the file takes the documents that are to be written more than `turn` times (0: all that are kept).
        first: (input unit, row in it) of the first row of the stretch.
        stop: (input unit, row) behind its last row.
        rows: documents in the file.
        bucket: the file takes documents of this bucket only, and lies in its folder; None: of all.
    """

    rejected: bool
    turn: int
    first: tuple[int, int]
    stop: tuple[int, int]
    rows: int
    bucket: str | None = None
