"""Phases `copies` and `exact`: what ranks a document that has copies, and the best of each set of exact ones.

From here on, documents with the same normalised text are one: they share all their words and so all their band keys.
The one is called by its *root*, the first of them, and ranks where the best of them does. A root lives in a part (a
hash of its number), and what is said of it is sent there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.arrays import Float32, Int64, UInt64
from filters.dedup.bands import partitions
from filters.dedup.join import (
    EXACT,
    EXACT_COLUMNS,
    NAMES,
    NAMES_COLUMNS,
    NEAR,
    NEAR_COLUMNS,
    from_join,
    places,
)
from filters.kernels import GOLDEN
from filters.kernels.packed import Ragged
from filters.phases.blocks import Outbox, Table, firsts, height, join_tables, letters, position, take
from filters.phases.phase import Job
from filters.phases.rows import read_rows

COPIES, EXACT_COPIES = "copies", "exact"
MEMBERS, BEST, ASKED, LEADS = "members.bin", "best.bin", "asked.bin", "leads.bin"
MEMBER_COLUMNS = {"root": "<i8", "document": "<i8", "lead": "<i8", "score": "<f4", "length": "<i8", "id": "[u1]"}
"""A document, the first one that it shares a band key with (or itself), and what it is ranked by."""
BEST_COLUMNS = MEMBER_COLUMNS | {"count": "<i8"}
"""The best document with a normalised text, and how many documents have it."""
ASKED_COLUMNS = {"first": "<i8", "place": "<i8"}
"""A document that is the first with some band key, and a place that asks for its lead."""
LEAD_COLUMNS = {"first": "<i8", "lead": "<i8"}

_HALF = np.uint64(32)


def part_of(documents: Int64, parts: int) -> Int64:
    """int64[n]: the part a document belongs to, by a hash of its number."""
    mixed = documents.view(np.uint64) * GOLDEN
    return ((mixed >> _HALF) * np.uint64(parts) >> _HALF).astype(np.int64)


class Copies:
    """members.bin: the documents of a place that share a key with another, sent to the part of their root.

    asked.bin: the documents whose leads the place wants to know.
    """

    name = COPIES

    def units(self, job: Job) -> int:
        """The places."""
        return len(places(job))

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Look up what the documents are ranked by."""
        exact = join_tables(from_join(job, EXACT, EXACT_COLUMNS, unit), EXACT_COLUMNS)
        near = [np.empty((2, 0), np.int64)]
        for some in from_join(job, NEAR, NEAR_COLUMNS, unit):
            order = np.lexsort((some["first"], some["document"]))
            pairs = np.stack([some["document"][order], some["first"][order]])
            near.append(pairs[:, firsts(pairs[0]) | firsts(pairs[1])])
        document, first = np.concatenate(near, axis=1)
        documents = np.unique(np.concatenate([exact["document"], document]))
        lead = documents.copy()
        np.minimum.at(lead, position(documents, document), first)
        rows = about(job, unit, documents) | {"root": roots(documents, exact), "lead": lead}
        parts = partitions(job)
        with Outbox(folder / MEMBERS, MEMBER_COLUMNS, parts) as box:
            box.add(part_of(rows["root"], parts), **{name: rows[name] for name in MEMBER_COLUMNS})
        with Outbox(folder / ASKED, ASKED_COLUMNS, parts) as box:
            asked = np.unique(first)
            box.add(part_of(asked, parts), first=asked, place=np.full(len(asked), unit))
        return {"documents": len(documents)}


