"""Resolve: from the keys of documents to what deduplication over the whole run says of each.

join                 hash ranges: documents that share a key (`filters.dedup.join`)
copies, exact        places, parts: what documents with copies are ranked by; the best of each set of exact copies
shingles, compare    places, parts: the true similarity of documents that share a band (`...candidates`)
round-*, settle      parts, one unit: which documents stay (`...rounds`)
witnesses, clusters  parts: who each removed document is a copy of, and how many copies each kept one has
verdicts             input units: all that, in the order of the input

A *place* is an input unit, or a file of an earlier run's shingles; a *part* holds documents by a hash of their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from filters.arrays import Bool, Float32, Int32, Int64
from filters.config.filter import RepeatConfig
from filters.dedup.bands import partitions, reading_blocks
from filters.dedup.candidates import COMPARE, CROWDED, WITNESSES, Compare, Shingles
from filters.dedup.copies import MEMBERS, Copies, Exact, part_of, ranked, renamed_ids
from filters.dedup.join import NAMES, Join, Mail, pairs_joined, place_count, places
from filters.dedup.rounds import ROUNDS, Round, Settle, witnesses_for
from filters.kernels.packed import Ragged
from filters.phases.blocks import BlockWriter, Table, find, firsts, height, join_tables, ordered_by, position, take
from filters.phases.phase import Job, Phase
from filters.phases.rows import first_rows, read_rows

REMOVED = Mail("witnesses", "removed.bin", {"witness": "<i8", "document": "<i8", "root": "<i8", "similarity": "<f8"})
"""A removed document, its root, and the root it is a copy of, to whose part it is sent."""
ROOTS = Mail("witnesses", "roots.bin", {"root": "<i8"}, addresses=lambda job: 1)
"""The roots that a part removes."""
VERDICTS, FOUND = "verdicts", "verdicts.bin"
VERDICT_MAIL = Mail(
    "clusters",
    FOUND,
    {
        "document": "<i8", "exact": "<i8", "cluster": "<i8", "size": "<i8", "similarity": "<f8", "reason": "|u1",
        "witness": "[u1]",
    },
    addresses=place_count,
)  # fmt: skip
"""A document that has copies, see `Verdicts`; reason: a number in `REASONS`."""
VERDICT_DTYPES = ["<i8", "<i8", "<i8", "<i8", "<f8", "|u1", "<i8", "|u1", "<i8", "<i8"]
REASONS = (None, "exact_duplicate", "near_duplicate", "in_earlier_run")
_KEPT, _EXACT, _NEAR, _EARLIER = range(4)


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


class Witnesses:
    """Writes `REMOVED` and `ROOTS`: the documents of a part that are removed as near copies, with all of the same text.

    A document is a copy of the one most like it of all that stay.

    Facts: crowded (documents in crowded buckets).
    """

    name = REMOVED.phase

    def units(self, job: Job) -> int:
        """The parts, where near copies are looked for."""
        return partitions(job) * (job.config.dedup.near is not None)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Choose the witness of each removed document."""
        best = join_tables([], WITNESSES.columns)
        for some in witnesses_for(job, unit):
            best = join_tables([best, some], WITNESSES.columns)
            best = take(best, np.lexsort((best["witness"], -best["similarity"], best["document"])))
            best = take(best, firsts(best["document"]))
        with REMOVED.outbox(job, folder) as box, ROOTS.outbox(job, folder) as own:
            own.add(np.zeros(height(best), np.int64), root=best["document"])
            for members in MEMBERS.letters(job, unit) if height(best) else ():
                at, here = find(best["document"], members["root"])
                rows, members = take(best, at[here]), take(members, here)
                box.add(
                    part_of(rows["witness"], partitions(job)), witness=rows["witness"], document=members["document"],
                    root=members["root"], similarity=rows["similarity"],
                )  # fmt: skip
        return {"crowded": len(np.unique(CROWDED.table(job, unit)["document"]))}


