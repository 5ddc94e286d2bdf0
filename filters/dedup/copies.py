"""Phases `copies` and `exact`: what ranks a document that has copies, and the best of each set of exact ones.

From here on, documents with the same normalised text are one: they share all their words and so all their band keys.
They go by their *root*, the first of them, which ranks as the best of them does. A root lives in a part (a hash of its
number), and what is said of it is sent there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.arrays import Float32, Int64, UInt64
from filters.dedup.bands import partitions
from filters.dedup.join import EXACT, NAMES, NEAR, Mail, place_count, places
from filters.kernels import GOLDEN
from filters.kernels.packed import Ragged
from filters.phases.blocks import Table, find, firsts, height, join_tables, ordered_by, position, take
from filters.phases.phase import Job
from filters.phases.rows import read_rows

RANKED = {"score": "<f4", "length": "<i8", "id": "[u1]"}
"""Columns by which the members of a set of copies are ranked: the first one stays."""
MEMBERS = Mail(
    "copies", "members.bin", {"root": "<i8", "document": "<i8", "lead": "<i8", **RANKED}, senders=place_count
)
"""A document that shares a key with others, and the first one that it shares a band key with (or itself); sent to the
part of its root."""
ASKED = Mail("copies", "asked.bin", {"first": "<i8", "place": "<i8"}, senders=place_count)
"""A document that is the first with some band key, and a place that asks for its lead."""
BEST = Mail("exact", "best.bin", {**MEMBERS.columns, "count": "<i8"}, addresses=place_count)
"""The best document with a normalised text, and how many documents have it; sent to the place of the root."""
LEADS = Mail("exact", "leads.bin", {"first": "<i8", "lead": "<i8"}, addresses=place_count)
"""The leads of roots, sent to the places that asked for them."""

_HALF = np.uint64(32)


def part_of(documents: Int64, parts: int) -> Int64:
    """int64[n]: the part a document belongs to, by a hash of its number."""
    mixed = documents.view(np.uint64) * GOLDEN
    return ((mixed >> _HALF) * np.uint64(parts) >> _HALF).astype(np.int64)


class Copies:
    """Looks up what the documents of a place that share a key with others are ranked by: `MEMBERS` and `ASKED`."""

    name = MEMBERS.phase

    def units(self, job: Job) -> int:
        """The places."""
        return place_count(job)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Look them up."""
        exact = EXACT.table(job, unit)
        near = [np.empty((2, 0), np.int64)]
        for some in NEAR.letters(job, unit):
            ordered = ordered_by({name: some[name] for name in ("document", "first")}, "document", "first")
            near.append(np.stack(list(take(ordered, firsts(*ordered.values())).values())))
        document, first = np.concatenate(near, axis=1)
        documents = np.unique(np.concatenate([exact["document"], document]))
        lead, root = documents.copy(), documents.copy()
        np.minimum.at(lead, position(documents, document), first)
        root[position(documents, exact["document"])] = exact["first"]
        rows = about(job, unit, documents) | {"root": root, "lead": lead}
        parts = partitions(job)
        with MEMBERS.outbox(job, folder) as box:
            box.add(part_of(root, parts), **{name: rows[name] for name in MEMBERS.columns})
        with ASKED.outbox(job, folder) as box:
            asked = np.unique(first)
            box.add(part_of(asked, parts), first=asked, place=np.full(len(asked), unit))
        return {"documents": len(documents)}


