"""Phases `shingles` and `compare`: the true similarity of documents that share a band key.

Documents with a band key in common are a *bucket*. `join` calls a bucket by its key and its first document. The lead of
a document is the first of all that it shares a bucket with; buckets whose first documents have the same lead are
compared by one unit, so that most documents are sent to one unit only. In a bucket of up to `EVERY_PAIR` documents each
is compared with each. In a *crowded* one, such as that of a template, each is compared with the best `EVERY_PAIR` of
them, which takes time proportional to its documents and memory for `EVERY_PAIR` of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from filters.arrays import Bool, Float64, Int64, UInt64
from filters.dedup.bands import as_damage, partitions
from filters.dedup.copies import BEST, LEADS, RANKED, about, coarse_order, part_of, ranked
from filters.dedup.fingerprinter import measure_of, shingles_of_rows
from filters.dedup.join import EXACT, NEAR, Mail, place_count, places
from filters.kernels.minhash import alike_in_buckets, similarities
from filters.kernels.packed import Ragged
from filters.phases.blocks import (
    WAITING,
    Outbox,
    Table,
    bytes_for,
    find,
    firsts,
    height,
    join_tables,
    ordered_by,
    position,
    read_flushes,
    take,
)
from filters.phases.phase import Job

SHINGLES, COMPARE = "shingles", "compare"
ENTRIES = Mail(
    SHINGLES, "entries.bin", {"first": "<i8", "key": "<u8", "document": "<i8", "large": "|u1"}, senders=place_count
)
"""A document in a bucket, and whether so many have the key that the bucket may be crowded."""
SETS = Mail(SHINGLES, "sets.bin", {"document": "<i8", "lead": "<i8", **RANKED, "shingles": "[u4]"}, senders=place_count)
"""A document, its lead, what it is ranked by, and its shingles."""
EDGES = Mail(
    COMPARE,
    "edges.bin",
    {
        "better": "<i8", "worse": "<i8", "similarity": "<f8", "better_home": "<i8", "worse_home": "<i8",
        "order": "<u8", "worse_order": "<u8",
    },
)  # fmt: skip
"""Two documents that are alike; the part where each is decided about, and its `coarse_order`. Sent to both parts."""
WITNESSES = Mail(COMPARE, "witnesses.bin", {"document": "<i8", "witness": "<i8", "similarity": "<f8"})
"""A document to remove, and a document that stays (with `dedup.keep: none`, one it is a copy of)."""
CROWDED = Mail(COMPARE, "crowded.bin", {"document": "<i8"})
"""A document of a crowded bucket, sent to its part."""

EVERY_PAIR = 100
_MATCHES = 8
"""A document of a crowded bucket is compared no further when so many of the best are like it."""
_COPIES_HELD = 3
"""How often `compare` holds what it reads: as read, joined, ordered."""


class Shingles:
    """Writes `ENTRIES` and `SETS`, flushed together: the buckets a place's documents are in, and their shingles."""

    name = SHINGLES

    def units(self, job: Job) -> int:
        """The places, where near copies are looked for."""
        return place_count(job) * (job.config.dedup.near is not None)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Read the texts of a place once more, if it has any candidates."""
        entries, documents = _candidates(job, unit)
        leads = ordered_by(LEADS.table(job, unit), "first")
        parts = partitions(job)
        part = part_of(leads["lead"][position(leads["first"], entries["first"])], parts)
        count = 0
        with (
            ENTRIES.outbox(job, folder, flush=False) as buckets,
            SETS.outbox(job, folder, flush=False) as sets,
        ):
            for chosen, shingles in _sets(job, unit, documents["document"]):
                some = take(documents, chosen) | {"shingles": shingles}
                start, stop = position(entries["document"], some["document"][[0, -1]] + [0, 1])
                here = slice(start, stop)
                buckets.add(part[here], **{name: entries[name][here] for name in ENTRIES.columns})
                rows = position(some["document"], entries["document"][here])
                rows, to = np.divmod(np.unique(rows * parts + part[here]), parts)
                sets.add(to, rows, **{name: some[name] for name in SETS.columns})
                count += len(chosen)
                if sets.held + buckets.held > WAITING:
                    buckets.flush()
                    sets.flush()
        return {"candidates": count}


def _candidates(job: Job, place: int) -> tuple[Table, Table]:
    """(entries, ascending by document; the documents in them) of a place.

    Documents that others are exact copies of stand for these, and buckets in which there is nothing else are left out.
    """
    exact = EXACT.table(job, place)
    copies = np.unique(exact["document"][exact["document"] != exact["first"]])
    best = ordered_by(BEST.table(job, place), "root")
    kept = []
    for some in NEAR.letters(job, place):
        at, is_root = find(best["root"], some["document"])
        same = np.ones(height(some), np.int64)
        same[is_root] = best["count"][at[is_root]]
        kept.append(take(some, ~np.isin(some["document"], copies) & (some["size"] > same)))
    entries = join_tables(kept, NEAR.columns)
    entries["large"] = entries.pop("size") > EVERY_PAIR
    entries = ordered_by(entries, "document", "first", "key")
    entries = take(entries, firsts(entries["document"], entries["first"], entries["key"]))
    starts = np.flatnonzero(firsts(entries["document"]))
    documents = about(job, place, entries["document"][starts])
    at, is_root = find(best["root"], documents["document"])
    for name in ("score", "length"):
        documents[name] = documents[name].copy()
        documents[name][is_root] = best[name][at[is_root]]
    both = Ragged.joined([documents["id"], best["id"]], np.uint8)
    documents["id"] = both.take(np.where(is_root, len(starts) + at, np.arange(len(starts))))
    documents["lead"] = entries["first"][starts]  # sorted: the smallest
    return entries, documents


def _sets(job: Job, place: int, documents: Int64) -> Iterator[tuple[Int64, Ragged]]:
    """(row numbers in `documents`, their shingles), in chunks, of documents of a place (ascending)."""
    where = places(job)
    if not len(documents):
        return
    if place < len(where.parts):
        number, part = where.parts[place]
        start = where.first_of(number)
        chunks = where.earlier[number].shingles(part, documents - start)
    else:
        start = int(where.bounds[place])
        chunks = shingles_of_rows(job, place - len(where.parts), documents - start)
    for rows, sets in chunks:
        yield position(documents, rows + start), sets


class Compare:
    """Writes `EDGES`, or `WITNESSES` in their place where `dedup.keep: none` asks for no decision; and `CROWDED`.

    Facts: compared, alike (pairs), crowded (buckets).
    """

    name = COMPARE

    def units(self, job: Job) -> int:
        """The parts, where near copies are looked for."""
        return partitions(job) * (job.config.dedup.near is not None)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Compare the documents of the buckets that belong to a part."""
        size = 0
        for sender in range(place_count(job)):
            for mail in (ENTRIES, SETS):
                with as_damage(SHINGLES, sender):
                    path = job.file(SHINGLES, sender, mail.name, verify=False)
                    size += bytes_for(path, mail.columns, unit, partitions(job))
        # So many that the documents of one stretch, those of crowded buckets apart, fit into memory.
        stretches = max(1, -(-_COPIES_HELD * size // job.config.dedup.memory))
        with (
            EDGES.outbox(job, folder) as edges,
            WITNESSES.outbox(job, folder) as witnesses,
            CROWDED.outbox(job, folder) as crowded,
        ):
            out = _Pairs(job, edges, witnesses)
            for stretch in range(stretches):
                _compare(_Stretch(job, unit, stretch, stretches), out, crowded)
        return out.facts


class _Stretch:
    """What `shingles` sent to a part, of one stretch of first documents, flush by flush."""

    def __init__(self, job: Job, part: int, stretch: int, stretches: int) -> None:
        self.job, self.part, self.stretch, self.stretches = job, part, stretch, stretches

    def large(self) -> Iterator[Table]:
        """Entries of buckets that may be crowded, alone."""
        for (entries,) in self._flushes(ENTRIES):
            yield self._mine(take(entries, entries["large"] > 0))

    def both(self) -> Iterator[tuple[Table, Table]]:
        """Entries, and the sets of their documents, ascending by document."""
        for entries, sets in self._flushes(ENTRIES, SETS):
            mine = self._mine(entries)
            if height(mine):
                yield mine, ordered_by(take(sets, np.isin(sets["document"], mine["document"])), "document")

    def _mine(self, entries: Table) -> Table:
        # Another hash than that of parts, which all of these share.
        mixed = entries["first"].view(np.uint64) * np.uint64(0xD6E8FEB86659FD93) >> np.uint64(32)
        return take(entries, mixed % np.uint64(self.stretches) == np.uint64(self.stretch))

    def _flushes(self, *files: Mail) -> Iterator[tuple[Table, ...]]:
        for sender in range(place_count(self.job)):
            paths = [self.job.file(SHINGLES, sender, mail.name, verify=False) for mail in files]
            with as_damage(SHINGLES, sender):
                flushes = (
                    read_flushes(path, mail.columns, self.part, partitions(self.job))
                    for path, mail in zip(paths, files, strict=True)
                )
                yield from zip(*flushes, strict=True)


def _compare(stretch: _Stretch, out: _Pairs, crowded: Outbox) -> None:
    buckets = _CrowdedBuckets.counted(stretch.large())
    out.facts["crowded"] += len(buckets.first)
    leaders = _leaders(stretch, buckets) if len(buckets.first) else None
    every: list[Table] = []
    sets: list[Table] = []
    for entries, some in stretch.both():
        inside = buckets.places(entries) >= 0
        every.append(take(entries, ~inside))
        sets.append(take(some, np.isin(some["document"], every[-1]["document"])))
        if leaders is not None and inside.any():
            members = take(entries, inside)
            documents = np.unique(members["document"])
            crowded.add(part_of(documents, out.parts), document=documents)
            _follow(buckets, members, some, leaders, out)
    entries = ordered_by(join_tables(every, ENTRIES.columns), "first", "key", "document")
    if height(entries):
        _each_with_each(entries, ordered_by(join_tables(sets, SETS.columns), "document"), out)


def _each_with_each(entries: Table, sets: Table, out: _Pairs) -> None:
    """Compare all pairs of each bucket: entries are ordered by first document, key, document."""
    group_starts = firsts(entries["first"])
    bucket_starts = firsts(entries["first"], entries["key"])
    group, bucket = np.cumsum(group_starts) - 1, np.cumsum(bucket_starts) - 1
    starts = np.flatnonzero(bucket_starts)
    first_bucket = bucket[np.flatnonzero(group_starts)]
    number = np.arange(len(starts)) - first_bucket[group[starts]]  # of each bucket in its group
    # A member is a document of a group.
    by_member = np.lexsort((entries["document"], group))
    new = firsts(entries["document"][by_member], group[by_member])
    member = np.empty(len(group), np.int64)
    member[by_member] = np.cumsum(new) - 1
    masks = np.zeros((int(new.sum()), int(number.max()) // 64 + 1), np.uint64)
    mine = number[bucket]
    np.bitwise_or.at(masks, (member, mine >> 6), np.uint64(1) << (mine & 63).astype(np.uint64))
    rows = position(sets["document"], entries["document"][by_member][new])
    better, worse, similarity, compared = alike_in_buckets(
        sets["shingles"], out.order(sets), number, rows, masks,
        Ragged(member, np.append(starts, len(member))), out.near.similarity, out.measure, out.sure(sets),
    )  # fmt: skip
    out.facts["compared"] += compared
    out.add(sets, better, worse, similarity)


@dataclass(frozen=True, slots=True)
class _Leaders:
    """The best documents of crowded buckets: (bucket, row in `sets`), by bucket and rank; and these documents."""

    bucket: Int64
    rows: Int64
    sets: Table


def _leaders(stretch: _Stretch, buckets: _CrowdedBuckets) -> _Leaders:
    ranks = {name: dtype for name, dtype in SETS.columns.items() if name != "shingles"}
    bucket, best = np.empty(0, np.int64), join_tables([], ranks)
    for entries, sets in stretch.both():
        at = buckets.places(entries)
        inside = np.flatnonzero(at >= 0)
        rows = position(sets["document"], entries["document"][inside])
        bucket = np.concatenate([bucket, at[inside]])
        best = join_tables([best, take({name: sets[name] for name in ranks}, rows)], ranks)
        order = ranked(stretch.job, bucket, best)
        bucket = bucket[order]
        chosen = np.arange(len(order)) - position(bucket, bucket) < EVERY_PAIR
        bucket, best = bucket[chosen], take(best, order[chosen])
    documents = np.unique(best["document"])
    found = (take(sets, np.isin(sets["document"], documents)) for _, sets in stretch.both())
    ordered = ordered_by(join_tables(found, SETS.columns), "document")
    return _Leaders(bucket, position(ordered["document"], best["document"]), ordered)


def _follow(buckets: _CrowdedBuckets, members: Table, sets: Table, leaders: _Leaders, out: _Pairs) -> None:
    """Compare members of crowded buckets with the leaders of each, best first, until enough are alike."""
    both = join_tables([leaders.sets, sets], SETS.columns)
    order, own = out.order(both), height(leaders.sets)
    at = buckets.places(members)
    rows = position(sets["document"], members["document"])
    start, stop = position(leaders.bucket, at), position(leaders.bucket, at, behind=True)
    matches = np.zeros(height(sets), np.int64)
    for place in range(int((stop - start).max(initial=0))):
        asked = (start + place < stop) & (matches[rows] < _MATCHES)
        one, other = leaders.rows[(start + place)[asked]], rows[asked]
        # A leader that is worse, or is the document itself, says nothing of it.
        better = (both["document"][one] != sets["document"][other]) & (order[one] < order[own + other])
        better &= sets["document"][other] >= 0
        one, other = np.unique(np.stack([one[better], other[better]], axis=1), axis=0).T
        found = similarities(both["shingles"], np.ascontiguousarray(one), own + other, out.measure)
        alike = found >= out.near.similarity
        matches += np.bincount(other[alike], minlength=len(matches))
        out.facts["compared"] += len(one)
        out.add(both, one[alike], own + other[alike], found[alike])


@dataclass(frozen=True, slots=True)
class _CrowdedBuckets:
    """Crowded buckets, ascending by first document and key."""

    first: Int64
    key: UInt64

    @classmethod
    def counted(cls, parts: Iterator[Table]) -> _CrowdedBuckets:
        """Count the documents of each bucket, given the entries of those that may be crowded."""
        columns = {"first": "<i8", "key": "<u8", "count": "<i8"}
        found = join_tables([], columns)
        for entries in parts:
            more = entries | {"count": np.ones(height(entries), np.int64)}
            found = ordered_by(join_tables([found, more], columns), "first", "key")
            starts = np.flatnonzero(firsts(found["first"], found["key"]))
            counts = np.add.reduceat(found["count"], starts) if len(starts) else found["count"]
            found = take(found, starts) | {"count": counts}
        found = take(found, found["count"] > EVERY_PAIR)
        return cls(found["first"], found["key"])

    def places(self, entries: Table) -> Int64:
        """int64[n]: the bucket of each entry; -1: none of these."""
        known = len(self.first)
        if not known:
            return np.full(height(entries), -1)
        first, key = (np.concatenate(pair) for pair in ((self.first, entries["first"]), (self.key, entries["key"])))
        order = np.lexsort((key, first))  # stable: each bucket comes before its entries
        found = np.empty(len(order), np.int64)
        found[order] = np.cumsum(order < known) - 1
        at = found[known:]
        return np.where((self.first[at] == entries["first"]) & (self.key[at] == entries["key"]), at, -1)


class _Pairs:
    """Writes the pairs that are similar enough."""

    def __init__(self, job: Job, edges: Outbox, witnesses: Outbox) -> None:
        near = job.config.dedup.near
        assert near is not None
        self.job, self.near, self.measure, self.parts = job, near, measure_of(near), partitions(job)
        self.facts = {"compared": 0, "alike": 0, "crowded": 0}
        self._edges, self._witnesses = edges, witnesses

    def order(self, sets: Table) -> Int64:
        """int64[n]: lower for a better document; negative for those of earlier runs."""
        n = height(sets)
        order = np.empty(n, np.int64)
        order[ranked(self.job, np.zeros(n, np.int64), sets)] = np.arange(n)
        return np.where(sets["document"] < 0, order - n, order)

    def sure(self, sets: Table) -> Bool:
        """bool[n]: whether it is known of a document that it stays: it is better than all it shares a bucket with."""
        return np.asarray((sets["lead"] == sets["document"]) & (self.job.config.dedup.keep == "first"))

    def add(self, sets: Table, better: Int64, worse: Int64, similarity: Float64) -> None:
        """Send pairs, by their rows in a table of sets."""
        self.facts["alike"] += len(better)
        document, home = sets["document"], part_of(sets["lead"], self.parts)
        keep = self.job.config.dedup.keep
        if keep == "none":
            for goes, stays in ((worse, better), (better, worse)):
                new = document[goes] >= 0
                gone = document[goes[new]]
                rows = {"document": gone, "witness": document[stays[new]], "similarity": similarity[new]}
                self._witnesses.add(part_of(gone, self.parts), **rows)
            return
        if keep == "first":
            order = np.where(document < 0, 0, document).astype(np.uint64)
        else:
            order = coarse_order(sets["score"], sets["length"], document)
        rows = {
            "better": document[better], "worse": document[worse], "similarity": similarity,
            "better_home": home[better], "worse_home": home[worse], "order": order[better], "worse_order": order[worse],
        }  # fmt: skip
        self._edges.add(rows["better_home"], **rows)
        away = rows["better_home"] != rows["worse_home"]
        self._edges.add(rows["worse_home"][away], **take(rows, away))
