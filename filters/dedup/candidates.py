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
import pyarrow as pa

from filters.arrays import Bool, Float64, Int64, UInt64
from filters.dedup.bands import partitions
from filters.dedup.copies import (
    BEST,
    BEST_COLUMNS,
    EXACT_COPIES,
    LEAD_COLUMNS,
    LEADS,
    about,
    coarse_order,
    part_of,
    ranked,
)
from filters.dedup.fingerprinter import shingles_of
from filters.dedup.join import EXACT, EXACT_COLUMNS, NEAR, NEAR_COLUMNS, from_join, places
from filters.kernels.minhash import CONTAINMENT, JACCARD, alike_in_buckets, similarities
from filters.kernels.packed import PackedText, Ragged
from filters.phases.blocks import (
    BlockFileError,
    Outbox,
    Table,
    bytes_for,
    firsts,
    height,
    join_tables,
    letters,
    position,
    read_flushes,
    take,
)
from filters.phases.phase import DamagedError, Job
from filters.phases.texts import read_texts

SHINGLES, COMPARE = "shingles", "compare"
ENTRIES, SETS = "entries.bin", "sets.bin"
EDGES, WITNESSES, CROWDED = "edges.bin", "witnesses.bin", "crowded.bin"

ENTRY_COLUMNS = {"first": "<i8", "key": "<u8", "document": "<i8", "large": "|u1"}
"""A document in a bucket, and whether so many have the key that the bucket may be crowded."""
SET_COLUMNS = {"document": "<i8", "lead": "<i8", "score": "<f4", "length": "<i8", "id": "[u1]", "shingles": "[u4]"}
"""A document, its lead, what it is ranked by, and its shingles."""
EDGE_COLUMNS = {
    "better": "<i8", "worse": "<i8", "similarity": "<f8", "better_home": "<i8", "worse_home": "<i8", "order": "<u8",
    "worse_order": "<u8",
}  # fmt: skip
"""Two documents that are alike; where each is decided about, and its `coarse_order`."""
WITNESS_COLUMNS = {"document": "<i8", "witness": "<i8", "similarity": "<f8"}
"""A document to remove, and a document that stays (with `dedup.keep: none`, one it is a copy of)."""
CROWDED_COLUMNS = {"document": "<i8"}

EVERY_PAIR = 100
_WAITING = 16 * 2**20
_MATCHES = 8
"""A document of a crowded bucket is compared no further when so many of the best are like it."""
_COPIES_HELD = 3
"""How often `compare` holds what it reads: as read, joined, ordered."""