class Exact:
    """Finds the best of each set of exact copies of a part's roots: `BEST`; and `LEADS`. Holds one document of each."""

    name = BEST.phase

    def units(self, job: Job) -> int:
        """The parts."""
        return partitions(job)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Find the best, sender by sender."""
        found = join_tables([], BEST.columns)
        for members in MEMBERS.letters(job, unit):
            more = members | {"count": np.ones(height(members), np.int64)}
            found = _best_of_each(job, join_tables([found, more], BEST.columns))
        several = take(found, found["count"] > 1)
        with BEST.outbox(job, folder) as box:
            box.add(places(job).of(several["root"]), **several)
        with LEADS.outbox(job, folder) as box:
            for asked in ASKED.letters(job, unit):
                lead = found["lead"][position(found["root"], asked["first"])]
                box.add(asked["place"], first=asked["first"], lead=lead)
        return {"copies": int((several["count"] - 1).sum())}


def _best_of_each(job: Job, table: Table) -> Table:
    """The best document of each root, with the sum of the counts, ascending by root."""
    table = take(table, ranked(job, table["root"], table))
    starts = np.flatnonzero(firsts(table["root"]))
    best = take(table, starts)
    if len(starts):
        best["count"] = np.add.reduceat(table["count"], starts)
    return best


def ranked(job: Job, group: Int64, table: Table) -> Int64:
    """int64[n]: row numbers, by group, the best of each group first, as `dedup.keep` wants it.

    With `keep: best` that is one of an earlier run (its number is negative), then has the highest score, then the
    longest text, then the smallest id (compared as UTF-8), then the smallest number. A score that is not a number is
    worse than all others.
    """
    document = table["document"]
    if job.config.dedup.keep == "first":
        return np.lexsort((document, group))
    columns = {
        "group": group, "new": document >= 0, "score": -_comparable(table["score"]), "length": -table["length"],
        "id": table["id"].strings(), "document": document,
    }  # fmt: skip
    order = pc.sort_indices(pa.table(columns), sort_keys=[(name, "ascending") for name in columns])
    return np.asarray(order.to_numpy().astype(np.int64))


def _comparable(score: Float32) -> Float32:
    """Scores without what is no number, and without the two zeros that differ in their sign."""
    return np.where(np.isnan(score), np.float32(-np.inf), score) + np.float32(0)


def coarse_order(score: Float32, length: Int64, document: Int64) -> UInt64:
    """uint64[n]: lower for a better document; equal where score and length are (lengths are cut at 2^32 - 1)."""
    bits = _comparable(score).astype(np.float32).view(np.uint32)
    ascending = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    low = np.uint64(2**32 - 1)
    longest = np.minimum(length, 2**32 - 1).astype(np.uint64)
    order = (low - ascending << np.uint64(32)) | (low - longest)
    return np.where(document < 0, np.uint64(0), order)


def about(job: Job, place: int, documents: Int64) -> Table:
    """Columns document, score, length and id (unique in the run) of documents of a place, ascending.

    Raises:
        DamagedError: a file of an earlier phase is missing or damaged.
        RunError: an earlier run cannot be read.
    """
    where = places(job)
    if place < len(where.parts):
        number, _ = where.parts[place]
        run = where.earlier[number]
        ids = pa.array([f"{run.path}:{name}" for name in run.ids(documents - where.first_of(number))], pa.string())
        score, length = np.zeros(len(documents), np.float32), np.zeros(len(documents), np.int64)
    else:
        chosen = pa.array(documents - int(where.bounds[place]))
        rows = read_rows(job, place - len(where.parts), ["score", "bytes", "id"]).take(chosen)
        score = rows["score"].to_numpy(zero_copy_only=False).astype(np.float32)
        length = rows["bytes"].to_numpy().astype(np.int64)
        names = NAMES.table(job, place)
        at, here = find(documents, names["document"])
        ids = renamed_ids(rows["id"].combine_chunks(), at[here], names["suffix"][here])
    return {"document": documents, "score": score, "length": length, "id": Ragged.of_strings(ids)}


def renamed_ids(ids: pa.Array, rows: Int64, suffixes: Int64) -> pa.Array:
    """string[n]: ids, those of `rows` with their suffixes."""
    if not len(rows):
        return ids
    values = ids.to_pylist()
    for row, suffix in zip(rows.tolist(), suffixes.tolist(), strict=True):
        values[row] = f"{values[row]}#{suffix}"
    return pa.array(values, ids.type)