class Clusters:
    """Writes `VERDICT_MAIL`: what becomes of the documents that have a copy.

    Facts: clusters (kept documents that others are copies of), documents (in them).
    """

    name = VERDICT_MAIL.phase

    def units(self, job: Job) -> int:
        """The parts."""
        return partitions(job)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Gather the copies of the documents of a part."""
        where = places(job)
        members = MEMBERS.table(job, unit)
        members = take(members, ranked(job, members["root"], members))
        first = firsts(members["root"])
        group, starts = np.cumsum(first) - 1, np.flatnonzero(first)
        roots, best, counts = members["root"][starts], members["document"][starts], np.bincount(group)
        gone: Bool = np.zeros(len(roots), np.bool_)
        near = join_tables([], REMOVED.columns)
        if job.config.dedup.near is not None:
            gone[position(roots, ROOTS.table(job, 0, [unit])["root"])] = True
            near = REMOVED.table(job, unit)
        copied = position(roots, near["witness"])
        # Of exact copies the best stays, or with `keep: none` nobody; what others are near copies of stays.
        stays = first & ((counts == 1)[group] | (job.config.dedup.keep != "none"))
        exact = {
            "document": members["document"], "exact": members["root"], "cluster": group,
            "similarity": np.where(stays, np.nan, 1.0), "reason": np.where(stays, _KEPT, _EXACT),
            "row": starts[group] + (first & ~stays),
        }  # fmt: skip
        several = counts > 1
        several[copied] = True
        removed = {
            "document": near["document"], "exact": near["root"], "cluster": copied,
            "similarity": near["similarity"], "reason": np.full(height(near), _NEAR), "row": starts[copied],
        }  # fmt: skip
        columns = {name: kind for name, kind in VERDICT_MAIL.columns.items() if name in exact} | {"row": "<i8"}
        found = join_tables([take(exact, (several & ~gone)[group]), removed], columns)
        row, kept = found.pop("row"), found["reason"] == _KEPT
        found["reason"][(members["document"][row] < 0) & ~kept] = _EARLIER
        nobody = Ragged(np.empty(0, np.uint8), np.zeros(2, np.int64))
        found["witness"] = Ragged.joined([members["id"], nobody], np.uint8).take(np.where(kept, len(group), row))
        found = take(found, found["document"] >= 0)
        cluster = found["cluster"]
        size = np.bincount(cluster, minlength=len(roots))
        # A cluster goes by the document that stays. One of an earlier run has no number here: the first copy lends its.
        smallest = np.full(len(roots), np.iinfo(np.int64).max)
        np.minimum.at(smallest, cluster, found["document"])
        label = np.where(best < 0, smallest, best)[cluster]
        found |= {"exact": np.where(found["exact"] < 0, label, found["exact"]), "cluster": label, "size": size[cluster]}
        with VERDICT_MAIL.outbox(job, folder) as box:
            box.add(where.of(found["document"]), **{name: found[name] for name in VERDICT_MAIL.columns})
        return {"clusters": int((size > 1).sum()), "documents": height(found)}


class VerdictsOfUnit:
    """verdicts.bin: what deduplication says of the documents of an input unit that have a copy, ascending, and the
    suffixes of ids.

    Facts: removed (documents by reason).
    """

    name = VERDICTS

    def units(self, job: Job) -> int:
        """The units of the input."""
        return len(job.units)

    def run(self, job: Job, unit: int, folder: Path) -> dict[str, Any]:
        """Gather what was sent to an input unit."""
        place = unit + len(places(job).parts)
        found = ordered_by(VERDICT_MAIL.table(job, place), "document")
        names = ordered_by(NAMES.table(job, place), "document")
        with BlockWriter(folder / FOUND, VERDICT_DTYPES) as blocks:
            blocks.write(
                found["document"], found["exact"], found["cluster"], found["size"], found["similarity"],
                found["reason"], found["witness"].lengths, found["witness"].values, names["document"], names["suffix"],
            )  # fmt: skip
        reasons = np.bincount(found["reason"], minlength=len(REASONS)).tolist()
        removed = {name: count for name, count in zip(REASONS, reasons, strict=True) if name and count}
        return {"removed": removed}


def _read(job: Job, unit: int) -> tuple[int, Table, Table]:
    """(number of the first document of an input unit, its verdicts, its suffixes)."""
    with reading_blocks(job, VERDICTS, unit, FOUND, VERDICT_DTYPES) as reader:
        *plain, lengths, ids, renamed, suffix = reader.arrays(0)
    found: Table = dict(zip(VERDICT_MAIL.columns, [*plain, Ragged.of_lengths(ids, lengths)], strict=True))
    return int(first_rows(job)[unit]), found, {"document": renamed, "suffix": suffix}


def verdicts(job: Job, unit: int) -> Verdicts:
    """What deduplication says of the documents of an input unit.

    Raises:
        DamagedError: a file of an earlier phase is missing or damaged.
    """
    first, found, names = _read(job, unit)
    columns = read_rows(job, unit, ["id", "reason"]).combine_chunks()
    n = columns.num_rows
    rows = found["document"] - first
    numbers = np.arange(first, first + n, dtype=np.int64)
    reason = np.array(columns["reason"].to_numpy(zero_copy_only=False), dtype=object)
    alive = np.asarray(columns["reason"].is_null().to_numpy())
    exact: Int64 = np.where(alive, numbers, -1)
    near: Int64 = exact.copy()
    size: Int32 = alive.astype(np.int32)
    exact[rows], near[rows], size[rows] = found["exact"], found["cluster"], found["size"]
    removed = found["reason"] != _KEPT
    witness = np.full(n, None, dtype=object)
    witness[rows[removed]] = found["witness"].take(np.flatnonzero(removed)).strings().to_numpy(zero_copy_only=False)
    similarity = np.full(n, np.nan)
    similarity[rows[removed]] = found["similarity"][removed]
    reason[rows[removed]] = np.array(REASONS, dtype=object)[found["reason"][removed]]
    renamed = np.zeros(n, np.bool_)
    renamed[names["document"] - first] = True
    ids = columns["id"].chunk(0) if n else pa.array([], pa.string())
    return Verdicts(
        id=renamed_ids(ids, names["document"] - first, names["suffix"]),
        renamed=renamed,
        exact_cluster=exact,
        near_cluster=near,
        cluster_size=size,
        duplicate_of=pa.array(witness, pa.string()),
        similarity=pa.array(similarity, mask=np.isnan(similarity)),
        reason=pa.array(reason, pa.string()),
    )


def survivors(job: Job, unit: int, alive: Bool) -> tuple[Bool, Int64]:
    """Which documents of an input unit stay, and the sizes of their clusters.

    Args:
        job: of the run.
        unit: of the input.
        alive: bool[n], documents that take part in deduplication.

    Returns:
        bool[n] and int64[n].

    Raises:
        DamagedError: a file of an earlier phase is missing or damaged.
    """
    first, found, _ = _read(job, unit)
    rows = found["document"] - first
    stay, size = alive.copy(), alive.astype(np.int64)
    stay[rows] = found["reason"] == _KEPT
    size[rows] = found["size"]
    return stay, size


def unique_ids(job: Job, unit: int, ids: pa.Array, rows: Int64) -> pa.Array:
    """Ids of some rows of an input unit (string[n], rows ascending), with the suffixes they get."""
    first, _, names = _read(job, unit)
    documents = rows + first
    at, here = find(documents, names["document"])
    return renamed_ids(ids, at[here], names["suffix"][here])


def dedup_summary(job: Job) -> dict[str, Any]:
    """Summary of deduplication for the manifest.

    pairs: of keys met, by kind. near: pairs compared and found alike; crowded buckets and the documents in them, which
    were compared with the best of the bucket only. clusters: kept documents with copies; documents_with_copies: all in
    them, the kept ones too.

    Raises:
        DamagedError: a unit of these phases has no entry.
    """
    parts = range(partitions(job))
    found: dict[str, Any] = {"pairs": pairs_joined(job)}
    if job.config.dedup.near is not None:
        facts = [job.facts(COMPARE, part) for part in parts]
        near = {name: sum(int(some[name]) for some in facts) for name in ("compared", "alike")}
        near["crowded_buckets"] = sum(int(some["crowded"]) for some in facts)
        near["documents_in_crowded_buckets"] = sum(int(job.facts(REMOVED.phase, part)["crowded"]) for part in parts)
        found["near"] = near
    facts = [job.facts(VERDICT_MAIL.phase, part) for part in parts]
    found["clusters"] = sum(int(some["clusters"]) for some in facts)
    found["documents_with_copies"] = sum(int(some["documents"]) for some in facts)
    return found


RESOLVE_PHASES: tuple[Phase, ...] = (
    Join(), Copies(), Exact(), Shingles(), Compare(), *(Round(n) for n in range(1, ROUNDS + 1)), Settle(),
    Witnesses(), Clusters(), VerdictsOfUnit(),
)  # fmt: skip


def times_written(config: RepeatConfig, sizes: Int64, scores: Float32, ids: pa.Array) -> Int64:
    """int64[n]: times to write each document (upsampling), from 1 to `config.max`.

    Where the curve gives a fraction, 1.3 say, 30 % of the documents are written twice and 70 % once: those whose id
    has a hash (xxh3-64 over the range of uint64) below the fraction. So it depends on a document's id alone.

    Args:
        config: the curve and the cap.
        sizes: int64[n], documents in the cluster.
        scores: float32[n].
        ids: string[n], unique.
    """
    place = (sizes if config.by == "cluster_size" else scores).astype(np.float64)
    times = place
    if config.curve:
        points = np.array(config.curve, np.float64)
        times = np.interp(place, points[:, 0], points[:, 1])
    times = np.clip(times, 1, config.max)
    whole = np.floor(times)
    drawn = times > whole
    whole[drawn] += _uniform(ids.filter(pa.array(drawn))) < (times - whole)[drawn]
    return whole.astype(np.int64)


def _uniform(ids: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(i.encode()) / 2**64 for i in ids.to_pylist()), np.float64, len(ids))