class Shingles:
    """entries.bin and sets.bin, flushed together: the buckets a place's documents are in, and their shingles."""

    name = SHINGLES

    def units(self, job: Job) -> int:
        """The places, where near copies are looked for."""
        return len(places(job)) * (job.config.dedup.near is not None)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Read the texts of a place once more, if it has any candidates."""
        entries, documents = _candidates(job, unit)
        parts = partitions(job)
        part = part_of(_leads(job, unit, entries["first"]), parts)
        count = 0
        with (
            Outbox(folder / ENTRIES, ENTRY_COLUMNS, parts, flush=False) as buckets,
            Outbox(folder / SETS, SET_COLUMNS, parts, flush=False) as sets,
        ):
            for chosen, shingles in _sets(job, unit, documents["document"]):
                some = take(documents, chosen) | {"shingles": shingles}
                start, stop = position(entries["document"], some["document"][[0, -1]] + [0, 1])
                here = slice(start, stop)
                buckets.add(part[here], **{name: entries[name][here] for name in ENTRY_COLUMNS})
                rows = position(some["document"], entries["document"][here])
                rows, to = np.divmod(np.unique(rows * parts + part[here]), parts)
                sets.add(to, rows, **{name: some[name] for name in SET_COLUMNS})
                count += len(chosen)
                if sets.held + buckets.held > _WAITING:
                    buckets.flush()
                    sets.flush()
        return {"candidates": count}


def _candidates(job: Job, place: int) -> tuple[Table, Table]:
    """(entries, ascending by document; the documents in them) of a place.

    Documents that others are exact copies of stand for these, and buckets in which there is nothing else are left out.
    """
    parts = partitions(job)
    exact = join_tables(from_join(job, EXACT, EXACT_COLUMNS, place), EXACT_COLUMNS)
    copies = np.unique(exact["document"][exact["document"] != exact["first"]])
    best = join_tables(
        letters(job, EXACT_COPIES, range(parts), BEST, BEST_COLUMNS, place, len(places(job))), BEST_COLUMNS
    )
    best = take(best, np.argsort(best["root"], kind="stable"))
    kept = []
    for some in from_join(job, NEAR, NEAR_COLUMNS, place):
        same = np.ones(height(some), np.int64)
        at, is_root = _places_in(best["root"], some["document"])
        same[is_root] = best["count"][at[is_root]]
        kept.append(take(some, ~np.isin(some["document"], copies) & (some["size"] > same)))
    entries = join_tables(kept, NEAR_COLUMNS)
    entries["large"] = entries.pop("size") > EVERY_PAIR
    entries = take(entries, np.lexsort((entries["key"], entries["first"], entries["document"])))
    again = np.zeros(height(entries), np.bool_)
    again[1:] = True
    for name in ("first", "key", "document"):
        again[1:] &= entries[name][1:] == entries[name][:-1]
    entries = take(entries, ~again)
    starts = np.flatnonzero(firsts(entries["document"]))
    documents = about(job, place, entries["document"][starts])
    at, is_root = _places_in(best["root"], documents["document"])
    for name in ("score", "length"):
        documents[name] = documents[name].copy()
        documents[name][is_root] = best[name][at[is_root]]
    both = Ragged.joined([documents["id"], best["id"]], np.uint8)
    documents["id"] = both.take(np.where(is_root, len(starts) + at, np.arange(len(starts))))
    documents["lead"] = entries["first"][starts]  # sorted: the smallest
    return entries, documents


def _leads(job: Job, place: int, documents: Int64) -> Int64:
    """int64[n]: the leads of documents that are the first of a bucket which a place knows."""
    found = letters(job, EXACT_COPIES, range(partitions(job)), LEADS, LEAD_COLUMNS, place, len(places(job)))
    leads = join_tables(found, LEAD_COLUMNS)
    order = np.argsort(leads["first"], kind="stable")
    return np.asarray(leads["lead"][order][position(leads["first"][order], documents)])


def _places_in(ascending: Int64, wanted: Int64) -> tuple[Int64, Bool]:
    """(places of `wanted` in `ascending`, whether it is there)."""
    at = position(ascending, wanted)
    at[at == len(ascending)] = 0
    return at, ascending[at] == wanted if len(ascending) else np.zeros(len(wanted), np.bool_)


def _sets(job: Job, place: int, documents: Int64) -> Iterator[tuple[Int64, Ragged]]:
    """(row numbers in `documents`, their shingles), in chunks, of documents of a place (ascending)."""
    near, where = job.config.dedup.near, places(job)
    assert near is not None
    if not len(documents):
        return
    first = int(where.bounds[place])
    if place < len(where.parts):
        number, part = where.parts[place]
        start = -sum(run.rows for run in where.earlier[number:])
        for rows, sets in where.earlier[number].shingles(part, documents - start):
            yield position(documents, rows + start), sets
        return
    for row, batch in read_texts(job, place - len(where.parts), documents - first):
        begin, end = np.searchsorted(documents, [first + row, first + row + len(batch)]).tolist()
        texts = PackedText.from_arrow(batch.text.take(pa.array(documents[begin:end] - first - row)))
        yield np.arange(begin, end), shingles_of(texts, near)


class Compare:
    """edges.bin: pairs that are alike, sent to where they are decided about. witnesses.bin: in their place, where
    `dedup.keep: none` asks for no decision. crowded.bin: documents of crowded buckets, sent to their part.

    Facts: compared, alike (pairs), crowded (buckets).
    """

    name = COMPARE

    def units(self, job: Job) -> int:
        """The parts, where near copies are looked for."""
        return partitions(job) * (job.config.dedup.near is not None)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Compare the documents of the buckets that belong to a part."""
        parts = partitions(job)
        facts = {"compared": 0, "alike": 0, "crowded": 0}
        with (
            Outbox(folder / EDGES, EDGE_COLUMNS, parts) as edges,
            Outbox(folder / WITNESSES, WITNESS_COLUMNS, parts) as witnesses,
            Outbox(folder / CROWDED, CROWDED_COLUMNS, parts) as crowded,
        ):
            out = _Out(job, edges, witnesses, facts)
            stretches = self._stretches(job, unit)
            for stretch in range(stretches):
                self._compare(job, _Mail(job, unit, stretch, stretches), out, crowded)
        return facts

    def _stretches(self, job: Job, unit: int) -> int:
        """So many that the documents of one, those of crowded buckets apart, fit into `dedup.memory`."""
        size = 0
        for sender in range(len(places(job))):
            for name, columns in ((ENTRIES, ENTRY_COLUMNS), (SETS, SET_COLUMNS)):
                path = job.file(SHINGLES, sender, name, verify=False)
                try:
                    size += bytes_for(path, columns, unit, partitions(job))
                except BlockFileError as error:
                    raise DamagedError(SHINGLES, sender, str(error)) from error
        return max(1, -(-_COPIES_HELD * size // job.config.dedup.memory))

    def _compare(self, job: Job, mail: _Mail, out: _Out, crowded: Outbox) -> None:
        buckets = _Buckets.counted(mail.large())
        out.facts["crowded"] += len(buckets)
        leaders = self._leaders(job, mail, buckets) if len(buckets) else None
        every: list[Table] = []
        sets: list[Table] = []
        for entries, some in mail.both():
            inside = buckets.places(entries) >= 0
            every.append(take(entries, ~inside))
            sets.append(take(some, np.isin(some["document"], every[-1]["document"])))
            if leaders is not None and inside.any():
                members = take(entries, inside)
                documents = np.unique(members["document"])
                crowded.add(part_of(documents, partitions(job)), document=documents)
                self._follow(buckets, members, some, leaders, out)
        table = join_tables(sets, SET_COLUMNS)
        table = take(table, np.argsort(table["document"], kind="stable"))
        self._each_with_each(join_tables(every, ENTRY_COLUMNS), table, out)

    def _each_with_each(self, entries: Table, sets: Table, out: _Out) -> None:
        """Compare all pairs of each bucket."""
        if not height(entries):
            return
        entries = take(entries, np.lexsort((entries["document"], entries["key"], entries["first"])))
        group_starts = firsts(entries["first"])
        bucket_starts = firsts(entries["key"]) | group_starts
        group, bucket = np.cumsum(group_starts) - 1, np.cumsum(bucket_starts) - 1
        starts = np.flatnonzero(bucket_starts)
        first_bucket = bucket[np.flatnonzero(group_starts)]
        number = np.arange(len(starts)) - first_bucket[group[starts]]  # of each bucket in its group
        # A member is a document of a group.
        by_member = np.lexsort((entries["document"], group))
        new = firsts(entries["document"][by_member]) | firsts(group[by_member])
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
        out.pairs(sets, better, worse, similarity)

    def _leaders(self, job: Job, mail: _Mail, buckets: _Buckets) -> _Leaders:
        ranks = {name: dtype for name, dtype in SET_COLUMNS.items() if name != "shingles"}
        bucket, best = np.empty(0, np.int64), join_tables([], ranks)
        for entries, sets in mail.both():
            at = buckets.places(entries)
            inside = np.flatnonzero(at >= 0)
            rows = position(sets["document"], entries["document"][inside])
            bucket = np.concatenate([bucket, at[inside]])
            best = join_tables([best, take({name: sets[name] for name in ranks}, rows)], ranks)
            order = ranked(job, bucket, best)
            bucket = bucket[order]
            chosen = np.arange(len(order)) - position(bucket, bucket) < EVERY_PAIR
            bucket, best = bucket[chosen], take(best, order[chosen])
        documents = np.unique(best["document"])
        found = join_tables((take(sets, np.isin(sets["document"], documents)) for _, sets in mail.both()), SET_COLUMNS)
        found = take(found, np.argsort(found["document"], kind="stable"))
        return _Leaders(bucket, position(found["document"], best["document"]), found)

    def _follow(self, buckets: _Buckets, members: Table, sets: Table, leaders: _Leaders, out: _Out) -> None:
        """Compare members of crowded buckets with the leaders of each, best first, until enough are alike."""
        both = join_tables([leaders.sets, sets], SET_COLUMNS)
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
            out.pairs(both, one[alike], own + other[alike], found[alike])


@dataclass(frozen=True, slots=True)
class _Leaders:
    """The best documents of crowded buckets: (bucket, row in `sets`), by bucket and rank; and these documents."""

    bucket: Int64
    rows: Int64
    sets: Table


class _Mail:
    """What `shingles` sent to a part, of one stretch of first documents, flush by flush."""

    def __init__(self, job: Job, part: int, stretch: int, stretches: int) -> None:
        self.job, self.part, self.stretch, self.stretches = job, part, stretch, stretches

    def large(self) -> Iterator[Table]:
        """Entries of buckets that may be crowded, alone."""
        for (entries,) in self._flushes((ENTRIES, ENTRY_COLUMNS)):
            yield self._mine(take(entries, entries["large"] > 0))

    def both(self) -> Iterator[tuple[Table, Table]]:
        """Entries, and the sets of their documents, ascending by document."""
        for entries, sets in self._flushes((ENTRIES, ENTRY_COLUMNS), (SETS, SET_COLUMNS)):
            mine = self._mine(entries)
            if height(mine):
                sets = take(sets, np.isin(sets["document"], mine["document"]))
                yield mine, take(sets, np.argsort(sets["document"], kind="stable"))

    def _mine(self, entries: Table) -> Table:
        # Another hash than that of parts, which all of these share.
        mixed = entries["first"].view(np.uint64) * np.uint64(0xD6E8FEB86659FD93) >> np.uint64(32)
        return take(entries, mixed % np.uint64(self.stretches) == np.uint64(self.stretch))

    def _flushes(self, *files: tuple[str, dict[str, str]]) -> Iterator[tuple[Table, ...]]:
        job, parts = self.job, partitions(self.job)
        for sender in range(len(places(job))):
            paths = [job.file(SHINGLES, sender, name, verify=False) for name, _ in files]
            try:
                yield from zip(
                    *(
                        read_flushes(path, columns, self.part, parts)
                        for path, (_, columns) in zip(paths, files, strict=True)
                    ),
                    strict=True,
                )
            except BlockFileError as error:
                raise DamagedError(SHINGLES, sender, str(error)) from error


@dataclass(frozen=True, slots=True)
class _Buckets:
    """Crowded buckets, ascending by first document and key."""

    first: Int64
    key: UInt64

    @classmethod
    def counted(cls, parts: Iterator[Table]) -> _Buckets:
        """Count the documents of each bucket, given the entries of those that may be crowded."""
        first, key, count = np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.int64)
        for entries in parts:
            first, key = np.concatenate([first, entries["first"]]), np.concatenate([key, entries["key"]])
            count = np.concatenate([count, np.ones(height(entries), np.int64)])
            order = np.lexsort((key, first))
            first, key, count = first[order], key[order], count[order]
            starts = np.flatnonzero(firsts(first) | firsts(key))
            first, key, count = first[starts], key[starts], np.add.reduceat(count, starts)
        return cls(first[count > EVERY_PAIR], key[count > EVERY_PAIR])

    def __len__(self) -> int:
        return len(self.first)

    def places(self, entries: Table) -> Int64:
        """int64[n]: the bucket of each entry; -1: none of these."""
        known = len(self)
        if not known:
            return np.full(height(entries), -1)
        first, key = (np.concatenate(pair) for pair in ((self.first, entries["first"]), (self.key, entries["key"])))
        order = np.lexsort((key, first))  # stable: each bucket comes before its entries
        found = np.empty(len(order), np.int64)
        found[order] = np.cumsum(order < known) - 1
        at = found[known:]
        return np.where((self.first[at] == entries["first"]) & (self.key[at] == entries["key"]), at, -1)


class _Out:
    """Writes the pairs that are similar enough."""

    def __init__(self, job: Job, edges: Outbox, witnesses: Outbox, facts: dict[str, int]) -> None:
        near = job.config.dedup.near
        assert near is not None
        self.job, self.near, self.facts = job, near, facts
        self.measure = CONTAINMENT if near.measure == "containment" else JACCARD
        self.parts = partitions(job)
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

    def pairs(self, sets: Table, better: Int64, worse: Int64, similarity: Float64) -> None:
        """Send pairs, by their rows in a table of sets."""
        self.facts["alike"] += len(better)
        document, home = sets["document"], part_of(sets["lead"], self.parts)
        if self.job.config.dedup.keep == "none":
            both = [(worse, better), (better, worse)]
            for goes, stays in both:
                new = document[goes] >= 0
                goes, stays = document[goes[new]], document[stays[new]]
                to = part_of(goes, self.parts)
                self._witnesses.add(to, document=goes, witness=stays, similarity=similarity[new])
            return
        if self.job.config.dedup.keep == "first":
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