class Exact:
    """best.bin: the best of each set of exact copies of a part's roots, sent to the place of the root. leads.bin: the
    leads of roots, sent to the places that asked for them."""

    name = EXACT_COPIES

    def units(self, job: Job) -> int:
        """The parts."""
        return partitions(job)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Find the best, sender by sender: holds one document of each set."""
        found = join_tables([], BEST_COLUMNS)
        for members in members_of(job, unit):
            more = members | {"count": np.ones(height(members), np.int64)}
            found = best_of_each(job, join_tables([found, more], BEST_COLUMNS))
        several = take(found, found["count"] > 1)
        where = places(job)
        with Outbox(folder / BEST, BEST_COLUMNS, len(where)) as box:
            box.add(where.of(several["root"]), **several)
        with Outbox(folder / LEADS, LEAD_COLUMNS, len(where)) as box:
            for asked in letters(job, COPIES, range(len(where)), ASKED, ASKED_COLUMNS, unit, partitions(job)):
                box.add(
                    asked["place"], first=asked["first"], lead=found["lead"][position(found["root"], asked["first"])]
                )
        return {"copies": int((several["count"] - 1).sum())}


def members_of(job: Job, part: int) -> Iterator[Table]:
    """The documents that share a key with others and whose root belongs to a part.

    Raises:
        DamagedError: a file is missing or damaged.
    """
    return letters(job, COPIES, range(len(places(job))), MEMBERS, MEMBER_COLUMNS, part, partitions(job))


def best_of_each(job: Job, table: Table) -> Table:
    """The best document of each root, with the sum of the counts, ascending by root."""
    order = ranked(job, table["root"], table)
    table = take(table, order)
    starts = np.flatnonzero(firsts(table["root"]))
    best = take(table, starts)
    if len(starts):
        best["count"] = np.add.reduceat(table["count"], starts)
    return best


def ranked(job: Job, group: Int64, table: Table) -> Int64:
    """int64[n]: row numbers, by group, the best of each group first, as `dedup.keep` wants it."""
    if job.config.dedup.keep == "first":
        return np.lexsort((table["document"], group))
    return best_first(group, table["score"], table["length"], table["id"].strings(), table["document"])


def roots(documents: Int64, exact: Table) -> Int64:
    """int64[n]: the root of each document (ascending), given what `join` says of the exact copies among them."""
    found = documents.copy()
    found[position(documents, exact["document"])] = exact["first"]
    return found


def about(job: Job, place: int, documents: Int64) -> Table:
    """Columns document, score, length and id (unique in the run) of documents of a place, ascending.

    Raises:
        DamagedError: a file of an earlier phase is missing or damaged.
        RunError: an earlier run cannot be read.
    """
    where = places(job)
    first = int(where.bounds[place])
    if place < len(where.parts):
        number, _ = where.parts[place]
        run = where.earlier[number]
        start = -sum(some.rows for some in where.earlier[number:])
        ids = pa.array([f"{run.path}:{name}" for name in run.ids(documents - start)], pa.string())
        score, length = np.zeros(len(documents), np.float32), np.zeros(len(documents), np.int64)
    else:
        rows = read_rows(job, place - len(where.parts), ["score", "bytes", "id"]).take(pa.array(documents - first))
        score = rows["score"].to_numpy(zero_copy_only=False).astype(np.float32)
        length = rows["bytes"].to_numpy().astype(np.int64)
        ids = unique_ids(job, place, rows["id"].combine_chunks(), documents)
    return {"document": documents, "score": score, "length": length, "id": Ragged.of_strings(ids)}


def unique_ids(job: Job, place: int, ids: pa.Array, documents: Int64) -> pa.Array:
    """Ids of some documents of a place (string[n], their numbers ascending), with the suffixes they get."""
    renamed = join_tables(from_join(job, NAMES, NAMES_COLUMNS, place), NAMES_COLUMNS)
    places_ = position(documents, renamed["document"])
    places_[places_ == len(documents)] = 0
    here = np.flatnonzero(documents[places_] == renamed["document"]) if len(documents) else np.empty(0, np.int64)
    return renamed_ids(ids, places_[here], renamed["suffix"][here])


def renamed_ids(ids: pa.Array, rows: Int64, suffixes: Int64) -> pa.Array:
    """string[n]: ids, those of `rows` with their suffixes."""
    if not len(rows):
        return ids
    values = ids.to_pylist()
    for row, suffix in zip(rows.tolist(), suffixes.tolist(), strict=True):
        values[row] = f"{values[row]}#{suffix}"
    return pa.array(values, ids.type)


def best_first(group: Int64, score: Float32, length: Int64, ids: pa.Array, document: Int64) -> Int64:
    """Order n documents by group, the best of each group first.

    The best is one of an earlier run (its number is negative), then has the highest score, then the longest text, then
    the smallest id (compared as UTF-8), then the smallest number. A score that is not a number is worse than all
    others.

    Returns:
        int64[n]: row numbers.
    """
    score = np.where(np.isnan(score), np.float32(-np.inf), score) + np.float32(0)  # -0 and 0 are the same score
    table = pa.table(
        {"group": group, "new": document >= 0, "score": score, "length": length, "id": ids, "document": document}
    )
    keys = [("group", "ascending"), ("new", "ascending"), ("score", "descending"), ("length", "descending")]
    order = pc.sort_indices(table, sort_keys=[*keys, ("id", "ascending"), ("document", "ascending")])
    return np.asarray(order.to_numpy().astype(np.int64))


def coarse_order(score: Float32, length: Int64, document: Int64) -> UInt64:
    """uint64[n]: lower for a better document; equal where score and length are (lengths are cut at 2^32 - 1)."""
    bits = (np.where(np.isnan(score), np.float32(-np.inf), score) + np.float32(0)).astype(np.float32).view(np.uint32)
    ascending = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    low = np.uint64(2**32 - 1)
    longest = np.minimum(length, 2**32 - 1).astype(np.uint64)
    order = (low - ascending << np.uint64(32)) | (low - longest)
    return np.where(document < 0, np.uint64(0), order)
